"""A tensor that stays where it is stored and is read block by block, so that a pair of any size is compared in little memory.

Pure: what reads is a function that the maker gives (`alignment.dump_files` has those for files).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


class Blocks:
    """A stored tensor: `shape`, native `dtype`, `ndim`, `size`. ``blocks[a:b]`` and ``blocks[i]`` are its elements in C order, whatever its shape.

    `read(start, stop)` returns those elements as a 1-d array in the stored type, of either byte order. The last block and the last single element
    are held: measures read a block more than once, and a compressed file can only be read forwards. ``np.asarray`` reads the whole.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[int, int], np.ndarray]):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype).newbyteorder("=")
        self.ndim, self.size, self.nbytes = len(self.shape), math.prod(self.shape), math.prod(self.shape) * self.dtype.itemsize
        self._read = read
        self._held: dict[bool, tuple[int, int, np.ndarray]] = {}

    def __getitem__(self, key: slice | int) -> np.ndarray | np.generic:
        if not isinstance(key, slice):
            start = range(self.size)[key]
            return self._elements(start, start + 1)[0]
        start, stop, step = key.indices(self.size)
        if step != 1:
            raise ValueError("blocks are read without a step")
        return self._elements(start, max(start, stop))

    def _elements(self, start: int, stop: int) -> np.ndarray:
        if start == stop:
            return np.empty(0, self.dtype)
        single = stop - start == 1
        if self._held.get(single, (None, None))[:2] != (start, stop):
            self._held.pop(single, None)  # before reading: two blocks need not lie in memory at once
            self._held[single] = start, stop, self._read(start, stop).astype(self.dtype, copy=False)
        return self._held[single][2]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        whole = self._read(0, self.size) if self.size else np.empty(0, self.dtype)
        return whole.astype(dtype or self.dtype, copy=False).reshape(self.shape)


def as_real(array: np.ndarray | Blocks) -> np.ndarray | Blocks:
    """A complex tensor (...) as real numbers (..., 2), real and imaginary part; anything else as it is."""
    if array.dtype.kind != "c":
        return array
    real = np.dtype(f"f{array.dtype.itemsize // 2}")
    if isinstance(array, Blocks):
        return Blocks((*array.shape, 2), real, lambda start, stop: array[start // 2:(stop + 1) // 2].view(real)[start % 2:start % 2 + stop - start])
    return np.stack([array.real, array.imag], -1)

"""Read what ``torch.save`` wrote, without PyTorch: the zip format and the older one that is a row of pickles.

Facts from torch/serialization.py (BSD-3): a zip holds ``<name>/data.pkl``, whose persistent ids point to raw storages
``<name>/data/<key>``, and ``<name>/byteorder``; the older file is five pickles followed by each storage as a 64-bit
length and little-endian elements. A tensor is a storage, an offset, a shape and strides, so transposed views, shared
storages and 0-d tensors are all one case. Sizes that the pickle declares are held against the bytes that exist.
"""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jt_nanodet.checkpoint import MAX_BYTES, read_file
from jt_nanodet.errors import UserError
from weights_convert.inert import Inert, StorageRef, damaged, load_inert

#: PyTorch dtype -> NumPy code. bfloat16 has none: its 16 bits are the upper half of a float32.
DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
}  # fmt: skip
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
}  # fmt: skip

_PLAIN = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 64 << 20


class TorchFile:
    """An open checkpoint: ``top`` is its inert object, ``foreign`` the classes it names outside PyTorch."""

    def __init__(self, path: Path, top: object, foreign: list[str], order: str, read: Callable[[StorageRef], bytes]):
        self.path, self.top, self.foreign = path, top, foreign
        self._order, self._read = order, read
        self._last: tuple[StorageRef | None, bytes] = (None, b"")
        self._total = 0

    def array(self, value: object, name: str) -> tuple[np.ndarray, str]:
        """Build the tensor ``value``; return (C-contiguous array of its own, PyTorch's dtype name).

        bfloat16 comes back as float32, which holds every bfloat16 exactly. Raises UserError for a tensor NumPy
        cannot hold (complex, float8, quantised, sparse, on the meta device) and for sizes that do not fit.
        """
        call = tensor_call(value)
        if call is None:
            raise UserError(f"'{self.path}' holds '{name}', which is no tensor; save only model.state_dict()")
        if call.qualname not in _PLAIN or not isinstance(call.args[0], StorageRef):
            raise UserError(
                f"'{name}' in '{self.path}' is a special tensor ({call.qualname}); save it as an ordinary CPU tensor"
            )
        try:
            return self._build(call, name)
        except UserError:
            raise
        except Exception as error:  # zipfile and zlib raise many kinds on damaged input
            raise damaged(self.path, f"tensor '{name}': {error}") from None

    def _build(self, call: Inert, name: str) -> tuple[np.ndarray, str]:
        ref, offset, shape, strides = call.args[0], call.args[1], _ints(call.args[2]), _ints(call.args[3])
        dtype = STORAGES.get(ref.type_name, ref.type_name)
        extra = call.args[6:]
        if call.qualname.endswith("_v3"):
            dtype, extra = _dtype_name(call.args[6]), call.args[7:]
        if dtype not in DTYPES or (extra and extra[0]):
            what = f"dtype {dtype}" if dtype not in DTYPES else "a conjugate or negative view"
            raise UserError(f"'{name}' in '{self.path}' has {what}; convert it first with: tensor.float().clone()")
        if len(shape) != len(strides) or len(shape) > 32 or min((offset, *shape, *strides), default=0) < 0:
            raise ValueError(f"shape {shape} with strides {strides} at {offset}")
        code = np.dtype(DTYPES[dtype]).newbyteorder(self._order)
        count = math.prod(shape)  # Python integers: no overflow
        self._total += count * code.itemsize
        if self._total > MAX_BYTES:
            raise ValueError(f"tensors declare more than {MAX_BYTES >> 30} GiB")
        if self._last[0] != ref:  # tensors of one storage usually follow each other
            self._last = (ref, self._read(ref))
        raw = self._last[1]
        elements = np.frombuffer(raw, code, len(raw) // code.itemsize) if raw else np.empty(0, code)
        reach = offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1 if count else 0
        if reach > elements.size:
            raise ValueError(f"needs {reach} elements of a storage that has {elements.size}")
        if count:
            steps = [s * code.itemsize for s in strides]
            view = np.lib.stride_tricks.as_strided(elements[offset:], shape, steps)
        else:
            view = np.empty(shape, code)
        return _values(np.array(view, code.newbyteorder("="), order="C", copy=True), dtype), dtype


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[TorchFile]:
    """Open a ``.pth`` or ``.ckpt``. Raises UserError when it is neither of the two formats, or damaged."""
    data = read_file(path)
    if data[:4] == b"PK\x03\x04":
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise damaged(path, error) from None
        with archive:
            yield _open_zip(path, archive)
    else:
        yield _open_legacy(path, data)


def tensor_call(value: object) -> Inert | None:
    """Return the inert rebuild call behind ``value`` if it is a tensor or parameter, else None."""
    for _ in range(8):  # parameter of a subclass of a tensor is three deep
        if not isinstance(value, Inert):
            return None
        if value.qualname in _PARAMETER and value.args:
            value = value.args[0]
        elif value.qualname == _SUBCLASS and len(value.args) == 4 and _is_class(value.args[0]):
            value = value.args[0](*value.args[2]) if isinstance(value.args[2], tuple) else None
        elif value.qualname.startswith("torch._utils._rebuild_") and value.args:
            return value if len(value.args) >= 4 or value.qualname not in _PLAIN else None
        else:
            return None
    return None


def _open_zip(path: Path, archive: zipfile.ZipFile) -> TorchFile:
    names = archive.namelist()
    tops = [n for n in names if n.endswith("/data.pkl") and n.count("/") == 1]
    folder = tops[0][: -len("data.pkl")] if tops else ""
    if any(n.endswith(".npy") for n in names) and not tops:
        raise UserError(f"'{path}' is a NumPy archive, not a PyTorch file; rename it to end in .npz")
    if any(n.startswith(folder + "code/") for n in names):
        raise UserError(f"'{path}' is a TorchScript program; save its weights: torch.save(model.state_dict(), PATH)")
    if len(tops) != 1 or len(set(names)) != len(names):
        raise damaged(path, "a zip file without exactly one data.pkl")

    def read(name: str, limit: int) -> bytes:
        size = archive.getinfo(name).file_size
        if size > limit:
            raise ValueError(f"'{name}' claims {size} bytes")
        return archive.read(name)  # at most ``size`` bytes, and checked against their CRC

    try:
        order = read(folder + "byteorder", 16) if folder + "byteorder" in names else b"little"
        data = read(tops[0], _MAX_PICKLE)
        marks = {b"little": "<", b"big": ">"}
        top, _, found = load_inert(data, path)

        def storage(ref: StorageRef) -> bytes:
            raw = read(f"{folder}data/{ref.key}", MAX_BYTES)
            if len(raw) != ref.length * _itemsize(ref):
                raise ValueError(f"storage {ref.key} declares {ref.length} elements but has {len(raw)} bytes")
            return raw

        return TorchFile(path, top, list(found.foreign), marks[order], storage)
    except UserError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds on damaged input
        raise damaged(path, error) from None


def _open_legacy(path: Path, data: bytes) -> TorchFile:
    if data[:1] != b"\x80":
        raise damaged(path, "it starts like neither a zip file nor a pickle")
    magic, at, _ = load_inert(data, path)
    if magic != _LEGACY_MAGIC:
        raise damaged(path, "a pickle, but not one that torch.save wrote")
    _, at, _ = load_inert(data, path, at)  # protocol version
    _, at, _ = load_inert(data, path, at)  # word sizes of the writer
    top, at, found = load_inert(data, path, at)
    keys, at, _ = load_inert(data, path, at)
    places: dict[str, tuple[int, int]] = {}
    for key in map(str, keys if isinstance(keys, list) else []):
        length = int.from_bytes(data[at : at + 8], "little")
        ref = found.storages.get(key)
        if ref is None or ref.type_name not in STORAGES or at + 8 > len(data):
            raise damaged(path, f"storage {key} is missing or of unknown type {ref and ref.type_name}")
        size = length * _itemsize(ref)
        places[key] = (at + 8, size)
        at += 8 + size
    if at != len(data):
        raise damaged(path, f"{len(data)} bytes where the storages need {at}")

    def storage(ref: StorageRef) -> bytes:
        start, size = places[ref.key]
        if ref.view is None:
            return data[start : start + size]
        _, offset, length = ref.view
        first, last = start + offset * _itemsize(ref), start + (offset + length) * _itemsize(ref)
        if not start <= first <= last <= start + size:
            raise ValueError(f"a view outside storage {ref.key}")
        return data[first:last]

    return TorchFile(path, top, list(found.foreign), "<", storage)


def _values(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bool":
        return array != 0
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _itemsize(ref: StorageRef) -> int:
    return np.dtype(DTYPES[STORAGES[ref.type_name]]).itemsize


def _dtype_name(value: object) -> str:
    return value.qualname.removeprefix("torch.") if _is_class(value) else "?"


def _is_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Inert)


def _ints(value: object) -> tuple[int, ...]:
    if isinstance(value, Inert) and value.qualname == "torch.Size" and value.args:
        value = value.args[0]
    if not isinstance(value, (tuple, list)) or any(type(n) is not int for n in value):
        raise ValueError("a shape that is not integers")
    return tuple(value)

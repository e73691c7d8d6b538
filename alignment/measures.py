"""Numbers about a pair of equal-shaped arrays, computed in chunks so that large memory-mapped pairs never lie in memory whole.

All arithmetic is in float64. Nothing here judges: see `alignment.compare`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alignment.blocks import Blocks

CHUNK = 1 << 19
_ULP_BINS = 4096


@dataclass(frozen=True)
class Measures:
    """What `measure` found. `flat_index` is where `max_abs` occurs; `beyond` counts elements with ``|cand - ref| > bound``.

    `positive` and `negative` count differences by sign. `channel_rmse` is (C,) float64, or None without a channel axis.
    `ulp_p99`: 99 % of the elements lie at most so many representable numbers apart (above 4096 rounded up to a power of two).
    """

    size: int
    max_abs: float
    flat_index: int
    value_ref: float
    value_cand: float
    max_rel: float
    beyond: int
    rel_l2: float
    rmse: float
    cosine: float
    sqnr_db: float
    ulp_p99: float | None
    scale: float
    scale_cand: float
    positive: int
    negative: int
    constant: bool
    channel_rmse: np.ndarray | None


def flat(array: np.ndarray | Blocks) -> np.ndarray | Blocks:
    """The array as one row of elements in C order; a view whenever the layout allows. A stored tensor is indexed so as it is."""
    return array if isinstance(array, Blocks) else np.asarray(array).reshape(-1)


def held(array: np.ndarray | Blocks) -> np.ndarray | Blocks:
    """The array itself; a stored tensor that is no longer than a chunk is read."""
    return array if isinstance(array, Blocks) and array.size > CHUNK else np.asarray(array)


def chunks(size: int) -> Iterator[slice]:
    for start in range(0, size, CHUNK):
        yield slice(start, min(start + CHUNK, size))


def first_not_finite(array: np.ndarray) -> int | None:
    """Flat index of the first NaN or infinity, or None. Integers are always finite."""
    if not np.issubdtype(array.dtype, np.inexact):
        return None
    values = flat(array)
    for part in chunks(values.size):
        bad = ~np.isfinite(values[part])
        if bad.any():
            return part.start + int(np.argmax(bad))
    return None


def first_unequal(ref: np.ndarray, cand: np.ndarray) -> tuple[int, int | None]:
    """How many elements differ, and the flat index of the first; for exact comparison."""
    a, b = flat(ref), flat(cand)
    count, first = 0, None
    for part in chunks(a.size):
        unequal = a[part] != b[part]
        found = int(np.count_nonzero(unequal))
        if found and first is None:
            first = part.start + int(np.argmax(unequal))
        count += found
    return count, first


class ChannelLayout:
    """Maps runs of a flat array to the channels of `axis`. `size` is the number of elements of one channel."""

    def __init__(self, shape: tuple[int, ...], axis: int):
        self.count = shape[axis]
        self.inner = math.prod(shape[axis + 1:])
        self.size = math.prod(shape) // self.count if self.count else 0

    def pieces(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Starts (relative to the chunk) of the runs that belong to one channel each, and the channel of each run."""
        rows = np.arange(part.start // self.inner, (part.stop - 1) // self.inner + 1)
        starts = np.maximum(rows * self.inner - part.start, 0)
        return starts, rows % self.count

    def add(self, total: np.ndarray, values: np.ndarray, part: slice) -> None:
        """Add the chunk's `values` to the channel sums `total` (C,)."""
        starts, channel = self.pieces(part)
        np.add.at(total, channel, np.add.reduceat(values, starts))

    def raise_to(self, largest: np.ndarray, values: np.ndarray, part: slice) -> None:
        """Raise the channel maxima `largest` (C,) to the chunk's `values`."""
        starts, channel = self.pieces(part)
        np.maximum.at(largest, channel, np.maximum.reduceat(values, starts))


def channel_layout(shape: tuple[int, ...], axis: int | None) -> ChannelLayout | None:
    """The layout of `axis`, or None where a split by channel says nothing (no such axis, one channel, empty)."""
    if axis is None or axis >= len(shape) or shape[axis] < 2 or math.prod(shape) == 0:
        return None
    return ChannelLayout(shape, axis)


def ulp_distance(ref: np.ndarray, cand: np.ndarray) -> np.ndarray:
    """How many representable numbers lie between the elements; both arrays of the same floating type."""
    integer = {2: np.int16, 4: np.int32, 8: np.int64}[ref.dtype.itemsize]
    lowest = np.iinfo(integer).min

    def order(values: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(values).view(integer)
        # Negative floats count downwards from the sign bit; mirrored, the integers are in the floats' order.
        return np.where(bits < 0, lowest - bits, bits)

    one, other = order(ref), order(cand)
    if integer is not np.int64:
        return np.abs(one.astype(np.int64) - other.astype(np.int64))
    # Two 64-bit numbers may lie further apart than 2**63: as unsigned ones their difference is exact, and only then a float.
    return (np.maximum(one, other).view(np.uint64) - np.minimum(one, other).view(np.uint64)).astype(np.float64)


def _ulp_quantile(near: np.ndarray, far: np.ndarray, size: int, share: float) -> float:
    target = math.ceil(share * size)
    below = np.cumsum(near)
    if below[-1] >= target:
        return float(np.searchsorted(below, target))
    return float(2.0 ** (np.searchsorted(below[-1] + np.cumsum(far), target)))


#: Values near the largest number there is give infinite squares: an answer, and no reason for a warning.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


def measure(ref: np.ndarray | Blocks, cand: np.ndarray | Blocks, *, bound: float, channel_axis: int | None = None) -> Measures:
    """Measure a non-empty, finite pair of equal shape. Relative numbers are divided by the reference."""
    a, b = flat(ref), flat(cand)
    layout = channel_layout(np.shape(ref), channel_axis)
    channel_sq = np.zeros(layout.count) if layout else None
    with_ulp = a.dtype == b.dtype and np.issubdtype(a.dtype, np.floating)
    near, far = np.zeros(_ULP_BINS, np.int64), np.zeros(66, np.int64)
    max_abs, where, max_rel, beyond, positive, negative = -1.0, 0, 0.0, 0, 0, 0
    diff_sq = ref_sq = cand_sq = dot = scale = scale_cand = 0.0
    lowest, highest = math.inf, -math.inf
    with quiet:
        for part in chunks(a.size):
            x, y = a[part].astype(np.float64), b[part].astype(np.float64)
            diff = y - x
            size = np.abs(diff)
            top = int(np.argmax(size))
            if size[top] > max_abs:
                max_abs, where = float(size[top]), part.start + top
            beyond += int(np.count_nonzero(size > bound))
            positive += int(np.count_nonzero(diff > 0))
            negative += int(np.count_nonzero(diff < 0))
            diff_sq += float(diff @ diff)
            ref_sq += float(x @ x)
            cand_sq += float(y @ y)
            dot += float(x @ y)
            lowest, highest = min(lowest, float(x.min())), max(highest, float(x.max()))
            scale_cand = max(scale_cand, float(np.abs(y).max()))
            if layout:
                layout.add(channel_sq, np.square(diff), part)
            magnitude = np.abs(x)
            scale = max(scale, float(magnitude.max()))
            relative = np.where(size > 0, size / magnitude, 0.0)
            max_rel = max(max_rel, float(relative.max()))
            if with_ulp:
                distance = ulp_distance(a[part], b[part])
                is_near = distance < _ULP_BINS
                near += np.bincount(distance[is_near].astype(np.int64), minlength=_ULP_BINS)
                rest = distance[~is_near]
                if rest.size:
                    far += np.bincount(np.ceil(np.log2(rest.astype(np.float64))).astype(np.int64), minlength=66)
    return Measures(
        size=a.size, max_abs=max_abs, flat_index=where, value_ref=float(a[where]), value_cand=float(b[where]), max_rel=max_rel, beyond=beyond,
        rel_l2=_ratio(math.sqrt(diff_sq), math.sqrt(ref_sq)), rmse=math.sqrt(diff_sq / a.size), cosine=_cosine(dot, ref_sq, cand_sq),
        sqnr_db=math.inf if diff_sq == 0 else (-math.inf if ref_sq == 0 else 10 * math.log10(ref_sq / diff_sq)),
        ulp_p99=_ulp_quantile(near, far, a.size, 0.99) if with_ulp else None, scale=scale, scale_cand=scale_cand, positive=positive,
        negative=negative, constant=a.size > 1 and lowest == highest,
        channel_rmse=np.sqrt(channel_sq / layout.size) if layout else None,
    )


def rmse_between(ref: np.ndarray, cand: np.ndarray) -> float:
    """Root-mean-square difference of two equal-shaped, non-empty arrays."""
    a, b = flat(ref), flat(cand)
    total = 0.0
    with quiet:
        for part in chunks(a.size):
            diff = b[part].astype(np.float64) - a[part].astype(np.float64)
            total += float(diff @ diff)
    return math.sqrt(total / a.size)


def ulp(magnitude: float, dtype: str | np.dtype) -> float:
    """Distance from `magnitude` to the next representable number of `dtype` (0 for integers)."""
    kind = np.dtype(dtype)
    return float(np.spacing(kind.type(abs(magnitude)))) if np.issubdtype(kind, np.floating) else 0.0


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (0.0 if part == 0 else math.inf)


def _cosine(dot: float, ref_sq: float, cand_sq: float) -> float:
    if ref_sq == 0 or cand_sq == 0:
        return 1.0 if ref_sq == cand_sq else 0.0
    return max(-1.0, min(1.0, dot / math.sqrt(ref_sq) / math.sqrt(cand_sq)))

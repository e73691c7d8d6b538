"""Recognising *how* two arrays differ: pure functions, called only for a pair that has already failed.

A recognised pattern names the failure (``transposed`` says more than ``beyond_tolerance``); it never decides it. Every pattern is checked on
the values, so that a name is a finding and not a guess.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from alignment.blocks import Blocks
from alignment.measures import Measures, quiet
from alignment.reasons import Reason

#: Arrays with more elements are named only by what the streamed measures show; the patterns below would need them in memory several times.
LARGEST = 1 << 22
#: A pattern explains a difference when it leaves less than this share of its squared size.
UNEXPLAINED_SHARE = 1e-2
#: Sorted values of any two similar arrays lie close together, so a permutation is claimed only for differences above this share of the scale.
GROSS = 1e-2
#: A difference in fewer elements than this share (or in just one) is called isolated.
ISOLATED_SHARE = 1e-4
#: Fits need this many elements (per channel) before they mean anything; so does a common sign.
FEWEST = 16


@dataclass(frozen=True)
class Signature:
    """The pattern found and, in `hint`, its particulars (which axis, which factor)."""

    reason: Reason
    hint: str = ""


def signature(ref: np.ndarray | Blocks, cand: np.ndarray | Blocks, found: Measures, bound: float, channel_axis: int | None = None) -> Signature:
    """Name the difference of an equal-shaped, finite pair; `found` are its measures, `bound` the elementwise bound it broke."""
    with quiet:
        if found.scale_cand == 0 and found.scale > 0:
            return Signature(Reason.ALL_ZERO, "the candidate holds only zeros")
        if found.size <= LARGEST:
            ref, cand = np.asarray(ref), np.asarray(cand)
            a, b = ref.astype(np.float64), cand.astype(np.float64)
            first_tests = (
                sign_flipped(a, b, bound), transposed(a, b, bound), reversed_axis(a, b, bound), channels_permuted(a, b, bound, channel_axis),
                permuted(a, b, bound) if found.max_abs > GROSS * found.scale else None, low_precision(ref, cand),
            )
            for result in first_tests:
                if result:
                    return result
        few = isolated(found)
        if few:
            return few
        if found.size <= LARGEST:
            for result in (
                constant_offset(a, b), constant_scale(a, b), negative_side(a, b, bound), channel_affine(a, b, channel_axis), border_only(a, b, bound), saturated(a, b, bound),
            ):
                if result:
                    return result
        return one_sided(found) or Signature(Reason.BEYOND_TOLERANCE, f"{found.beyond} of {found.size} elements are beyond the bound")


def shape_reason(ref: tuple[int, ...], cand: tuple[int, ...]) -> Reason:
    """What kind of shape difference this is. Broadcasting comes first: it is what lets a wrong shape through elsewhere."""
    if ref[1:] == cand[1:] and len(ref) == len(cand) > 0 and 1 not in (ref[0], cand[0]):
        return Reason.SHORTER if cand[0] < ref[0] else Reason.LONGER
    try:
        np.broadcast_shapes(ref, cand)
        return Reason.BROADCAST
    except ValueError:
        return Reason.SHAPE


def _close(a: np.ndarray, b: np.ndarray, bound: float) -> bool:
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= bound))


def transposed(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    """Is `b` the array `a` with its axes in another order? Works for unequal shapes too."""
    if not 2 <= a.ndim <= 5 or a.ndim != b.ndim or sorted(a.shape) != sorted(b.shape):
        return None
    probe = np.unique(np.linspace(0, a.size - 1, num=min(a.size, 512)).astype(np.int64))
    where = np.unravel_index(probe, a.shape)
    for axes in itertools.permutations(range(a.ndim)):
        turned = np.transpose(b, axes)
        if axes == tuple(range(a.ndim)) or turned.shape != a.shape:
            continue
        if np.all(np.abs(turned[where] - a[where]) <= bound) and _close(a, turned, bound):
            return Signature(Reason.TRANSPOSED, f"equal after transposing the candidate by {axes}")
    return None


def reversed_axis(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    """Is `b` the array `a` read backwards, along one axis or all?"""
    every: list[tuple[int, ...]] = [(axis,) for axis in range(a.ndim) if a.shape[axis] > 1]
    for axes in every + ([tuple(range(a.ndim))] if len(every) > 1 else []):
        # Three channels read backwards are BGR for RGB, which `channels_permuted` says better.
        if a.ndim > 1 and a.shape[axes[0]] == 3 and len(axes) == 1:
            continue
        if _close(a, np.flip(b, axes), bound):
            return Signature(Reason.REVERSED, f"equal after reversing axis {', '.join(map(str, axes))} of the candidate")
    return None


def sign_flipped(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    return Signature(Reason.SIGN_FLIPPED, "the candidate is the reference times -1") if _close(a, -b, bound) else None


def channels_permuted(a: np.ndarray, b: np.ndarray, bound: float, channel_axis: int | None) -> Signature | None:
    """Does `b` hold the slices of `a` along some axis in another order?"""
    if a.ndim < 2:
        return None
    for axis in sorted(range(a.ndim), key=lambda axis: axis != channel_axis):
        count = a.shape[axis]
        if count < 2 or a.size == count:
            continue
        left, right = np.moveaxis(a, axis, 0).reshape(count, -1), np.moveaxis(b, axis, 0).reshape(count, -1)
        # A random projection gives each slice a number of its own; equal numbers in another order betray the permutation.
        weights = np.random.default_rng(0).normal(size=left.shape[1])
        order = np.empty(count, np.int64)
        order[np.argsort(left @ weights, kind="stable")] = np.argsort(right @ weights, kind="stable")
        if np.array_equal(order, np.arange(count)) or not _close(left, right[order], bound):
            continue
        return Signature(Reason.CHANNELS_PERMUTED, f"equal after reordering axis {axis} of the candidate{_known_order(order)}")
    return None


def _known_order(order: np.ndarray) -> str:
    count = len(order)
    if count == 3 and order.tolist() == [2, 1, 0]:
        return ": three channels reversed (RGB against BGR)"
    for groups in range(2, count):
        if count % groups == 0 and np.array_equal(order, np.arange(count).reshape(groups, -1).T.reshape(-1)):
            return f": a channel shuffle with {groups} groups (or its inverse)"
    moved = int(np.count_nonzero(order != np.arange(count)))
    return f": {moved} of {count} slices have moved"


def permuted(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    """Does `b` hold the same values as `a` at other places?"""
    if a.size < 2 or not _close(np.sort(a, axis=None), np.sort(b, axis=None), bound):
        return None
    return Signature(Reason.PERMUTED, "the candidate holds the same values at other places")


def isolated(found: Measures) -> Signature | None:
    if found.size < 100 or found.beyond > max(1.0, ISOLATED_SHARE * found.size) or found.beyond == 0:
        return None
    return Signature(Reason.ISOLATED, f"only {found.beyond} of {found.size} elements {'is' if found.beyond == 1 else 'are'} beyond the bound")


def _explains(diff: np.ndarray, remainder: np.ndarray) -> bool:
    return float(np.vdot(remainder, remainder)) <= UNEXPLAINED_SHARE * float(np.vdot(diff, diff))


def constant_offset(a: np.ndarray, b: np.ndarray) -> Signature | None:
    diff = b - a
    if a.size < FEWEST or not _explains(diff, diff - diff.mean()):
        return None
    return Signature(Reason.CONSTANT_OFFSET, f"the candidate is the reference plus {diff.mean():.6g}")


def constant_scale(a: np.ndarray, b: np.ndarray) -> Signature | None:
    power = float(np.vdot(a, a))
    if a.size < FEWEST or power == 0:
        return None
    factor = float(np.vdot(a, b)) / power
    if not _explains(b - a, b - factor * a):
        return None
    return Signature(Reason.CONSTANT_SCALE, f"the candidate is the reference times {factor:.6g}")


def negative_side(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    """Do only the reference's negative elements differ, all by one factor, as under another slope of a leaky rectifier?"""
    below = a < 0
    if np.count_nonzero(below) < FEWEST or below.all() or (np.abs(b - a) > bound)[~below].any():
        return None
    x, y = a[below], b[below]
    factor = float(np.vdot(x, y)) / float(np.vdot(x, x))
    if not _explains(y - x, y - factor * x):
        return None
    return Signature(Reason.NEGATIVE_SIDE, f"only negative elements differ; there the candidate is the reference times {factor:.6g}")


def channel_affine(a: np.ndarray, b: np.ndarray, axis: int | None) -> Signature | None:
    """Is each channel of `b` a straight-line function of the same channel of `a`?"""
    if axis is None or axis >= a.ndim or a.shape[axis] < 2 or a.size < FEWEST * a.shape[axis]:
        return None
    left, right = (np.moveaxis(x, axis, 0).reshape(a.shape[axis], -1) for x in (a, b))
    x, y = left - left.mean(1, keepdims=True), right - right.mean(1, keepdims=True)
    power = np.einsum("cn,cn->c", x, x)
    slope = np.divide(np.einsum("cn,cn->c", x, y), power, out=np.ones_like(power), where=power > 0)
    if not _explains(right - left, y - slope[:, None] * x):
        return None
    return Signature(Reason.CHANNEL_AFFINE, f"each channel is scaled and shifted on its own; the factors lie between {slope.min():.6g} and {slope.max():.6g}")


def border_only(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    """Do the last two axes (height, width) differ only in a ring of one or two elements at their border?"""
    if a.ndim < 3 or min(a.shape[-2:]) < 5:
        return None
    wrong = np.abs(b - a) > bound
    for ring in (1, 2):
        if min(a.shape[-2:]) >= 4 * ring + 1 and not wrong[..., ring:-ring, ring:-ring].any():
            return Signature(Reason.BORDER_ONLY, f"every difference lies within {ring} of the border of the last two axes")
    return None


def saturated(a: np.ndarray, b: np.ndarray, bound: float) -> Signature | None:
    """Is `b` the array `a` cut off at a smallest or largest value?"""
    low, high = float(b.min()), float(b.max())
    cut = int(np.count_nonzero((b == high) & (a > high + bound)) + np.count_nonzero((b == low) & (a < low - bound)))
    if cut < 2 or low == high or not _close(np.clip(a, low, high), b, bound):
        return None
    return Signature(Reason.SATURATED, f"the candidate is the reference cut off to [{low:.6g}, {high:.6g}] in {cut} elements")


def low_precision(ref: np.ndarray, cand: np.ndarray) -> Signature | None:
    """Does float32 `cand` hold only numbers of a shorter format, and `ref` many that it lacks?"""
    if ref.dtype != np.float32 or cand.dtype != np.float32 or ref.size < FEWEST:
        return None
    for name, fits in SHORTER.items():
        if fits(cand).all() and np.count_nonzero(~fits(ref)) >= 0.5 * np.count_nonzero(ref) > 0:
            return Signature(Reason.LOW_PRECISION, f"every value of the candidate is a {name} number")
    return None


def _bits_clear(array: np.ndarray, bits: int) -> np.ndarray:
    """Which float32 elements have their lowest `bits` bits at 0."""
    return np.ascontiguousarray(array).view(np.uint32) & np.uint32((1 << bits) - 1) == 0


def _is_float16(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32) == array


#: Shorter formats, the shortest first, each with which float32 elements it can hold.
SHORTER = {"bfloat16": lambda array: _bits_clear(array, 16), "float16": _is_float16, "TF32": lambda array: _bits_clear(array, 13)}


def one_sided(found: Measures) -> Signature | None:
    if found.positive + found.negative < FEWEST or (found.positive and found.negative):
        return None
    return Signature(Reason.ONE_SIDED, f"all {found.positive + found.negative} differences are {'positive' if found.positive else 'negative'}")

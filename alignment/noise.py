"""The measured noise floor, and the tolerances derived from it.

This is the only file that holds numbers by which equality is judged. Everything else asks it for a `Tolerance`.

The floor of a tensor is how far harmless changes move it: the reference is run in float64 once, and in its working precision several times under
other circumstances (threads, position in the batch, order of a reduction, input moved by one ULP). If both sides lie within the floor of the
float64 run, they lie within twice the floor of each other (triangle inequality): hence `FACTOR`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.blocks import Blocks
from alignment.measures import channel_layout, chunks, first_not_finite, flat, quiet, ulp
from alignment.reasons import Reason

#: bound = FACTOR x floor; two runs, each within the floor of the truth, are at most so far apart. flash-attention gates by the same factor.
FACTOR = 2.0
#: The chance, for each honest tensor, that its bound is broken by luck (see `extreme_allowance`). A network has some hundreds of tensors.
FALSE_ALARM = 1e-6
#: How heavy the tail of rounding errors is: 1 is exponential, 0.5 normal. Measured on float32 products under random orders of summation (the
#: ones in the tests of `alignment.compare`) it lies between 1 and 1.5, because large values carry large errors; the heavier end is taken.
TAIL = 1.5
#: A spread needs two runs. Below this the bound could be a lucky zero, and the verdict is `inconclusive`.
MIN_REPEATS = 2
#: A bound wider than this share of the tensor's largest magnitude decides nothing: real faults (a BatchNorm eps of 1e-3 for 1e-5, a resize
#: with other corners) move outputs by some thousandths.
WIDEST_BOUND = 1e-3
#: A node's own relative L2 error, above which a written reason is needed however wide its floor (``parity-method.md``, 4.1).
OWN_REL_L2_CAP = 1e-5
#: In float64 the sides may lie apart by this share of their float32 difference and still compute the same formula (Jittor keeps constants in float32).
SAME_FORMULA = 0.1
#: A recommended tolerance is so many times the largest floor seen: another machine, other inputs and other weights have other floors.
MARGIN = 4.0
#: A node that makes a relative difference so many times larger amplifies it; a convolution after a normalisation makes it two or three times larger.
AMPLIFIES = 8.0
#: The candidate's root-mean-square error against float64 may be so many times the reference's own (TorchDynamo's fp32 rule, and issue 2).
FLOAT64_RATIO = 2.0
#: A gradient's bound may be so wide against its largest element and still decide: its faults are factors, missing terms and cut branches.
WIDEST_GRADIENT_BOUND = 5e-2
#: A gradient is nothing but rounding where its floor is at least this share of what float64 finds (a bias in front of a BatchNorm).
ROUNDING_SHARE = 0.25
#: A training step whose floors were not measured keeps to this share of the largest relative floor of the steps that were, or its own are measured.
INHERITED_SHARE = 0.5
#: Learning rates are the same formula in double precision on both sides; relative.
RATE_BOUND = 1e-12
#: With the same weights every COCO number must agree to this; one detection more or less moves the mAP of some hundred images by about as much.
METRIC_BOUND = 1e-4
#: Floors of detections (score, pixels) above which no flip may be called explained by them.
WIDEST_SCORE_FLOOR = 1e-3
WIDEST_BOX_FLOOR = 0.5


@dataclass(frozen=True)
class Floor:
    """Spread of one tensor under harmless changes, against its float64 run.

    `max_abs` and `rmse` are the largest over the variants; `channel_rmse` (C,) likewise for each channel, `channel_rms` and `channel_max` (C,)
    the magnitude of each channel in float64; `channel_size` its number of elements. `scale` is the tensor's largest magnitude. `widest` is the
    circumstance under which the largest distance occurred.
    """

    max_abs: float
    rmse: float
    scale: float
    size: int
    dtype: str
    repeats: int
    circumstances: tuple[str, ...] = ()
    channel_axis: int | None = None
    channel_size: int = 0
    channel_rmse: tuple[float, ...] | None = None
    channel_rms: tuple[float, ...] | None = None
    channel_max: tuple[float, ...] | None = None
    widest: str = ""


@dataclass(frozen=True)
class Tolerance:
    """What one tensor must keep to; immutable, so that no earlier call can loosen a later one.

    `bound`: largest ``|cand - ref|`` of any element. `channel_bound` (C,): largest root-mean-square difference within each channel, so that an
    error confined to a channel of small values cannot hide below `bound`. `undecidable` names why a difference within the bound proves nothing.
    `certain` is the difference above which a failure is certain even then.
    """

    bound: float
    source: str
    floor: float
    scale: float = 0.0
    channel_bound: tuple[float, ...] | None = None
    channel_axis: int | None = None
    rel_l2_cap: float | None = None
    cap_reason: str = ""
    float64_ratio: float | None = None
    float64_minimum: float = 0.0
    undecidable: Reason | None = None
    certain: float = 0.0
    widest: str = ""


#: For labels, indices, counts, and for floats that were only copied (weights, data).
EXACT = Tolerance(bound=0.0, source="exact", floor=0.0)


def measure_floor(ref64: np.ndarray | Blocks, variants: Sequence[np.ndarray | Blocks], circumstances: Sequence[str] = (), *, channel_axis: int | None = 1) -> Floor:
    """Floor of one tensor.

    `ref64`: the float64 run; `variants`: runs in the working precision, equal in shape, each with its word in `circumstances` ("1 thread").
    Two runs under the same circumstance count as one repeat: they say nothing about the other changes. Raises ValueError for an empty tensor, another shape, mixed types, or NaN and infinities: such runs are no harmless change.
    """
    if not variants:
        raise ValueError("a floor needs at least one variant")
    if circumstances and len(circumstances) != len(variants):
        raise ValueError(f"{len(variants)} variants, but {len(circumstances)} circumstances")
    dtype = str(variants[0].dtype)
    for array in (ref64, *variants):
        if array.shape != ref64.shape or array.size == 0:
            raise ValueError(f"a variant has shape {array.shape}, the float64 run {ref64.shape}; both must be equal and not empty")
        if first_not_finite(array) is not None:
            raise ValueError("a run with NaN or infinity cannot serve for a floor")
    if any(str(variant.dtype) != dtype for variant in variants):
        raise ValueError("the variants differ in dtype")
    layout = channel_layout(ref64.shape, channel_axis)
    truth = flat(ref64)
    channels = layout.count if layout else 0
    rms, largest, spread = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    scale = 0.0
    with quiet:
        for part in chunks(truth.size):
            values = np.abs(truth[part].astype(np.float64))
            scale = max(scale, float(values.max()))
            if layout:
                layout.add(rms, np.square(values), part)
                layout.raise_to(largest, values, part)
        max_abs, widest, rmse = -1.0, 0, 0.0
        for number, variant in enumerate(variants):
            run, total, sums = flat(variant), 0.0, np.zeros(channels)
            for part in chunks(truth.size):
                diff = run[part].astype(np.float64) - truth[part].astype(np.float64)
                off = float(np.abs(diff).max())
                if off > max_abs:
                    max_abs, widest = off, number
                total += float(diff @ diff)
                if layout:
                    layout.add(sums, np.square(diff), part)
            rmse = max(rmse, math.sqrt(total / truth.size))
            spread = np.maximum(spread, sums)
    return Floor(
        max_abs=max_abs, rmse=rmse, scale=scale, size=truth.size, dtype=dtype,
        repeats=len(set(circumstances)) if circumstances else len(variants), circumstances=tuple(circumstances),
        channel_axis=channel_axis if layout else None, channel_size=layout.size if layout else 0,
        channel_rmse=tuple(np.sqrt(spread / layout.size).tolist()) if layout else None, channel_rms=tuple(np.sqrt(rms / layout.size).tolist()) if layout else None,
        channel_max=tuple(largest.tolist()) if layout else None, widest=circumstances[widest] if circumstances else "",
    )


def sampling_allowance(samples: int) -> float:
    """How much one root mean square over so few samples may exceed another by luck: three standard errors of either, ``(1 + 3 / sqrt(2 n)) ** 2``."""
    return (1.0 + 3.0 / math.sqrt(2.0 * samples)) ** 2


def extreme_allowance(size: int, factor: float) -> float:
    """How much the largest of `size` errors may exceed another such largest by luck alone; at least 1.

    If errors beyond x are as rare as ``exp(-(x / b) ** (1 / TAIL))``, the largest of n lies near ``b (ln n) ** TAIL``, and another n exceed
    ``factor a b (ln n) ** TAIL`` with a chance of ``n ** (1 - (factor a) ** (1 / TAIL))``. Solved for a chance of `FALSE_ALARM`.
    With a factor of 2: 1.3 for ten million elements, 1.6 for two hundred thousand, 2.4 for two thousand, 7 for sixteen (and fewer).
    """
    return max(1.0, (1.0 - math.log(FALSE_ALARM) / math.log(max(size, 16))) ** TAIL / factor)


def tolerance_from_floor(
    floor: Floor, *, factor: float = FACTOR, rel_l2_cap: float | None = None, cap_reason: str = "", float64_ratio: float | None = None,
) -> Tolerance:
    """``bound = factor x extreme_allowance x floor``, never below one ULP at the tensor's largest magnitude.

    One ULP, because rounding the same real number from two sides may give neighbours, and a floor measured as zero (short sums, few elements)
    would forbid even that. Where a tensor is small, the largest error seen is a matter of luck, for which `extreme_allowance` makes room.

    The channel bound applies the same factor to each channel's root mean square, taken no smaller than the tensor's typical relative floor at
    the channel's own magnitude, nor than one ULP at the channel's largest value.
    """
    one_ulp = ulp(floor.scale, floor.dtype)
    allowance = extreme_allowance(floor.size, factor)
    bound = max(factor * allowance * floor.max_abs, one_ulp)
    undecidable = None
    if floor.repeats < MIN_REPEATS:
        undecidable = Reason.TOO_FEW_REPEATS
    elif floor.scale > 0 and bound > WIDEST_BOUND * floor.scale:
        undecidable = Reason.FLOOR_TOO_WIDE
    runs = f"{floor.repeats} run{'' if floor.repeats == 1 else 's'}"
    under = f" ({', '.join(floor.circumstances)})" if floor.circumstances else ""
    source = f"one ULP at {floor.scale:.3g}" if bound == one_ulp else f"{factor:g} x {allowance:.3g} x floor of {runs}{under}"
    return Tolerance(
        bound=bound, source=source, floor=floor.max_abs, scale=floor.scale, channel_bound=_channel_bounds(floor, factor),
        channel_axis=floor.channel_axis, rel_l2_cap=rel_l2_cap, cap_reason=cap_reason, float64_ratio=float64_ratio,
        float64_minimum=one_ulp / 2, undecidable=undecidable, certain=max(bound, WIDEST_BOUND * floor.scale), widest=floor.widest,
    )


def _channel_bounds(floor: Floor, factor: float) -> tuple[float, ...] | None:
    if floor.channel_rmse is None:
        return None
    spread, magnitude = np.asarray(floor.channel_rmse), np.asarray(floor.channel_rms)
    alive = magnitude > 0
    typical = float(np.median(spread[alive] / magnitude[alive])) if alive.any() else 0.0
    # All elements of a channel share the rounding of the channel's weights, so a run is one sample of it, however many elements it has.
    expected = np.maximum(spread, typical * magnitude) * sampling_allowance(min(floor.channel_size, floor.repeats))
    return tuple(max(factor * error, ulp(top, floor.dtype)) for error, top in zip(expected.tolist(), floor.channel_max))

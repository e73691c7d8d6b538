"""Pure comparison: arrays in, rows out. Prints nothing, reads nothing, keeps no state between calls.

The checks, in this order, each with a reason of its own: key set, count, dtype, shape, size, finite, elementwise bound, root mean square of
each channel, relative L2 cap, accuracy against float64; and exact equality instead of the bounds for whatever is discrete. A mean never decides.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alignment import measures, signatures
from alignment.blocks import Blocks, as_real
from alignment.noise import EXACT, FLOAT64_RATIO, Floor, Tolerance
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult

_STEP = re.compile(r"^step(\d+)/")


def compare_tensors(
    name: str, ref: np.ndarray | Blocks, cand: np.ndarray | Blocks, *, tolerance: Tolerance | None = None, ref64: np.ndarray | Blocks | None = None, floor: Floor | None = None,
    exact: bool = False, name_cand: str | None = None, match_method: str = "exact", stage: str = "forward", step: int | None = None,
    allow_0d_as_1d: bool = False,
) -> TensorResult:
    """Judge one pair.

    Integer and boolean arrays, and any array with `exact`, must be equal in every element. Floating arrays must keep to `tolerance`; without
    one, only a bitwise equal pair passes and anything else is `inconclusive`. `ref64` (same shape) is the float64 run, from which the errors of
    both sides follow. `floor` only fills the row's `floor` when `tolerance` does not come from it. `allow_0d_as_1d` lets a 0-dimensional side
    meet a side of shape (1,), because Jittor has no 0-dimensional variables; nothing else is ever broadcast. A complex pair is judged as real numbers
    with real and imaginary part along a last axis. A stored tensor (`Blocks`) is read in chunks, whatever its size.
    """
    ref, cand = measures.held(ref), measures.held(cand)
    ref64 = None if ref64 is None else measures.held(ref64)
    row = TensorResult(
        name, name_cand or name, Verdict.PASS, Reason.OK, Gate.BOUND, match_method=match_method, stage=stage, step=_step(name, step), shape=ref.shape,
        dtype=str(ref.dtype), size=ref.size,
    )
    if ref.dtype != cand.dtype:
        return _fail(row, Gate.DTYPE, Reason.DTYPE, f"reference {ref.dtype}, candidate {cand.dtype}")
    if ref.shape != cand.shape:
        if allow_0d_as_1d and {ref.shape, cand.shape} == {(), (1,)}:
            ref, cand = ref.reshape(1), cand.reshape(1)
            ref64 = None if ref64 is None else ref64.reshape(1)
        else:
            return _wrong_shape(row, ref, cand, tolerance)
    if ref.size == 0:
        return _fail(row, Gate.SIZE, Reason.EMPTY, "both sides are empty; there is nothing to compare")
    ref, cand, ref64 = as_real(ref), as_real(cand), None if ref64 is None else as_real(ref64)
    if np.issubdtype(ref.dtype, np.inexact):
        bad = _not_finite(row, ref, cand)
        if bad:
            return bad
    discrete = not np.issubdtype(ref.dtype, np.floating)
    if exact or discrete or tolerance == EXACT:
        return _exactly(row, ref, cand)
    return _within(row, ref, cand, tolerance, ref64, floor)


def compare_bundles(
    ref: Mapping[str, np.ndarray], cand: Mapping[str, np.ndarray], tolerances: Mapping[str, Tolerance], *, ref64: Mapping[str, np.ndarray] | None = None,
    names: Mapping[str, str] | None = None, only: str | None = None, exact: frozenset[str] | set[str] = frozenset(), stage: str = "forward",
    allow_0d_as_1d: bool = False,
) -> list[TensorResult]:
    """One row for each tensor, in the reference's order, then what only the candidate has.

    `ref` and `cand`: a `Bundle` or a dict; one pair is in memory at a time. `names` maps reference names to candidate names where they are meant
    to differ; nothing else is ever paired by position or likeness. `only` is a shell pattern on reference names. Names in `exact` must be equal
    in every element. Names like ``step0003/loss`` carry their step. Never returns an empty list: comparing nothing is itself a row, and not a pass.
    """
    names = dict(names or {})
    wanted = [name for name in ref if only is None or fnmatch.fnmatchcase(name, only)]
    if only is not None and not wanted:
        return [_nothing(Reason.FILTER_MATCHED_NOTHING, f"the pattern {only!r} matches none of the reference's {len(ref)} names", stage)]
    if not len(ref) or not len(cand):
        empty = " and ".join(side for side, run in (("reference", ref), ("candidate", cand)) if not len(run))
        return [_nothing(Reason.NOTHING_COMPARED, f"the {empty} holds no tensor", stage)]
    unused = sorted(set(names) - set(ref)) + sorted(set(names.values()) - set(cand))
    if unused:
        raise ValueError(f"the name map speaks of tensors that are not there: {', '.join(unused)}")
    partner = {name: names.get(name, name) for name in wanted}
    taken = set(partner.values()) | set(names.values())
    surplus = [name for name in cand if name not in taken and (only is None or fnmatch.fnmatchcase(name, only))]
    steps = {_step(name) for name in cand}
    rows = []
    for name in wanted:
        other = partner[name]
        if other in cand:
            rows.append(compare_tensors(
                name, ref[name], cand[other], tolerance=tolerances.get(name), ref64=ref64[name] if ref64 is not None and name in ref64 else None,
                exact=name in exact, name_cand=other, match_method="override" if name in names else "exact", stage=stage,
                allow_0d_as_1d=allow_0d_as_1d,
            ))
            continue
        row = TensorResult(name, None, Verdict.FAIL, Reason.MISSING, Gate.KEYS, stage=stage, step=_step(name), hint="the candidate lacks this tensor")
        twin = _renamed_to(ref[name], cand, surplus, tolerances.get(name))
        if row.step is not None and row.step not in steps:
            row = replace(row, reason=Reason.SHORTER, hint=f"the candidate has no step {row.step}")
        elif twin:
            surplus.remove(twin)
            row = replace(row, name_cand=twin, reason=Reason.RENAMED, match_method="stats", hint=f"the candidate calls it {twin!r}; names must be equal")
        rows.append(row)
    ref_steps = {_step(name) for name in ref}
    for name in surplus:
        step = _step(name)
        reason, hint = Reason.EXTRA, "the reference lacks this tensor"
        if step is not None and step not in ref_steps:
            reason, hint = Reason.LONGER, f"the reference has no step {step}"
        rows.append(TensorResult(name, name, Verdict.FAIL, reason, Gate.KEYS, stage=stage, step=step, hint=hint))
    return rows


def _fail(row: TensorResult, gate: Gate, reason: Reason, hint: str) -> TensorResult:
    return replace(row, verdict=Verdict.FAIL, gate=gate, reason=reason, hint=hint)


def _nothing(reason: Reason, hint: str, stage: str) -> TensorResult:
    return TensorResult("(all)", None, Verdict.NOT_COMPARABLE, reason, Gate.COUNT, stage=stage, hint=hint)


def _step(name: str, given: int | None = None) -> int | None:
    found = _STEP.match(name)
    return given if given is not None or not found else int(found.group(1))


def _wrong_shape(row: TensorResult, ref: np.ndarray, cand: np.ndarray, tolerance: Tolerance | None) -> TensorResult:
    shapes = f"reference {ref.shape}, candidate {cand.shape}"
    if 0 < ref.size <= signatures.LARGEST and ref.size == cand.size and ref.dtype.kind in "iuf":
        turned = signatures.transposed(np.asarray(ref, np.float64), np.asarray(cand, np.float64), tolerance.bound if tolerance else 0.0)
        if turned:
            return _fail(row, Gate.SHAPE, Reason.TRANSPOSED, f"{shapes}; {turned.hint}")
    return _fail(row, Gate.SHAPE, signatures.shape_reason(ref.shape, cand.shape), shapes)


def _not_finite(row: TensorResult, ref: np.ndarray, cand: np.ndarray) -> TensorResult | None:
    in_ref, in_cand = measures.first_not_finite(ref), measures.first_not_finite(cand)
    if in_ref is None and in_cand is None:
        return None
    where = in_cand if in_ref is None else in_ref
    side, reason = {
        (False, True): ("candidate", Reason.NOT_FINITE_CAND), (True, False): ("reference", Reason.NOT_FINITE_REF),
    }.get((in_ref is not None, in_cand is not None), ("reference and candidate", Reason.NOT_FINITE_BOTH))
    row = replace(row, **_at(ref, cand, where))
    return _fail(row, Gate.FINITE, reason, f"NaN or infinity in the {side}; equal NaN are no agreement")


def _at(ref: np.ndarray, cand: np.ndarray, flat_index: int) -> dict:
    index = tuple(int(i) for i in np.unravel_index(flat_index, ref.shape))
    # whole numbers stay whole: as floats, neighbours above 2**53 would be shown as equal
    kind = int if ref.dtype.kind in "iu" else float
    return {"index": index, "value_ref": kind(measures.flat(ref)[flat_index]), "value_cand": kind(measures.flat(cand)[flat_index])}


def _exactly(row: TensorResult, ref: np.ndarray, cand: np.ndarray) -> TensorResult:
    count, first = measures.first_unequal(ref, cand)
    row = replace(row, gate=Gate.EXACT, beyond=count, tolerance=0.0, tolerance_source="exact", floor=0.0)
    if first is None:
        return replace(row, max_abs=0.0, max_rel=0.0, rel_l2=0.0, rmse=0.0)
    row = replace(row, **_at(ref, cand, first))
    return _fail(row, Gate.EXACT, Reason.NOT_EXACT, f"{count} of {ref.size} elements differ where all must be equal; the first is at {row.index}")


def _within(
    row: TensorResult, ref: np.ndarray | Blocks, cand: np.ndarray | Blocks, tolerance: Tolerance | None, ref64: np.ndarray | Blocks | None, floor: Floor | None,
) -> TensorResult:
    bound = tolerance.bound if tolerance else 0.0
    axis = tolerance.channel_axis if tolerance else None
    if ref64 is not None and ref64.shape != ref.shape:
        raise ValueError(f"{row.name_ref}: the float64 run has shape {ref64.shape}, the reference {ref.shape}")
    found = measures.measure(ref, cand, bound=bound, channel_axis=axis)
    row = replace(
        row, max_abs=found.max_abs, max_rel=found.max_rel, beyond=found.beyond, rel_l2=found.rel_l2, rmse=found.rmse, cosine=found.cosine,
        sqnr_db=found.sqnr_db, scale=found.scale, ulp_p99=found.ulp_p99, constant=found.constant, **_at(ref, cand, found.flat_index),
        floor=tolerance.floor if tolerance else (floor.max_abs if floor else None), tolerance=tolerance.bound if tolerance else None,
        tolerance_source=tolerance.source if tolerance else None,
        err_ref_fp64=None if ref64 is None else measures.rmse_between(ref64, ref), err_cand_fp64=None if ref64 is None else measures.rmse_between(ref64, cand),
    )
    row = replace(row, less_accurate=less_accurate(row, tolerance.float64_minimum if tolerance else 0.0), floor_from=tolerance.widest if tolerance else "")
    worst = _worst_channel(found, tolerance)
    if worst:
        row = replace(row, worst_channel=worst[0])
    if found.max_abs == 0:
        return row
    if tolerance is None:
        return replace(row, verdict=Verdict.INCONCLUSIVE, reason=Reason.NO_TOLERANCE, hint="the values differ and no floor was measured for this tensor")
    if found.max_abs > bound:
        if tolerance.undecidable is Reason.TOO_FEW_REPEATS and found.max_abs <= tolerance.certain:
            return _undecided(row, tolerance)
        sign = signatures.signature(ref, cand, found, bound, axis)
        hint = sign.hint + _less_accurate_side(row)
        return _fail(row, Gate.BOUND, sign.reason, hint)
    if tolerance.undecidable:
        return _undecided(row, tolerance)
    if worst and worst[1] > 1:
        return _fail(
            row, Gate.CHANNEL, Reason.CHANNEL_BEYOND_TOLERANCE,
            f"channel {worst[0]} of axis {axis} differs by {worst[1]:.3g} times its own bound, although no element breaks the tensor's",
        )
    if tolerance.rel_l2_cap is not None and found.rel_l2 > tolerance.rel_l2_cap:
        if not tolerance.cap_reason:
            return _fail(row, Gate.REL_L2, Reason.ABOVE_REL_L2_CAP, f"relative L2 error {found.rel_l2:.3g} is above {tolerance.rel_l2_cap:g} without a written reason")
        row = replace(row, verdict=Verdict.WARN, gate=Gate.REL_L2, reason=Reason.ABOVE_REL_L2_CAP, hint=tolerance.cap_reason)
    if _is_less_accurate(row, tolerance):
        return _fail(
            row, Gate.FLOAT64, Reason.LESS_ACCURATE,
            f"error against float64 {row.err_cand_fp64:.3g}, more than {tolerance.float64_ratio:g} times the reference's {row.err_ref_fp64:.3g}",
        )
    return row


def _undecided(row: TensorResult, tolerance: Tolerance) -> TensorResult:
    hint = {
        Reason.TOO_FEW_REPEATS: "the floor comes from too few runs to decide",
        Reason.FLOOR_TOO_WIDE: f"the bound {tolerance.bound:.3g} is too wide against a largest magnitude of {tolerance.scale:.3g} to decide",
    }[tolerance.undecidable]
    return replace(row, verdict=Verdict.INCONCLUSIVE, reason=tolerance.undecidable, hint=hint)


def _worst_channel(found: measures.Measures, tolerance: Tolerance | None) -> tuple[int, float] | None:
    """The channel that comes nearest to its bound, or breaks it most, and the ratio."""
    if found.channel_rmse is None or tolerance is None or tolerance.channel_bound is None:
        return None
    bounds = np.asarray(tolerance.channel_bound)
    if bounds.shape != found.channel_rmse.shape:
        raise ValueError(f"the tolerance knows {bounds.size} channels, the tensor has {found.channel_rmse.size}")
    ratio = np.where(found.channel_rmse > 0, found.channel_rmse / np.maximum(bounds, np.finfo(np.float64).tiny), 0.0)
    worst = int(np.argmax(ratio))
    return worst, float(ratio[worst])


def _is_less_accurate(row: TensorResult, tolerance: Tolerance) -> bool:
    if tolerance.float64_ratio is None or row.err_ref_fp64 is None or row.err_cand_fp64 is None:
        return False
    return row.err_cand_fp64 > max(tolerance.float64_ratio * row.err_ref_fp64, tolerance.float64_minimum)


def less_accurate(row: TensorResult, minimum: float) -> str:
    """The float64 run as judge between two sides: ``reference``, ``candidate``, or ``neither`` where none is clearly worse; "" where it was not run.

    `minimum`: an error below this is rounding of the last place, and no reason to call the other side worse.
    """
    if row.err_ref_fp64 is None or row.err_cand_fp64 is None:
        return ""
    for side, own, other in (("candidate", row.err_cand_fp64, row.err_ref_fp64), ("reference", row.err_ref_fp64, row.err_cand_fp64)):
        if own > FLOAT64_RATIO * max(other, minimum):
            return side
    return "neither"


def _less_accurate_side(row: TensorResult) -> str:
    """For the hint of two sides that differ: the reference may be the wrong one."""
    if row.less_accurate not in ("reference", "candidate"):
        return ""
    errors = sorted((row.err_ref_fp64, row.err_cand_fp64), reverse=True)
    return f"; against float64 the {row.less_accurate} is the less accurate side ({errors[0]:.3g} to {errors[1]:.3g})"


def _renamed_to(array: np.ndarray, cand: Mapping[str, np.ndarray], surplus: list[str], tolerance: Tolerance | None) -> str | None:
    """The surplus tensor that holds this one's values, when there is one. It only names the failure."""
    for name in surplus:
        other = cand[name]
        if other.shape == array.shape and other.dtype == array.dtype and array.size and array.dtype != np.bool_:  # two masks are easily equal
            if compare_tensors(name, array, other, tolerance=tolerance or EXACT).verdict is Verdict.PASS:
                return name
    return None

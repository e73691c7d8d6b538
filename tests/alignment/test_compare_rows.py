"""Whole rows of the comparison, field by field: what a report shows is as much part of a verdict as its colour. Limits: just under, at, just over."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from alignment import noise
from alignment.compare import compare_bundles, compare_tensors, less_accurate
from alignment.noise import EXACT, Tolerance, measure_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult

DEFAULTS = TensorResult("", None, Verdict.PASS, Reason.OK, Gate.BOUND)


def whole(row: TensorResult) -> dict:
    """Every field that is not as a bare row has it; NaN never occurs in these."""
    return {name: value for name, value in vars(row).items() if value != getattr(DEFAULTS, name) or name in ("verdict", "reason", "gate", "name_ref", "name_cand")}


def row(name, cand, verdict, reason, gate, **more) -> dict:
    return {"name_ref": name, "name_cand": cand, "verdict": verdict, "reason": reason, "gate": gate, **more}


def failed(reason, gate, **more) -> dict:
    return row("x", "x", Verdict.FAIL, reason, gate, **more)


PAIR = {"shape": (2, 2), "dtype": "float32", "size": 4}
A = np.float32([[1, 2], [3, 4]])


def changed(value, place=(1, 0), array=A):
    array = array.copy()
    array[place] = value
    return array


# -- rows without numbers


def test_type_and_shape():
    assert whole(compare_tensors("x", A, A.astype(np.float64))) == failed(Reason.DTYPE, Gate.DTYPE, **PAIR, hint="reference float32, candidate float64")
    assert whole(compare_tensors("x", A, A[:, :1])) == failed(Reason.BROADCAST, Gate.SHAPE, **PAIR, hint="reference (2, 2), candidate (2, 1)")
    assert whole(compare_tensors("x", A, np.vstack([A, A]))) == failed(Reason.LONGER, Gate.SHAPE, **PAIR, hint="reference (2, 2), candidate (4, 2)")
    wide = np.arange(6, dtype=np.float32).reshape(2, 3)
    turned = whole(compare_tensors("x", wide, np.ascontiguousarray(wide.T)))
    assert turned == failed(Reason.TRANSPOSED, Gate.SHAPE, shape=(2, 3), dtype="float32", size=6, hint="reference (2, 3), candidate (3, 2); equal after transposing the candidate by (1, 0)")
    mask = wide > 2  # too many arrays of booleans are equal after some turn
    assert whole(compare_tensors("x", mask, np.ascontiguousarray(mask.T)))["reason"] is Reason.SHAPE
    none = np.zeros((0, 2), np.float32)
    assert compare_tensors("x", none, none.T).reason is Reason.SHAPE


def test_the_largest_array_whose_turn_is_looked_for(monkeypatch):
    wide = np.arange(6, dtype=np.float32).reshape(2, 3)
    for largest, reason in ((6, Reason.TRANSPOSED), (5, Reason.SHAPE)):
        monkeypatch.setattr("alignment.signatures.LARGEST", largest)
        assert compare_tensors("x", wide, np.ascontiguousarray(wide.T)).reason is reason


@pytest.mark.parametrize(("ref", "cand"), [(np.float32(1), np.float32([2])), (np.float32([1]), np.float32(2))])
def test_zero_dimensions_are_judged_as_one(ref, cand):
    truth = np.full(np.shape(ref), 1.25)
    found = compare_tensors("x", ref, cand, allow_0d_as_1d=True, ref64=truth)
    assert (found.shape, found.index, found.value_ref, found.value_cand, found.err_ref_fp64, found.err_cand_fp64) == (np.shape(ref), (0,), 1.0, 2.0, 0.25, 0.75)
    assert compare_tensors("x", ref, cand).gate is Gate.SHAPE


def test_a_turned_array_may_be_off_by_its_bound():
    wide = np.arange(6, dtype=np.float32).reshape(2, 3)
    bound = Tolerance(bound=0.25, source="s", floor=0.1)
    for off, reason in ((0.25, Reason.TRANSPOSED), (0.375, Reason.SHAPE)):
        assert compare_tensors("x", wide, np.ascontiguousarray(wide.T) + np.float32(off), tolerance=bound).reason is reason
    assert compare_tensors("x", wide, np.ascontiguousarray(wide.T) + np.float32(0.25)).reason is Reason.SHAPE


def test_empty():
    none = np.zeros((0, 2), np.float32)
    assert whole(compare_tensors("x", none, none)) == failed(Reason.EMPTY, Gate.SIZE, shape=(0, 2), dtype="float32", hint="both sides are empty; there is nothing to compare")


@pytest.mark.parametrize(("ref", "cand", "reason", "side"), [
    (A, changed(np.inf), Reason.NOT_FINITE_CAND, "candidate"), (changed(np.inf), A, Reason.NOT_FINITE_REF, "reference"),
    (changed(np.inf), changed(np.inf), Reason.NOT_FINITE_BOTH, "reference and candidate"),
])
def test_not_finite(ref, cand, reason, side):
    at = {"index": (1, 0), "value_ref": float(ref[1, 0]), "value_cand": float(cand[1, 0])}
    assert whole(compare_tensors("x", ref, cand, tolerance=EXACT)) == failed(reason, Gate.FINITE, **PAIR, **at, hint=f"NaN or infinity in the {side}; equal NaN are no agreement")


def test_names_steps_and_stages_are_carried():
    found = compare_tensors("step0012/x", A, A, name_cand="y", match_method="guess", stage="backward", exact=True)
    assert (found.name_ref, found.name_cand, found.match_method, found.stage, found.step) == ("step0012/x", "y", "guess", "backward", 12)
    assert compare_tensors("step0012/x", A, A, step=3).step == 3 and compare_tensors("x", A, A, step=0).step == 0


# -- exact


EXACTLY = {"tolerance": 0.0, "tolerance_source": "exact", "floor": 0.0}


def test_exactly_equal():
    assert whole(compare_tensors("x", A, A.copy(), exact=True)) == row(
        "x", "x", Verdict.PASS, Reason.OK, Gate.EXACT, **PAIR, **EXACTLY, beyond=0, max_abs=0.0, max_rel=0.0, rel_l2=0.0, rmse=0.0)


@pytest.mark.parametrize("how", [{"exact": True}, {"tolerance": EXACT}])
def test_not_exactly_equal(how):
    cand = changed(9, (1, 1), changed(-9, (0, 1)))
    assert whole(compare_tensors("x", A, cand, **how)) == failed(
        Reason.NOT_EXACT, Gate.EXACT, **PAIR, **EXACTLY, beyond=2, index=(0, 1), value_ref=2.0, value_cand=-9.0,
        hint="2 of 4 elements differ where all must be equal; the first is at (0, 1)")


def test_the_unequal_are_counted_over_all_chunks(monkeypatch):
    monkeypatch.setattr("alignment.measures.CHUNK", 3)
    ref = np.arange(10)
    cand = ref.copy()
    cand[[4, 5, 7, 9]] += 1
    found = compare_tensors("x", ref, cand)
    assert (found.beyond, found.index, found.value_ref, found.value_cand) == (4, (4,), 4, 5) and isinstance(found.value_ref, int)
    assert (found.verdict, found.reason) == (Verdict.FAIL, Reason.NOT_EXACT)


# -- within a bound


def tolerance(**more) -> Tolerance:
    return Tolerance(**{"bound": 0.5, "source": "measured", "floor": 0.25, "scale": 4.0, "widest": "other threads", **more})


def measured(cand, at, **more) -> dict:
    """What every row within a bound says; sums are small enough to be exact."""
    diff = cand.astype(np.float64) - A
    two = float((diff**2).sum())
    ref = float((A.astype(np.float64)**2).sum())
    cosine = float((A.astype(np.float64) * cand).sum() / math.sqrt(ref) / math.sqrt(float((cand.astype(np.float64)**2).sum())))
    found = {**PAIR, "max_abs": float(np.abs(diff).max()), "max_rel": float((np.abs(diff) / np.abs(A)).max()), "rel_l2": math.sqrt(two) / math.sqrt(ref), "rmse": math.sqrt(two / 4),
             "cosine": pytest.approx(cosine, abs=1e-15), "sqnr_db": 10 * math.log10(ref / two) if two else math.inf, "scale": 4.0, "index": at, "value_ref": float(A[at]),
             "value_cand": float(cand[at])}
    return {**found, **more}


JUDGED = {"floor": 0.25, "tolerance": 0.5, "tolerance_source": "measured", "floor_from": "other threads", "beyond": 0}


def test_without_a_floor():
    equal = compare_tensors("x", A, A.copy())
    assert whole(equal) == row("x", "x", Verdict.PASS, Reason.OK, Gate.BOUND, **measured(A, (0, 0)), ulp_p99=0.0, beyond=0)
    other = changed(3.25)
    hint = "the values differ and no floor was measured for this tensor"
    found = whole(compare_tensors("x", A, other))
    assert found == row("x", "x", Verdict.INCONCLUSIVE, Reason.NO_TOLERANCE, Gate.BOUND, **measured(other, (1, 0)), beyond=1, hint=hint, ulp_p99=found["ulp_p99"])


def test_a_floor_alone_is_shown_and_decides_nothing():
    floor = measure_floor(A.astype(np.float64), [A, A + np.float32(0.125)], channel_axis=None)
    assert compare_tensors("x", A, changed(3.25), floor=floor).floor == 0.125
    assert compare_tensors("x", A, changed(3.25), floor=floor, tolerance=tolerance()).floor == 0.25
    assert compare_tensors("x", A, changed(3.25)).floor is None


@pytest.mark.parametrize(("value", "verdict"), [(3.5, Verdict.PASS), (np.nextafter(np.float32(3.5), np.float32(9)), Verdict.FAIL), (2.5, Verdict.PASS)])
def test_at_the_bound_and_over_it(value, verdict):
    cand = changed(value)
    found = whole(compare_tensors("x", A, cand, tolerance=tolerance()))
    more = {} if verdict is Verdict.PASS else {"beyond": 1, "hint": "1 of 4 elements are beyond the bound"}
    reason = Reason.OK if verdict is Verdict.PASS else Reason.BEYOND_TOLERANCE
    assert found == row("x", "x", verdict, reason, Gate.BOUND, **{**measured(cand, (1, 0)), **JUDGED, **more}, ulp_p99=found["ulp_p99"])


def test_float64_stands_beside_the_row_and_its_shape_must_fit():
    truth = A.astype(np.float64) + 0.25
    found = compare_tensors("x", A, changed(3.5), tolerance=tolerance(), ref64=truth)
    assert found.err_ref_fp64 == 0.25 and found.err_cand_fp64 == 0.25 and found.less_accurate == "neither"
    with pytest.raises(ValueError, match=r"x: the float64 run has shape \(4,\), the reference \(2, 2\)"):
        compare_tensors("x", A, A, tolerance=tolerance(), ref64=truth.reshape(-1))
    for least, side in ((0.125, "neither"), (0.0625, "candidate")):  # twice the least is the error that counts
        assert compare_tensors("x", A, A + np.float32(0.25), tolerance=tolerance(float64_minimum=least), ref64=A.astype(np.float64)).less_accurate == side
    assert compare_tensors("x", A, A + np.float32(0.25), ref64=A.astype(np.float64)).less_accurate == "candidate"
    bare = compare_tensors("x", A, A, tolerance=tolerance())
    assert (bare.err_ref_fp64, bare.err_cand_fp64, bare.less_accurate) == (None, None, "")


@pytest.mark.parametrize(("value", "verdict"), [(3.5, Verdict.INCONCLUSIVE), (3.75, Verdict.INCONCLUSIVE), (3.875, Verdict.FAIL)])
def test_too_few_repeats_decide_only_what_is_certain(value, verdict):
    found = compare_tensors("x", A, changed(value), tolerance=tolerance(undecidable=Reason.TOO_FEW_REPEATS, certain=0.75))
    assert found.verdict is verdict
    if verdict is Verdict.INCONCLUSIVE:
        assert (found.reason, found.hint) == (Reason.TOO_FEW_REPEATS, "the floor comes from too few runs to decide")


def test_a_floor_too_wide_says_how_wide():
    found = compare_tensors("x", A, changed(3.25), tolerance=tolerance(undecidable=Reason.FLOOR_TOO_WIDE))
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE)
    assert found.hint == "the bound 0.5 is too wide against a largest magnitude of 4 to decide"
    assert compare_tensors("x", A, A.copy(), tolerance=tolerance(undecidable=Reason.FLOOR_TOO_WIDE)).verdict is Verdict.PASS


@pytest.mark.parametrize(("bound", "verdict"), [(0.25, Verdict.PASS), (0.2499999, Verdict.FAIL), (0.15, Verdict.FAIL), (0.3, Verdict.PASS), (0.0, Verdict.FAIL)])
def test_a_channel_at_its_bound_and_over_it(bound, verdict):
    """Channel 1 of axis 1 differs by 0.25 in both elements, channel 0 not at all."""
    cand = A + np.float32([0, 0.25])
    found = compare_tensors("x", A, cand, tolerance=tolerance(channel_axis=1, channel_bound=(0.0, bound)))
    assert (found.verdict, found.worst_channel) == (verdict, 1)
    if verdict is Verdict.FAIL:
        times = f"{0.25 / max(bound, np.finfo(np.float64).tiny):.3g}"
        assert (found.gate, found.reason) == (Gate.CHANNEL, Reason.CHANNEL_BEYOND_TOLERANCE)
        assert found.hint == f"channel 1 of axis 1 differs by {times} times its own bound, although no element breaks the tensor's"


def test_equal_channels_come_to_no_ratio_and_bounds_must_fit():
    assert compare_tensors("x", A, A.copy(), tolerance=tolerance(channel_axis=1, channel_bound=(0.0, 0.0))).worst_channel == 0
    assert compare_tensors("x", A, changed(3.25), tolerance=tolerance(channel_axis=1)).worst_channel is None
    with pytest.raises(ValueError, match="the tolerance knows 3 channels, the tensor has 2"):
        compare_tensors("x", A, A, tolerance=tolerance(channel_axis=1, channel_bound=(1.0, 1.0, 1.0)))
    with_bounds_alone = tolerance(channel_axis=None, channel_bound=(1.0, 1.0))
    assert compare_tensors("x", A, changed(3.25), tolerance=with_bounds_alone).worst_channel is None


def test_the_cap_of_relative_l2():
    cand = changed(3.25)
    exact = math.sqrt(0.25**2) / math.sqrt(30)
    for cap, reason in ((exact, Reason.OK), (math.nextafter(exact, 0), Reason.ABOVE_REL_L2_CAP), (math.nextafter(exact, 1), Reason.OK)):
        found = compare_tensors("x", A, cand, tolerance=tolerance(rel_l2_cap=cap))
        assert found.reason is reason and (reason is Reason.OK or (found.gate, found.verdict) == (Gate.REL_L2, Verdict.FAIL))
    assert compare_tensors("x", A, cand, tolerance=tolerance(rel_l2_cap=0.01)).hint == "relative L2 error 0.0456 is above 0.01 without a written reason"
    found = compare_tensors("x", A, cand, tolerance=tolerance(rel_l2_cap=0.01, cap_reason="long sums"))
    assert (found.verdict, found.gate, found.reason, found.hint) == (Verdict.WARN, Gate.REL_L2, Reason.ABOVE_REL_L2_CAP, "long sums")


@pytest.mark.parametrize(("ratio", "minimum", "verdict"), [
    (2.0, 0.0, Verdict.PASS), (math.nextafter(2.0, 0), 0.0, Verdict.FAIL), (1.0, 0.5, Verdict.PASS), (1.0, math.nextafter(0.5, 0), Verdict.FAIL), (None, 0.0, Verdict.PASS),
])
def test_less_accurate_than_allowed(ratio, minimum, verdict):
    """The reference errs by 0.25, the candidate by 0.5."""
    truth = A.astype(np.float64) - 0.25
    found = compare_tensors("x", A, A + np.float32(0.25), tolerance=tolerance(float64_ratio=ratio, float64_minimum=minimum), ref64=truth)
    assert found.verdict is verdict
    if verdict is Verdict.FAIL:
        assert (found.gate, found.reason) == (Gate.FLOAT64, Reason.LESS_ACCURATE)
        assert found.hint == f"error against float64 0.5, more than {ratio:g} times the reference's 0.25"


def test_the_ratio_needs_float64():
    assert compare_tensors("x", A, changed(3.25), tolerance=tolerance(float64_ratio=1e-9)).verdict is Verdict.PASS


@pytest.mark.parametrize(("ref", "cand", "minimum", "side"), [
    (0.25, 0.5, 0.0, "neither"), (0.25, 0.5 + 1e-9, 0.0, "candidate"), (0.5, 0.25, 0.0, "neither"), (0.5 + 1e-9, 0.25, 0.0, "reference"), (0.0, 0.0, 0.0, "neither"),
    (0.0, 1e-9, 0.0, "candidate"), (0.0, 0.5, 0.25, "neither"), (0.0, 0.5 + 1e-9, 0.25, "candidate"), (0.5 + 1e-9, 0.0, 0.25, "reference"), (None, 1.0, 0.0, ""), (1.0, None, 0.0, ""),
])
def test_which_side_is_the_less_accurate(ref, cand, minimum, side):
    assert less_accurate(dataclasses.replace(DEFAULTS, err_ref_fp64=ref, err_cand_fp64=cand), minimum) == side
    assert noise.FLOAT64_RATIO == 2.0


@pytest.mark.parametrize(("truth", "side"), [("ref", "candidate"), ("cand", "reference"), ("between", "")])
def test_a_broken_bound_says_which_side_is_wrong(truth, side):
    """All elements of the candidate lie 1 above the reference, but for one that lies 0.5 above: no pattern."""
    ref, cand = np.float32([4, 4, 4, 4]), np.float32([5, 5, 5, 4.5])
    judge = {"ref": ref, "cand": cand, "between": (ref + cand) / 2}[truth].astype(np.float64)
    found = compare_tensors("x", ref, cand, tolerance=tolerance(bound=0.1), ref64=judge)
    worse = max(found.err_ref_fp64, found.err_cand_fp64)
    assert found.failed and found.hint.endswith(f"beyond the bound; against float64 the {side} is the less accurate side ({worse:.3g} to 0)" if side else "beyond the bound")


# -- sets of tensors


B = {"one": A, "two": np.arange(4)}


def keys(name, cand, reason, hint, **more):
    return row(name, cand, Verdict.FAIL, reason, Gate.KEYS, hint=hint, **more)


def test_a_missing_and_an_extra_tensor():
    rows = compare_bundles(B, {"one": A, "three": np.zeros(9, np.float32)}, {}, stage="data")
    assert [whole(one) for one in rows[1:]] == [keys("two", None, Reason.MISSING, "the candidate lacks this tensor", stage="data"),
                                                keys("three", "three", Reason.EXTRA, "the reference lacks this tensor", stage="data")]
    assert rows[0].stage == "data" and compare_bundles(B, B, {})[0].stage == "forward"


def test_a_renamed_tensor():
    rows = compare_bundles(B, {"one": A, "zwei": B["two"]}, {}, stage="data")
    assert [whole(one) for one in rows[1:]] == [keys("two", "zwei", Reason.RENAMED, "the candidate calls it 'zwei'; names must be equal", stage="data", match_method="stats")]


def test_a_renamed_tensor_may_be_off_by_its_own_bound():
    for bounds, reason in (({"a": tolerance()}, Reason.RENAMED), ({}, Reason.MISSING)):
        assert compare_bundles({"a": A}, {"b": changed(3.25)}, bounds)[0].reason is reason


@pytest.mark.parametrize("other", [np.arange(4, dtype=np.int32), np.arange(5), np.arange(4).reshape(2, 2), np.arange(4) + 1])
def test_another_tensor_is_no_renamed_one(other):
    assert [one.reason for one in compare_bundles(B, {"one": A, "zwei": other}, {})[1:]] == [Reason.MISSING, Reason.EXTRA]


@pytest.mark.parametrize("value", [np.zeros(0), np.array([True, False])])
def test_empty_arrays_and_masks_are_equal_too_easily_to_be_called_renamed(value):
    assert [one.reason for one in compare_bundles({"a": value, "b": A}, {"c": value, "b": A}, {})] == [Reason.MISSING, Reason.OK, Reason.EXTRA]


def test_steps_that_only_one_side_has():
    ref = {f"step{k:04d}/loss": np.float32([k]) for k in range(3)}
    short = {name: ref[name] for name in list(ref)[:2]}
    assert whole(compare_bundles(ref, short, {}, stage="s")[2]) == keys("step0002/loss", None, Reason.SHORTER, "the candidate has no step 2", step=2, stage="s")
    assert whole(compare_bundles(short, ref, {}, stage="s")[2]) == keys("step0002/loss", "step0002/loss", Reason.LONGER, "the reference has no step 2", step=2, stage="s")
    # a step that is there, with a tensor that is not
    more = {**ref, "step0001/rate": np.float32([9])}
    assert [(one.reason, one.step) for one in compare_bundles(more, ref, {}) if one.failed] == [(Reason.MISSING, 1)]
    assert [(one.reason, one.step) for one in compare_bundles(ref, more, {}) if one.failed] == [(Reason.EXTRA, 1)]


@pytest.mark.parametrize(("ref", "cand", "hint"), [({}, {}, "the reference and candidate holds no tensor"), (B, {}, "the candidate holds no tensor"), ({}, B, "the reference holds no tensor")])
def test_nothing(ref, cand, hint):
    assert [whole(one) for one in compare_bundles(ref, cand, {}, stage="data")] == [
        row("(all)", None, Verdict.NOT_COMPARABLE, Reason.NOTHING_COMPARED, Gate.COUNT, stage="data", hint=hint)]


def test_a_filter_that_matches_nothing():
    assert [whole(one) for one in compare_bundles(B, B, {}, only="x*", stage="data")] == [
        row("(all)", None, Verdict.NOT_COMPARABLE, Reason.FILTER_MATCHED_NOTHING, Gate.COUNT, stage="data", hint="the pattern 'x*' matches none of the reference's 2 names")]


def test_a_filter_holds_for_the_surplus_too():
    assert [one.name_ref for one in compare_bundles(B, {**B, "three": A, "theirs": A}, {}, only="th*")] == ["(all)"]
    assert [one.name_ref for one in compare_bundles(B, {**B, "three": A, "four": A}, {}, only="t*")] == ["two", "three"]


def test_a_name_map():
    with pytest.raises(ValueError, match="not there: drei, eins, zwei$"):
        compare_bundles(B, B, {}, names={"drei": "one", "one": "eins", "two": "zwei"})
    (first, second) = compare_bundles(B, {"one": A, "zwei": B["two"]}, {}, names={"two": "zwei"})
    assert (first.name_cand, first.match_method, second.name_cand, second.match_method) == ("one", "exact", "zwei", "override")


def test_what_is_said_of_one_tensor_reaches_it_alone():
    ref = {"a": A, "b": A, "zero": np.float32(1)}
    cand = {"a": changed(3.25), "b": changed(3.25), "zero": np.float32([1])}
    rows = compare_bundles(ref, cand, {"a": tolerance()}, ref64={"a": A.astype(np.float64)}, exact={"b"}, allow_0d_as_1d=True)
    assert [(one.verdict, one.gate, one.err_ref_fp64) for one in rows] == [(Verdict.PASS, Gate.BOUND, 0.0), (Verdict.FAIL, Gate.EXACT, None), (Verdict.PASS, Gate.BOUND, None)]
    assert compare_bundles(ref, cand, {})[2].gate is Gate.SHAPE

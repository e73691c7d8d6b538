"""Every check of the comparator turns red for its own fault, and stays green on two honest roundings of the same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from alignment.compare import compare_bundles, compare_tensors
from alignment.noise import EXACT, measure_floor, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict


def product(seed: int, shape=(2, 24, 6, 7), inner: int = 96):
    """A matrix product in float64, and in float32 under six orders of summation: what rounding alone does to a layer. Axis 1 is the channel."""
    rng = np.random.default_rng(seed)
    weight, data = rng.normal(size=(shape[1], inner)), rng.normal(size=(shape[0], inner, shape[2] * shape[3]))

    def run(dtype, order):
        return np.stack([(weight[:, order].astype(dtype) @ one[order].astype(dtype)) for one in data]).reshape(shape)

    weight, data = weight.astype(np.float32).astype(np.float64), data.astype(np.float32).astype(np.float64)
    return run(np.float64, np.arange(inner)), [run(np.float32, rng.permutation(inner)) for _ in range(6)]


@pytest.fixture(scope="module")
def case():
    truth, runs = product(0)
    return truth, runs[0], runs[1], tolerance_from_floor(measure_floor(truth, runs[2:]))


def judge(case, cand, **more):
    truth, ref, _, tolerance = case
    return compare_tensors("x", ref, cand, **{"tolerance": tolerance, "ref64": truth, **more})


def test_two_roundings_pass_with_every_number(case):
    row = judge(case, case[2])
    assert (row.verdict, row.reason) == (Verdict.PASS, Reason.OK)
    assert 0 < row.max_abs <= row.tolerance and row.beyond == 0 and row.index is not None
    diff = np.abs(case[2].astype(np.float64) - case[1])
    assert row.max_abs == diff.max() and row.index == np.unravel_index(diff.argmax(), diff.shape)
    assert row.value_cand - row.value_ref == pytest.approx(row.max_abs) or row.value_ref - row.value_cand == pytest.approx(row.max_abs)
    assert row.rel_l2 == pytest.approx(np.linalg.norm(case[2].astype(np.float64) - case[1]) / np.linalg.norm(case[1].astype(np.float64)))
    assert row.err_ref_fp64 == pytest.approx(np.sqrt(np.mean((case[1] - case[0]) ** 2)))
    assert 0.999999 < row.cosine <= 1 and row.sqnr_db > 100 and row.ulp_p99 > 0 and "floor of 4 runs" in row.tolerance_source


def test_equal_arrays_need_no_tolerance():
    row = compare_tensors("x", np.ones(3, np.float32), np.ones(3, np.float32))
    assert row.verdict is Verdict.PASS and row.sqnr_db == np.inf and row.constant


def test_unequal_floats_without_a_tolerance_are_undecided():
    row = compare_tensors("x", np.zeros(3, np.float32), np.ones(3, np.float32))
    assert (row.verdict, row.reason) == (Verdict.INCONCLUSIVE, Reason.NO_TOLERANCE)


@pytest.mark.parametrize("ref, cand, reason", [
    (np.zeros(5, np.float32), np.zeros(5, np.float16), Reason.DTYPE),
    (np.zeros(5, np.float32), np.zeros(5, np.float64), Reason.DTYPE),
    (np.zeros(5, np.int64), np.zeros(5, np.int32), Reason.DTYPE),
    (np.zeros(1, np.float32), np.zeros(5, np.float32), Reason.BROADCAST),
    (np.zeros((), np.float32), np.zeros(5, np.float32), Reason.BROADCAST),
    (np.zeros((), np.float32), np.zeros(1, np.float32), Reason.BROADCAST),
    (np.zeros((1, 4), np.float32), np.zeros((3, 4), np.float32), Reason.BROADCAST),
    (np.zeros((4, 3), np.float32), np.zeros((2, 3), np.float32), Reason.SHORTER),
    (np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), Reason.LONGER),
    (np.zeros((2, 3), np.float32), np.zeros((2, 5), np.float32), Reason.SHAPE),
    (np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32), Reason.EMPTY),
    (np.array([1, 2, 3]), np.array([1, 2, 4]), Reason.NOT_EXACT),
    (np.array([True, False]), np.array([True, True]), Reason.NOT_EXACT),
])
def test_what_the_arrays_are(ref, cand, reason):
    row = compare_tensors("x", ref, cand, tolerance=EXACT)
    assert (row.verdict, row.reason) == (Verdict.FAIL, reason)


def test_a_transposed_shape_is_named():
    ref = np.arange(6, dtype=np.float32).reshape(2, 3)
    row = compare_tensors("x", ref, ref.T.copy())
    assert (row.reason, row.gate) == (Reason.TRANSPOSED, Gate.SHAPE)


def test_zero_dimensions_meet_one_only_by_request():
    ref, cand = np.float32(2.5), np.array([2.5], np.float32)
    assert compare_tensors("x", ref, cand, allow_0d_as_1d=True).verdict is Verdict.PASS
    assert compare_tensors("x", cand, ref, allow_0d_as_1d=True).verdict is Verdict.PASS
    assert compare_tensors("x", np.zeros((1, 1), np.float32), cand, allow_0d_as_1d=True).failed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where, reason", [("ref", Reason.NOT_FINITE_REF), ("cand", Reason.NOT_FINITE_CAND), ("both", Reason.NOT_FINITE_BOTH)])
def test_not_finite(bad, where, reason):
    ref, cand = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    for side, array in (("ref", ref), ("cand", cand)):
        if where in (side, "both"):
            array[1, 2] = bad
    row = compare_tensors("x", ref, cand, tolerance=EXACT)
    assert (row.verdict, row.reason, row.gate, row.index) == (Verdict.FAIL, reason, Gate.FINITE, (1, 2))


PATTERNS = {
    Reason.SIGN_FLIPPED: lambda x: -x,
    Reason.TRANSPOSED: lambda x: x.swapaxes(2, 3),
    Reason.REVERSED: lambda x: x[:, :, ::-1],
    Reason.CHANNELS_PERMUTED: lambda x: x[:, np.arange(24).reshape(2, 12).T.reshape(-1)],
    Reason.PERMUTED: lambda x: np.random.default_rng(1).permutation(x.reshape(-1)).reshape(x.shape),
    Reason.CONSTANT_SCALE: lambda x: x * np.float32(1.049),
    Reason.CONSTANT_OFFSET: lambda x: x + np.float32(0.01),
    Reason.CHANNEL_AFFINE: lambda x: x * np.linspace(0.99, 1.01, 24, dtype=np.float32)[:, None, None],
    Reason.NEGATIVE_SIDE: lambda x: np.where(x < 0, x * np.float32(0.1), x),
    Reason.ALL_ZERO: np.zeros_like,
    Reason.SATURATED: lambda x: np.clip(x, -5, 5),
    Reason.BORDER_ONLY: lambda x: np.pad(x[..., 1:-1, 1:-1], ((0, 0), (0, 0), (1, 1), (1, 1))),
    Reason.ONE_SIDED: lambda x: x - np.random.default_rng(1).uniform(0.1, 1, x.shape).astype(np.float32),
    Reason.BEYOND_TOLERANCE: lambda x: x + np.random.default_rng(1).normal(size=x.shape).astype(np.float32),
}


@pytest.mark.parametrize("reason", PATTERNS, ids=str)
def test_the_pattern_of_a_difference_is_named(case, reason):
    truth, ref, cand, tolerance = case
    if reason is Reason.TRANSPOSED:
        truth, ref, cand = truth[..., :6], ref[..., :6], cand[..., :6]
    row = compare_tensors("x", ref, np.ascontiguousarray(PATTERNS[reason](cand)), tolerance=tolerance, ref64=truth)
    assert (row.verdict, row.reason, row.gate) == (Verdict.FAIL, reason, Gate.BOUND)
    assert "the candidate is the less accurate side" in row.hint


def test_the_reference_may_be_the_wrong_side(case):
    truth, ref, cand, tolerance = case
    row = compare_tensors("x", ref * np.float32(1.01), cand, tolerance=tolerance, ref64=truth)
    assert row.failed and "the reference is the less accurate side" in row.hint


@pytest.mark.parametrize("size", [10**5, 10**6])
def test_one_wrong_element_among_millions(size):
    ref = np.random.default_rng(0).normal(size=size).astype(np.float32)
    tolerance = tolerance_from_floor(measure_floor(ref.astype(np.float64), [ref, ref]))
    cand = ref.copy()
    cand[size // 3] += np.float32(0.2)
    row = compare_tensors("x", ref, cand, tolerance=tolerance)
    assert (row.verdict, row.reason, row.beyond, row.index) == (Verdict.FAIL, Reason.ISOLATED, 1, (size // 3,))


def test_no_mean_hides_one_element_that_is_ten_bounds_off():
    """Its share of any mean over a hundred thousand elements lies far below the bound, and so does the root mean square of its channel."""
    ref = np.random.default_rng(0).normal(size=(4, 25, 1000)).astype(np.float32)
    tolerance = tolerance_from_floor(measure_floor(ref.astype(np.float64), [ref + np.float32(1e-6), ref - np.float32(1e-6)]))
    cand = ref.copy()
    cand[2, 3, 4] += np.float32(10 * tolerance.bound)
    row = compare_tensors("x", ref, cand, tolerance=tolerance)
    assert row.rmse < tolerance.bound / 10
    assert (row.verdict, row.gate, row.reason, row.index) == (Verdict.FAIL, Gate.BOUND, Reason.ISOLATED, (2, 3, 4))


def test_an_error_in_a_channel_of_small_values_cannot_hide():
    """The channel is wrong by a tenth of itself, and yet a hundred times below the bound that the large channels need."""
    truth, runs = product(3)
    small = np.ones((24, 1, 1), np.float32)
    small[5] = 2.0 ** -24
    tolerance = tolerance_from_floor(measure_floor(truth * small, [run * small for run in runs[2:]]))
    ref, cand = runs[0] * small, runs[1] * small
    assert compare_tensors("x", ref, cand, tolerance=tolerance).verdict is Verdict.PASS
    cand[:, 5] *= np.float32(1.1)
    row = compare_tensors("x", ref, cand, tolerance=tolerance)
    assert row.max_abs < tolerance.bound
    assert (row.verdict, row.reason, row.worst_channel) == (Verdict.FAIL, Reason.CHANNEL_BEYOND_TOLERANCE, 5)


def test_relative_l2_above_the_cap_needs_a_written_reason(case):
    truth, ref, cand, tolerance = case
    capped = dataclasses.replace(tolerance, rel_l2_cap=1e-9)
    row = compare_tensors("x", ref, cand, tolerance=capped)
    assert (row.verdict, row.reason) == (Verdict.FAIL, Reason.ABOVE_REL_L2_CAP)
    row = compare_tensors("x", ref, cand, tolerance=dataclasses.replace(capped, cap_reason="long sums"))
    assert (row.verdict, row.hint) == (Verdict.WARN, "long sums")


def test_less_accurate_than_twice_the_reference(case):
    truth, ref, _, tolerance = case
    judged = dataclasses.replace(tolerance, float64_ratio=2.0)
    assert compare_tensors("x", ref, case[2], tolerance=judged, ref64=truth).verdict is Verdict.PASS
    worse = (truth + 3 * (ref - truth)).astype(np.float32)
    row = compare_tensors("x", ref, worse, tolerance=dataclasses.replace(judged, bound=1.0, channel_bound=None), ref64=truth)
    assert (row.verdict, row.reason, row.gate) == (Verdict.FAIL, Reason.LESS_ACCURATE, Gate.FLOAT64)


def test_chunks_do_not_change_the_numbers(case, monkeypatch):
    whole = judge(case, case[2])
    monkeypatch.setattr("alignment.measures.CHUNK", 37)
    pieces = judge(case, case[2])
    for name in ("max_abs", "index", "max_rel", "ulp_p99", "worst_channel", "beyond", "verdict"):
        assert getattr(whole, name) == getattr(pieces, name), name
    for name in ("rel_l2", "rmse", "cosine", "sqnr_db", "err_cand_fp64"):
        assert getattr(whole, name) == pytest.approx(getattr(pieces, name))


def test_layout_does_not_change_the_verdict(case):
    truth, ref, cand, tolerance = case
    strided = np.asfortranarray(cand)
    assert not strided.flags.c_contiguous
    assert compare_tensors("x", ref, strided, tolerance=tolerance).max_abs == compare_tensors("x", ref, cand, tolerance=tolerance).max_abs


def test_ulp_distance_crosses_zero_and_counts_neighbours():
    tiny = np.finfo(np.float32).smallest_subnormal
    row = compare_tensors("x", np.array([tiny], np.float32), np.array([-tiny], np.float32))
    assert row.ulp_p99 == 2
    assert compare_tensors("x", np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2))).ulp_p99 == 1
    assert compare_tensors("x", np.float32([1.0]), np.float32([2.0])).ulp_p99 == 2**23


class TestBundles:
    a = {"one": np.ones(3, np.float32), "two": np.arange(4)}

    def test_equal(self):
        rows = compare_bundles(self.a, dict(self.a), {})
        assert [row.name_ref for row in rows] == ["one", "two"] and all(row.verdict is Verdict.PASS for row in rows)

    @pytest.mark.parametrize("ref, cand", [({}, {}), (a, {}), ({}, a)])
    def test_nothing(self, ref, cand):
        (row,) = compare_bundles(ref, cand, {})
        assert (row.verdict, row.reason) == (Verdict.NOT_COMPARABLE, Reason.NOTHING_COMPARED)

    def test_missing_and_extra(self):
        rows = compare_bundles(self.a, {"one": self.a["one"], "three": np.zeros(9, np.float32)}, {})
        assert [(row.name_ref, row.reason) for row in rows] == [("one", Reason.OK), ("two", Reason.MISSING), ("three", Reason.EXTRA)]

    def test_renamed_is_a_failure_unless_it_was_said(self):
        cand = {"one": self.a["one"], "zwei": self.a["two"]}
        rows = compare_bundles(self.a, cand, {})
        assert [row.reason for row in rows] == [Reason.OK, Reason.RENAMED] and rows[1].name_cand == "zwei"
        rows = compare_bundles(self.a, cand, {}, names={"two": "zwei"})
        assert [row.match_method for row in rows] == ["exact", "override"] and not any(row.failed for row in rows)

    def test_a_name_map_that_fits_nothing_is_an_error(self):
        with pytest.raises(ValueError, match="zwei"):
            compare_bundles(self.a, dict(self.a), {}, names={"two": "zwei"})

    def test_fewer_steps(self):
        ref = {f"step{k:04d}/loss": np.float32([k]) for k in range(3)}
        rows = compare_bundles(ref, {name: ref[name] for name in list(ref)[:2]}, {})
        assert [(row.step, row.reason) for row in rows] == [(0, Reason.OK), (1, Reason.OK), (2, Reason.SHORTER)]
        rows = compare_bundles({name: ref[name] for name in list(ref)[:2]}, ref, {})
        assert rows[-1].reason is Reason.LONGER

    def test_filter(self):
        assert [row.name_ref for row in compare_bundles(self.a, dict(self.a), {}, only="t*")] == ["two"]
        (row,) = compare_bundles(self.a, dict(self.a), {}, only="x*")
        assert (row.verdict, row.reason) == (Verdict.NOT_COMPARABLE, Reason.FILTER_MATCHED_NOTHING)


@pytest.mark.parametrize("shape, inner", [((2, 24, 6, 7), 96), ((1, 8, 1, 1), 300), ((3, 5), 40), ((1, 116, 10, 10), 1044)], ids=str)
def test_no_fault_no_alarm(shape, inner):
    """Hundreds of honest pairs, each against a floor from four other roundings."""
    full = shape if len(shape) == 4 else (shape[0], shape[1], 1, 1)
    alarms = []
    for seed in range(200 if inner < 1000 else 20):
        truth, runs = product(seed, full, inner)
        truth, runs = truth.reshape(shape), [run.reshape(shape) for run in runs]
        row = compare_tensors("x", runs[0], runs[1], tolerance=tolerance_from_floor(measure_floor(truth, runs[2:])), ref64=truth)
        if row.verdict is not Verdict.PASS:
            alarms.append((seed, row.reason, row.max_abs, row.tolerance))
    assert not alarms

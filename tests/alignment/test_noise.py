"""Floors come from runs, bounds from floors, and a bound that decides nothing says so."""

from __future__ import annotations

import numpy as np
import pytest

from alignment import noise
from alignment.compare import compare_tensors
from alignment.measures import ulp
from alignment.noise import measure_floor, tolerance_from_floor
from alignment.reasons import Reason, Verdict


def runs(spread: float, count: int = 3, shape=(2, 8, 20, 20), seed: int = 0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=shape)
    return truth, [(truth + spread * rng.normal(size=shape)).astype(np.float32) for _ in range(count)]


def test_the_floor_is_the_largest_over_the_variants():
    truth, variants = runs(1e-5)
    floor = measure_floor(truth, variants, ["1 thread", "2 threads", "other order"])
    errors = [np.abs(one - truth) for one in variants]
    assert floor.max_abs == max(one.max() for one in errors) and floor.scale == np.abs(truth).max()
    assert floor.rmse == pytest.approx(max(np.sqrt(np.mean(one**2)) for one in errors))
    assert floor.channel_rmse == pytest.approx(np.max([np.sqrt((one**2).mean((0, 2, 3))) for one in errors], 0))
    assert floor.channel_max == pytest.approx(np.abs(truth).max((0, 2, 3)))
    assert (floor.repeats, floor.dtype, floor.channel_size) == (3, "float32", 800)


def test_the_bound_is_a_stated_multiple_of_the_floor():
    truth, variants = runs(1e-5)
    floor = measure_floor(truth, variants, ["a", "b", "c"])
    tolerance = tolerance_from_floor(floor)
    assert tolerance.bound == noise.FACTOR * noise.extreme_allowance(floor.size, noise.FACTOR) * floor.max_abs
    assert tolerance.floor == floor.max_abs and "floor of 3 runs (a, b, c)" in tolerance.source and tolerance.undecidable is None


def test_allowances_shrink_with_size_to_nothing():
    for allowance in (lambda n: noise.extreme_allowance(n, 2.0), noise.sampling_allowance):
        values = [allowance(n) for n in (1, 16, 100, 10**4, 10**6, 10**9)]
        assert values == sorted(values, reverse=True) and values[-1] < 1.2 and values[0] < 10


def test_never_below_one_ulp():
    value = np.array([1.5, 3.0])
    tolerance = tolerance_from_floor(measure_floor(value, [value.astype(np.float32)] * 2, channel_axis=None))
    assert tolerance.floor == 0 and tolerance.bound == ulp(3.0, "float32") and "ULP" in tolerance.source
    neighbour = np.nextafter(value.astype(np.float32), np.float32(9))
    assert compare_tensors("x", value.astype(np.float32), neighbour, tolerance=tolerance).verdict is Verdict.PASS
    next_but_one = np.nextafter(np.nextafter(neighbour, np.float32(9)), np.float32(9))
    assert compare_tensors("x", value.astype(np.float32), next_but_one, tolerance=tolerance).failed


def test_one_repeat_decides_nothing_but_the_obvious():
    truth, variants = runs(1e-6)
    tolerance = tolerance_from_floor(measure_floor(truth, variants[:1]))
    row = compare_tensors("x", variants[1], variants[2], tolerance=tolerance)
    assert (row.verdict, row.reason) == (Verdict.INCONCLUSIVE, Reason.TOO_FEW_REPEATS)
    slightly = variants[2] + np.float32(1e-4)
    assert compare_tensors("x", variants[1], slightly, tolerance=tolerance).verdict is Verdict.INCONCLUSIVE
    assert compare_tensors("x", variants[1], variants[2] * np.float32(1.05), tolerance=tolerance).verdict is Verdict.FAIL


def test_the_same_circumstance_twice_is_one_repeat():
    truth, variants = runs(1e-6)
    assert measure_floor(truth, variants[:2], ["1 thread", "1 thread"]).repeats == 1


def test_a_floor_too_wide_decides_nothing():
    truth, variants = runs(1e-2)
    tolerance = tolerance_from_floor(measure_floor(truth, variants))
    assert tolerance.undecidable is Reason.FLOOR_TOO_WIDE
    row = compare_tensors("x", variants[0], variants[1], tolerance=tolerance)
    assert (row.verdict, row.reason) == (Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE)
    assert compare_tensors("x", variants[0], -variants[1], tolerance=tolerance).verdict is Verdict.FAIL
    assert compare_tensors("x", variants[0], variants[0].copy(), tolerance=tolerance).verdict is Verdict.PASS


@pytest.mark.parametrize("truth, variants, words", [
    (np.ones(3), [], "at least one"),
    (np.ones(3), [np.ones(4, np.float32)], "shape"),
    (np.ones(0), [np.ones(0, np.float32)], "empty"),
    (np.ones(3), [np.full(3, np.nan, np.float32)], "NaN"),
    (np.ones(3), [np.ones(3, np.float32), np.ones(3, np.float16)], "dtype"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_no_floor_from_nonsense(truth, variants, words):
    with pytest.raises(ValueError, match=words):
        measure_floor(truth, variants)


def test_no_channels_where_there_are_none():
    for array in (np.array(1.0), np.ones(4), np.ones((4, 1, 3))):
        floor = measure_floor(array, [array.astype(np.float32)] * 2)
        assert floor.channel_rmse is None and tolerance_from_floor(floor).channel_bound is None

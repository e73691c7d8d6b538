"""alignment.noise, field by field: floors and tolerances as whole records, limits just under, at and just over."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from alignment import noise
from alignment.noise import Floor, Tolerance, extreme_allowance, measure_floor, sampling_allowance, tolerance_from_floor
from alignment.reasons import Reason

TRUTH = np.array([[1.0, -2.0], [4.0, 0.5]])
RUNS = [np.float32([[1.0, -2.25], [4.0, 0.5]]), np.float32([[1.5, -2.0], [4.0, 0.5]])]


@pytest.mark.parametrize("chunk", [1, 3, 1 << 19])
def test_a_whole_floor(monkeypatch, chunk):
    monkeypatch.setattr("alignment.measures.CHUNK", chunk)
    assert measure_floor(TRUTH, RUNS, ["as is", "threads"]) == Floor(
        max_abs=0.5, rmse=0.25, scale=4.0, size=4, dtype="float32", repeats=2, circumstances=("as is", "threads"), channel_axis=1, channel_size=2,
        channel_rmse=(math.sqrt(0.25 / 2), math.sqrt(0.0625 / 2)), channel_rms=(math.sqrt(17 / 2), math.sqrt(4.25 / 2)), channel_max=(4.0, 2.0), widest="threads")
    assert measure_floor(TRUTH, RUNS[::-1], channel_axis=None) == Floor(max_abs=0.5, rmse=0.25, scale=4.0, size=4, dtype="float32", repeats=2)


def test_a_line_has_no_channels_and_small_values_have_their_own_scale():
    line = np.float64([0.25, -0.5])
    assert measure_floor(line, [line.astype(np.float32)] * 2) == Floor(max_abs=0.0, rmse=0.0, scale=0.5, size=2, dtype="float32", repeats=2)


def test_the_widest_is_the_first_of_equals_and_zero_has_one_too():
    assert measure_floor(TRUTH, [RUNS[1], RUNS[1]], ["a", "b"]).widest == "a"
    still = measure_floor(TRUTH, [TRUTH.astype(np.float32)] * 2, ["a", "b"])
    assert (still.widest, still.max_abs, still.rmse) == ("a", 0.0, 0.0)


def test_narrow_runs_do_not_wrap_or_round():
    truth = np.float64([60000.0, -60000.0])
    assert measure_floor(truth, [np.float16([-60000, 60000])] * 2, channel_axis=None).max_abs == pytest.approx(120000, rel=1e-3)
    assert measure_floor(np.float16([60000]), [np.float16([-60000])] * 2, channel_axis=None).max_abs == pytest.approx(120000, rel=1e-3)


@pytest.mark.parametrize(("truth", "runs", "words", "said"), [
    (TRUTH, [], (), "a floor needs at least one variant"), (TRUTH, RUNS, ["one"], "2 variants, but 1 circumstances"),
    (TRUTH, [RUNS[0], RUNS[0][0]], (), r"a variant has shape \(2,\), the float64 run \(2, 2\); both must be equal and not empty"),
    (np.zeros(0), [np.zeros(0)], (), r"a variant has shape \(0,\), the float64 run \(0,\); both must be equal and not empty"),
    (TRUTH, [np.full((2, 2), np.inf)], (), "a run with NaN or infinity cannot serve for a floor"), (TRUTH * np.nan, RUNS, (), "a run with NaN or infinity cannot serve for a floor"),
    (TRUTH, [RUNS[0], TRUTH], (), "the variants differ in dtype"),
])
def test_no_floor(truth, runs, words, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        measure_floor(truth, runs, words)


@pytest.mark.parametrize(("samples", "expected"), [(1, (1 + 3 / math.sqrt(2)) ** 2), (8, (1 + 3 / 4) ** 2), (18, 2.25)])
def test_the_allowance_of_samples(samples, expected):
    assert sampling_allowance(samples) == pytest.approx(expected)


@pytest.mark.parametrize(("size", "words"), [(10**7, 1.3), (2 * 10**5, 1.6), (2000, 2.4), (16, 7.3), (1, 7.3), (10**30, 1.0)])
def test_the_allowance_of_extremes(size, words):
    """The numbers that its description names; one chance in a million, solved back."""
    found = extreme_allowance(size, 2.0)
    assert found == pytest.approx(words, abs=0.06)
    if found > 1:
        n = max(size, 16)
        assert n ** (1 - (2.0 * found) ** (1 / noise.TAIL)) == pytest.approx(1e-6, rel=1e-6)
    assert extreme_allowance(16, 2.0) == extreme_allowance(3, 2.0) > extreme_allowance(17, 2.0)


FLOOR = Floor(max_abs=1e-4, rmse=5e-5, scale=4.0, size=10**6, dtype="float32", repeats=3, circumstances=("a", "b", "c"), widest="b")
ALLOWANCE = extreme_allowance(10**6, 2.0)


def test_a_whole_tolerance():
    bound = 2.0 * ALLOWANCE * 1e-4
    assert tolerance_from_floor(FLOOR) == Tolerance(
        bound=bound, source=f"2 x {ALLOWANCE:.3g} x floor of 3 runs (a, b, c)", floor=1e-4, scale=4.0, float64_minimum=2.0**-21 / 2, certain=4e-3, widest="b")
    more = {"rel_l2_cap": 1e-5, "cap_reason": "why", "float64_ratio": 2.0}
    assert tolerance_from_floor(FLOOR, **more) == dataclasses.replace(tolerance_from_floor(FLOOR), **more)
    assert tolerance_from_floor(FLOOR, factor=4.0).bound == 4.0 * extreme_allowance(10**6, 4.0) * 1e-4


def test_one_ulp_is_the_least():
    found = tolerance_from_floor(dataclasses.replace(FLOOR, max_abs=0.0))
    assert (found.bound, found.source, found.floor, found.float64_minimum) == (2.0**-21, "one ULP at 4", 0.0, 2.0**-22)


@pytest.mark.parametrize(("repeats", "words", "undecidable"), [(1, "1 run", Reason.TOO_FEW_REPEATS), (2, "2 runs", None), (3, "3 runs", None)])
def test_repeats(repeats, words, undecidable):
    found = tolerance_from_floor(dataclasses.replace(FLOOR, repeats=repeats, circumstances=()))
    assert (found.source, found.undecidable) == (f"2 x {ALLOWANCE:.3g} x floor of {words}", undecidable)


@pytest.mark.parametrize(("scale", "undecidable"), [(1.0, None), (math.nextafter(1.0, 0), Reason.FLOOR_TOO_WIDE), (0.5, Reason.FLOOR_TOO_WIDE), (0.0, None), (2.0, None)])
def test_too_wide(scale, undecidable):
    """The bound is a thousandth of 1.0 exactly."""
    floor = dataclasses.replace(FLOOR, scale=scale)
    allowance = extreme_allowance(floor.size, 2.0)
    wide = dataclasses.replace(floor, max_abs=1e-3 / 2.0 / allowance)
    found = tolerance_from_floor(wide)
    if found.bound != 1e-3:
        pytest.skip("not run: this machine's arithmetic rounds the bound off the limit")
    assert found.undecidable is undecidable and found.certain == max(1e-3, 1e-3 * scale)


def test_bounds_of_channels():
    """Three channels: one of ordinary noise, one without any, one dead; and how many samples a floor is."""
    floor = dataclasses.replace(FLOOR, channel_axis=1, channel_size=1000, channel_rmse=(4e-4, 0.0, 0.0), channel_rms=(2.0, 1.0, 0.0), channel_max=(4.0, 2.0, 0.0))
    typical = np.median([4e-4 / 2.0, 0.0])
    allowed = sampling_allowance(3)
    assert tolerance_from_floor(floor).channel_bound == pytest.approx((2.0 * 4e-4 * allowed, 2.0 * typical * 1.0 * allowed, 2.0**-149))
    assert tolerance_from_floor(dataclasses.replace(floor, channel_size=2)).channel_bound[0] == pytest.approx(2.0 * 4e-4 * sampling_allowance(2))
    assert tolerance_from_floor(floor).channel_axis == 1 and tolerance_from_floor(FLOOR).channel_bound is None
    still = dataclasses.replace(floor, channel_rmse=(0.0, 0.0, 0.0))
    assert tolerance_from_floor(still).channel_bound == (2.0**-21, 2.0**-22, 2.0**-149)  # one ULP at each channel's largest value
    dead = dataclasses.replace(floor, channel_rmse=(0.0, 0.0, 0.0), channel_rms=(0.0, 0.0, 0.0), channel_max=(0.0, 0.0, 0.0))
    assert tolerance_from_floor(dead).channel_bound == (2.0**-149,) * 3
    small = dataclasses.replace(floor, channel_rmse=(4e-4, 2e-4, 0.0), channel_rms=(0.5, 0.25, 0.0))
    assert tolerance_from_floor(small).channel_bound[:2] == pytest.approx((2.0 * 4e-4 * allowed, 2.0 * 2e-4 * allowed))


def test_the_numbers_of_equality():
    """Changing one of these changes what is called equal; it must be meant."""
    named = ("FACTOR", "FALSE_ALARM", "TAIL", "MIN_REPEATS", "WIDEST_BOUND", "OWN_REL_L2_CAP", "FLOAT64_RATIO", "METRIC_BOUND", "WIDEST_SCORE_FLOOR", "WIDEST_BOX_FLOOR")
    assert [getattr(noise, name) for name in named] == [2.0, 1e-6, 1.5, 2, 1e-3, 1e-5, 2.0, 1e-4, 1e-3, 0.5]
    assert noise.EXACT == Tolerance(bound=0.0, source="exact", floor=0.0)

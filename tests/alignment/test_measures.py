"""alignment.measures: every number against its formula, over chunk borders, and where a formula divides by nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from alignment import measures
from alignment.blocks import Blocks
from alignment.measures import ChannelLayout, channel_layout, first_not_finite, first_unequal, measure, rmse_between, ulp, ulp_distance


@pytest.fixture(params=[1, 2, 3, 5, 1 << 19], ids="chunks of {}".format)
def chunk(request, monkeypatch):
    monkeypatch.setattr(measures, "CHUNK", request.param)
    return request.param


REF = np.array([[1.0, -2.0, 4.0], [0.0, 8.0, -16.0]], np.float32)
CAND = np.array([[1.5, -2.0, 3.0], [0.0, 8.0, -20.0]], np.float32)


def test_every_number(chunk):
    found = dataclasses.asdict(measure(REF, CAND, bound=0.5, channel_axis=1))
    assert found.pop("channel_rmse").tolist() == [math.sqrt(0.25 / 2), 0.0, math.sqrt(17 / 2)]
    cosine = (1.5 + 4 + 12 + 64 + 320) / math.sqrt(1 + 4 + 16 + 64 + 256) / math.sqrt(2.25 + 4 + 9 + 64 + 400)
    assert found == {
        "size": 6, "max_abs": 4.0, "flat_index": 5, "value_ref": -16.0, "value_cand": -20.0, "max_rel": 0.5, "beyond": 2, "rel_l2": math.sqrt(17.25) / math.sqrt(341), "rmse": math.sqrt(17.25 / 6),
        "cosine": pytest.approx(cosine, abs=1e-15), "sqnr_db": 10 * math.log10(341 / 17.25), "ulp_p99": 2.0**22, "scale": 16.0, "scale_cand": 20.0, "positive": 1, "negative": 2, "constant": False,
    }


def test_the_first_of_equally_large_differences(chunk):
    found = measure(np.zeros(6), np.float64([0, 1, -1, 1, 0, 1]), bound=0.0)
    assert (found.flat_index, found.max_abs, found.positive, found.negative, found.beyond) == (1, 1.0, 3, 1, 4)


def test_small_differences_count_by_their_sign():
    found = measure(np.zeros(4), np.float64([1e-9, -1e-9, -1e-9, 0]), bound=1e-9)
    assert (found.positive, found.negative, found.beyond) == (1, 2, 0)
    assert measure(np.zeros(4), np.float64([1e-9, -1e-9, -1e-9, 0]), bound=0.9e-9).beyond == 3


def test_equal_arrays(chunk):
    found = measure(REF, REF.copy(), bound=0.0)
    assert (found.max_abs, found.flat_index, found.max_rel, found.rel_l2, found.rmse, found.cosine, found.sqnr_db, found.ulp_p99) == (0.0, 0, 0.0, 0.0, 0.0, pytest.approx(1.0, abs=1e-15), math.inf, 0.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("ref", "cand", "max_rel", "rel_l2", "cosine", "sqnr"), [
    (0.0, 0.0, 0.0, 0.0, 1.0, math.inf), (0.0, 2.0, math.inf, math.inf, 0.0, -math.inf), (2.0, 0.0, 1.0, 1.0, 0.0, 0.0), (2.0, -2.0, 2.0, 2.0, -1.0, 10 * math.log10(0.25)),
])
def test_where_one_side_is_nothing(ref, cand, max_rel, rel_l2, cosine, sqnr):
    found = measure(np.full(4, ref), np.full(4, cand), bound=0.0)
    assert (found.max_rel, found.rel_l2, found.cosine, found.sqnr_db) == (max_rel, rel_l2, pytest.approx(cosine), pytest.approx(sqnr))


def test_a_cosine_stays_within_its_range():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(size=7)
        assert -1.0 <= measure(x, -3 * x, bound=0).cosine <= measure(x, 3 * x, bound=0).cosine <= 1.0


@pytest.mark.parametrize(("values", "constant"), [([3.0, 3.0], True), ([3.0], False), ([3.0, 3.0, 3.5], False), ([-1.0, -1.0, -1.0], True)])
def test_constant_means_several_equal_elements(values, constant, chunk):
    assert measure(np.array(values), np.array(values), bound=0).constant is constant


def test_ulps_need_one_floating_type_on_both_sides():
    assert measure(np.float32([1, 2]), np.float64([1, 2]), bound=0).ulp_p99 is None
    assert measure(np.int64([1, 2]), np.int64([1, 3]), bound=0).ulp_p99 is None


@pytest.mark.parametrize(("shape", "axis", "expected"), [((2, 2, 3), 1, (2, 6)), ((2, 3), None, None), ((2, 3), 2, None), ((2, 1), 1, None), ((0, 3), 1, None), ((3,), 0, (3, 1)), ((1, 1, 1), 0, None)])
def test_channel_layouts(shape, axis, expected):
    found = channel_layout(shape, axis)
    assert (None if found is None else (found.count, found.size)) == expected
    assert found is None or isinstance(found.size, int)


def test_a_layout_without_channels_has_no_size():
    assert (ChannelLayout((0, 3), 0).count, ChannelLayout((0, 3), 0).size) == (0, 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sums_and_maxima_of_channels_are_those_of_numpy(chunk, axis):
    values = np.arange(24.0).reshape(2, 3, 4) ** 1.5
    layout, total, largest = ChannelLayout(values.shape, axis), np.zeros(values.shape[axis]), np.zeros(values.shape[axis])
    for part in measures.chunks(values.size):
        layout.add(total, values.reshape(-1)[part], part)
        layout.raise_to(largest, values.reshape(-1)[part], part)
    others = tuple(k for k in range(3) if k != axis)
    assert total == pytest.approx(values.sum(others)) and np.array_equal(largest, values.max(others))


def test_not_finite_and_unequal_over_chunks(chunk):
    values = np.arange(10.0)
    assert first_not_finite(values) is None and first_not_finite(np.arange(3)) is None and first_not_finite(np.zeros(0)) is None
    for k in range(10):
        spoilt, other = values.copy(), values.copy()
        spoilt[k:] = np.inf
        other[[k, -1]] = -1
        assert first_not_finite(spoilt) == k and first_unequal(values, other) == (1 if k == 9 else 2, k)
    assert first_unequal(values, values) == (0, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ulps_are_counted_across_zero_and_every_size(dtype):
    tiny, one = np.finfo(dtype).smallest_subnormal, dtype(1)
    a = np.array([0, -0.0, tiny, -tiny, 1, -1, 2, np.finfo(dtype).max], dtype)
    b = np.array([0, 0.0, -tiny, -tiny, np.nextafter(one, dtype(2)), np.nextafter(-one, dtype(-2)), 1, -np.finfo(dtype).max], dtype)
    found = ulp_distance(a, b)
    bits = np.finfo(dtype).nmant
    assert found[:7].tolist() == [0, 0, 2, 0, 1, 1, 2**bits]
    top = int(np.array(np.finfo(dtype).max).view(f"i{a.itemsize}"))
    assert found[7] == pytest.approx(2 * top, rel=1e-12) and found.dtype == (np.float64 if dtype is np.float64 else np.int64)


@pytest.mark.parametrize(("far", "quantile"), [(0, 0.0), (1, 1.0), (4095, 4095.0), (4096, 4096.0), (4097, 8192.0), (10_000, 16384.0)])
def test_the_quantile_of_ulps(far, quantile):
    """Two of a hundred elements lie so far apart: the 99th of them is one of these two."""
    ref = np.zeros(100, np.float32)
    cand = ref.copy()
    cand[:2] = np.int32(far).view(np.float32)
    assert measure(ref, cand, bound=0).ulp_p99 == quantile
    cand[1] = 0
    assert measure(ref, cand, bound=0).ulp_p99 == 0.0


def test_far_ulps_are_summed_over_chunks(chunk):
    ref, cand = np.zeros(6, np.float32), np.int32([5000, 5000, 5000, 20_000, 20_000, 20_000]).view(np.float32)
    assert measure(ref, cand, bound=0).ulp_p99 == 32768.0
    assert measures._ulp_quantile(np.array([0, 3]), np.array([0, 0, 0, 4]), 7, 0.5) == 8.0
    assert measures._ulp_quantile(np.array([2, 2, 1]), np.array([1, 1]), 7, 0.5) == 1.0
    assert measures._ulp_quantile(np.array([1, 0, 2]), np.array([0, 0, 1]), 4, 1.0) == 4.0


def test_a_stored_tensor_is_read_whole_up_to_a_chunk(monkeypatch):
    monkeypatch.setattr(measures, "CHUNK", 4)
    values = np.arange(5, dtype=np.float32)
    small, large = (Blocks((size,), values.dtype, lambda start, stop: values[start:stop]) for size in (4, 5))
    assert measures.flat(large) is large and measures.held(large) is large and measures.held(values) is values
    assert isinstance(measures.held(small), np.ndarray) and measures.held(small).tolist() == [0, 1, 2, 3]
    assert dataclasses.astuple(measure(large, large, bound=0.0)) == dataclasses.astuple(measure(values, values, bound=0.0))


def test_rmse_between_narrow_types(chunk):
    assert rmse_between(np.int8([-128, 127]), np.int8([127, -128])) == 255.0  # no wrap
    assert rmse_between(np.float16([60000, 0]), np.float16([-60000, 0])) == pytest.approx(np.sqrt(2) * 60000, rel=1e-3)
    found = measure(np.int8([-128, 127]), np.int8([127, -128]), bound=0)
    assert (found.max_abs, found.scale, found.scale_cand) == (255.0, 128.0, 128.0)


@pytest.mark.parametrize(("magnitude", "dtype", "expected"), [(1.0, "float32", 2.0**-23), (-1.0, np.float64, 2.0**-52), (3.0, "float16", 2.0**-9), (3, "int32", 0.0), (1, "bool", 0.0)])
def test_one_ulp(magnitude, dtype, expected):
    assert ulp(magnitude, dtype) == expected

"""alignment.signatures, pattern by pattern: what is said, and where a pattern begins and ends."""

from __future__ import annotations

import numpy as np
import pytest

from alignment import signatures as s
from alignment.measures import Measures, measure
from alignment.reasons import Reason

RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 6, 7, 8))


def said(found):
    return None if found is None else (found.reason, found.hint)


def named(ref, cand, bound=0.0, axis=1):
    return said(s.signature(ref, cand, measure(ref, cand, bound=bound), bound, axis))


def measures(**more) -> Measures:
    fields = {"size": 100, "max_abs": 1.0, "flat_index": 0, "value_ref": 0.0, "value_cand": 0.0, "max_rel": 0.0, "beyond": 0, "rel_l2": 0.0, "rmse": 0.0, "cosine": 0.0, "sqnr_db": 0.0,
              "ulp_p99": None, "scale": 1.0, "scale_cand": 1.0, "positive": 0, "negative": 0, "constant": False, "channel_rmse": None}
    return Measures(**{**fields, **more})


# -- the order in which patterns are looked for


def test_nothing_but_zeros():
    assert named(X, np.zeros_like(X)) == (Reason.ALL_ZERO, "the candidate holds only zeros")
    small = np.full(4, 0.5)
    assert named(small, np.zeros(4)) == (Reason.ALL_ZERO, "the candidate holds only zeros")
    assert named(np.zeros(4), np.full(4, 0.5))[0] is not Reason.ALL_ZERO
    zero = np.zeros(4)
    assert s.signature(zero, zero, measure(zero, zero, bound=0), 0.0).reason is not Reason.ALL_ZERO


def test_no_pattern():
    noise = X + RNG.normal(size=X.shape)
    assert named(X, noise, 0.0, None) == (Reason.BEYOND_TOLERANCE, f"{X.size} of {X.size} elements are beyond the bound")


def test_integers_are_compared_in_double_precision():
    """In eight bits -128 has no negative, and differences wrap."""
    a = np.arange(-128, 128).astype(np.int8)
    assert s.signature(a, (a // 2).astype(np.int8), measure(a, a // 2, bound=0), 0.0).reason is not Reason.SIGN_FLIPPED
    half = np.arange(0, 4000, 2, dtype=np.float16)
    assert named(half, (half * np.float16(2)).astype(np.float16), 0.0, None) == (Reason.CONSTANT_SCALE, "the candidate is the reference times 2")


@pytest.mark.parametrize(("limit", "reason"), [(X.size, Reason.SIGN_FLIPPED), (X.size - 1, Reason.BEYOND_TOLERANCE)])
def test_large_arrays_are_named_by_their_measures_alone(monkeypatch, limit, reason):
    monkeypatch.setattr(s, "LARGEST", limit)
    assert named(X, -X)[0] is reason
    assert named(X, X + 0.25)[0] is (Reason.CONSTANT_OFFSET if limit == X.size else Reason.ONE_SIDED)


def test_patterns_are_asked_with_the_arrays_the_bound_and_the_axis():
    assert named(X[0, 0, :, :7], X[0, 0, :, :7] + 0.25) == (Reason.CONSTANT_OFFSET, "the candidate is the reference plus 0.25")  # a square, which might have been turned
    ring = np.array([1.0, 5.0, 2.0, 9.0])[np.add.outer(np.arange(4), np.arange(4)) % 4]  # turned by one, in rows or in columns
    for axis in (0, 1):
        assert named(ring, ring[[1, 2, 3, 0]], 0.0, axis) == (Reason.CHANNELS_PERMUTED, f"equal after reordering axis {axis} of the candidate: 4 of 4 slices have moved")
    single = X.astype(np.float32)
    assert named(single, single.astype(np.float16).astype(np.float32)) == (Reason.LOW_PRECISION, "every value of the candidate is a float16 number")
    lonely = X.copy()
    lonely[1, 2, 3, 4] += 0.5
    assert named(X, lonely) == (Reason.ISOLATED, f"only 1 of {X.size} elements is beyond the bound")
    lines = X * np.linspace(0.5, 2, 6)[:, None, None]
    assert named(X, lines) == (Reason.CHANNEL_AFFINE, "each channel is scaled and shifted on its own; the factors lie between 0.5 and 2")


def test_a_permutation_needs_a_gross_difference():
    ramp = np.arange(1.0, 101.0)
    swapped = ramp.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    assert named(ramp, swapped, 0.0, None)[0] is not Reason.PERMUTED  # a difference of 1 is a hundredth of the scale
    swapped[[10, 12]] = swapped[[12, 10]]
    assert named(ramp, swapped, 0.0, None) == (Reason.PERMUTED, "the candidate holds the same values at other places")


# -- patterns of place


def test_transposed():
    assert said(s.transposed(X, X.transpose(0, 2, 1, 3), 0.0)) == (Reason.TRANSPOSED, "equal after transposing the candidate by (0, 2, 1, 3)")
    square = RNG.normal(size=(5, 5))
    assert said(s.transposed(square, square.T, 0.0)) == (Reason.TRANSPOSED, "equal after transposing the candidate by (1, 0)")
    five, six = RNG.normal(size=(2, 2, 2, 2, 3)), RNG.normal(size=(2, 2, 2, 2, 1, 3))
    assert s.transposed(five, five.swapaxes(0, 1), 0.0) and s.transposed(six, six.swapaxes(0, 1), 0.0) is None
    assert s.transposed(np.arange(3.0), np.arange(3.0), 0.0) is None and s.transposed(square, square[None], 0.0) is None
    assert s.transposed(square, RNG.normal(size=(5, 4)), 0.0) is None and s.transposed(square, square, 0.0) is None


def test_a_turn_is_checked_in_every_element():
    """Not only where 512 elements are probed."""
    large = RNG.normal(size=(40, 40))
    for place in np.ndindex(4, 4):
        other = large.T.copy()
        other[place] += 1
        assert s.transposed(large, other, 0.0) is None and s.transposed(large, other, 1.0 + 1e-12)
    for place in ((0, 0), (39, 39), (39, 38), (0, 1)):
        other = large.T.copy()
        other[place] += 1
        assert s.transposed(large, other, 0.5) is None


def test_reversed():
    line, three = np.arange(1.0, 5.0), RNG.normal(size=(3, 4))
    assert said(s.reversed_axis(line, line[::-1], 0.0)) == (Reason.REVERSED, "equal after reversing axis 0 of the candidate")
    assert said(s.reversed_axis(X, X[:, :, ::-1], 0.0)) == (Reason.REVERSED, "equal after reversing axis 2 of the candidate")
    assert said(s.reversed_axis(X, X[::-1, ::-1, ::-1, ::-1], 0.0)) == (Reason.REVERSED, "equal after reversing axis 0, 1, 2, 3 of the candidate")
    assert s.reversed_axis(X, X[::-1, ::-1], 0.0) is None
    # three channels backwards are BGR, which another pattern says better; a row of three numbers is no picture
    assert s.reversed_axis(three, three[::-1], 0.0) is None and s.reversed_axis(three, three[:, ::-1], 0.0)
    assert said(s.reversed_axis(three, three[::-1, ::-1], 0.0)) == (Reason.REVERSED, "equal after reversing axis 0, 1 of the candidate")
    assert said(s.reversed_axis(line[:3], line[2::-1], 0.0)) == (Reason.REVERSED, "equal after reversing axis 0 of the candidate")
    four, two = RNG.normal(size=(4, 5)), RNG.normal(size=(2, 5))
    assert s.reversed_axis(four, four[::-1], 0.0) and s.reversed_axis(two, two[::-1], 0.0)
    assert s.reversed_axis(np.ones((1, 1)), np.zeros((1, 1)), 0.0) is None and s.reversed_axis(np.ones((1, 1)), np.ones((1, 1)), 0.0) is None
    assert s.reversed_axis(three[:, :1], three[::-1, :1], 0.0) is None
    column = RNG.normal(size=(5, 1))
    assert said(s.reversed_axis(column, column[::-1], 0.0)) == (Reason.REVERSED, "equal after reversing axis 0 of the candidate")


def test_sign():
    assert said(s.sign_flipped(X, -X, 0.0)) == (Reason.SIGN_FLIPPED, "the candidate is the reference times -1") and s.sign_flipped(X, -X + 0.5, 0.25) is None


def permuted_channels(order, axis=1, shape=None):
    array = RNG.normal(size=shape or tuple(len(order) if k == axis else n for k, n in enumerate((2, 6, 7, 8))))
    return array, np.take(array, order, axis)


@pytest.mark.parametrize(("order", "words"), [
    ([2, 1, 0], "three channels reversed (RGB against BGR)"), ([1, 0, 2], "2 of 3 slices have moved"), ([1, 2, 0], "3 of 3 slices have moved"), ([0, 3, 1, 4, 2, 5], "a channel shuffle with 2 groups (or its inverse)"),
    ([0, 2, 4, 1, 3, 5], "a channel shuffle with 3 groups (or its inverse)"), ([1, 0, 2, 3, 4, 5], "2 of 6 slices have moved"), ([1, 0], "2 of 2 slices have moved"), ([2, 1, 0, 3], "2 of 4 slices have moved"),
])
def test_channels_in_another_order(order, words):
    array, other = permuted_channels(order)
    found = said(s.channels_permuted(array, other, 0.0, 1))
    # the array goes back by the inverse; of a shuffle that is the one with the other count of groups
    assert found[0] is Reason.CHANNELS_PERMUTED and found[1].startswith("equal after reordering axis 1 of the candidate: ")
    if "groups" in words:
        assert "a channel shuffle with" in found[1]
        assert {int(c) for c in found[1] if c.isdigit()} - {1} <= {2, 3}
    else:
        assert found[1].endswith(f": {words}")


def test_the_order_of_groups():
    assert s._known_order(np.array([0, 3, 1, 4, 2, 5])) == ": a channel shuffle with 2 groups (or its inverse)"
    assert s._known_order(np.array([0, 2, 4, 1, 3, 5])) == ": a channel shuffle with 3 groups (or its inverse)"
    assert s._known_order(np.array([2, 1, 0])) == ": three channels reversed (RGB against BGR)" and s._known_order(np.array([0, 2, 1])) == ": 2 of 3 slices have moved"
    assert s._known_order(np.array([0, 2, 1, 3])) == ": a channel shuffle with 2 groups (or its inverse)" and s._known_order(np.array([3, 2, 1, 0])) == ": 4 of 4 slices have moved"
    assert s._known_order(np.array([0, 2, 4, 1, 3])) == ": 4 of 5 slices have moved"


def test_the_axis_of_channels_comes_first_and_others_are_tried():
    array, other = permuted_channels([1, 0, 2], axis=2, shape=(2, 4, 3, 5))
    assert "axis 2" in s.channels_permuted(array, other, 0.0, 1).hint
    both = np.kron(np.arange(1.0, 4.0)[:, None], np.ones((1, 3))) + np.arange(3.0) * 10
    turned = both[[1, 0, 2]]
    assert "axis 0" in s.channels_permuted(both, turned, 0.0, 0).hint and "axis 0" in s.channels_permuted(both, turned, 0.0, 1).hint
    constant = np.array([[1.0, 2.0], [2.0, 1.0]])  # either axis explains it: the one of the channels is named
    assert "axis 1" in s.channels_permuted(constant, constant[::-1], 0.0, 1).hint and "axis 0" in s.channels_permuted(constant, constant[::-1], 0.0, 0).hint


def test_no_order_of_channels():
    assert s.channels_permuted(np.arange(4.0), np.arange(4.0)[::-1], 0.0, 0) is None and s.channels_permuted(X, X, 0.0, 1) is None
    assert s.channels_permuted(X, RNG.normal(size=X.shape), 0.0, 1) is None
    row = RNG.normal(size=(1, 5))  # slices of one element each are any permutation
    assert s.channels_permuted(row, row[:, ::-1], 0.0, 1) is None
    pair = RNG.normal(size=(2, 3))
    assert "axis 0" in s.channels_permuted(pair, pair[::-1], 0.0, 1).hint
    assert "axis 0" in s.channels_permuted(pair[..., None], pair[::-1, :, None], 0.0, 2).hint  # the axis of channels has one alone
    for count in (4, 300):
        equal = np.ones((count, 3))
        assert s.channels_permuted(equal, equal, 0.0, 0) is None
    near, other = permuted_channels([1, 0, 2])
    assert s.channels_permuted(near, other + 0.25, 0.25, 1) is not None or s.channels_permuted(near, other, 0.25, 1)


def test_the_same_values_elsewhere():
    assert said(s.permuted(np.array([1.0, 2.0]), np.array([2.0, 1.0]), 0.0)) == (Reason.PERMUTED, "the candidate holds the same values at other places")
    assert s.permuted(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[4.0, 2.0], [1.0, 3.0]]), 0.0)
    assert s.permuted(np.array([1.0]), np.array([1.0]), 0.0) is None and s.permuted(np.array([1.0, 2.0]), np.array([2.0, 2.0]), 0.0) is None


# -- patterns of value


@pytest.mark.parametrize(("size", "beyond", "hint"), [
    (100, 1, "only 1 of 100 elements is beyond the bound"), (99, 1, None), (100, 0, None), (100, 2, None), (20_000, 2, "only 2 of 20000 elements are beyond the bound"), (20_000, 3, None),
    (10_000, 1, "only 1 of 10000 elements is beyond the bound"), (19_999, 2, None),
])
def test_isolated(size, beyond, hint):
    assert said(s.isolated(measures(size=size, beyond=beyond))) == (None if hint is None else (Reason.ISOLATED, hint))


def test_a_share_that_is_left_unexplained():
    diff = np.array([10.0])
    assert s._explains(diff, np.array([1.0])) and not s._explains(diff, np.array([1.0000001])) and s.UNEXPLAINED_SHARE == 1e-2


@pytest.mark.parametrize("size", [15, 16])
def test_fits_need_sixteen_elements(size):
    a = np.arange(1.0, size + 1)
    offset, scale = s.constant_offset(a, a + 0.25), s.constant_scale(a, 1.5 * a)
    assert (said(offset), said(scale)) == ((None, None) if size < 16 else ((Reason.CONSTANT_OFFSET, "the candidate is the reference plus 0.25"), (Reason.CONSTANT_SCALE, "the candidate is the reference times 1.5")))
    below = np.concatenate([-a, a])
    found = s.negative_side(below, np.where(below < 0, 0.5 * below, below), 0.0)
    assert said(found) == (None if size < 16 else (Reason.NEGATIVE_SIDE, "only negative elements differ; there the candidate is the reference times 0.5"))
    one = s.one_sided(measures(positive=size))
    assert said(one) == (None if size < 16 else (Reason.ONE_SIDED, f"all {size} differences are positive"))
    two = np.stack([a, a * a])
    affine = s.channel_affine(two, two * np.array([[2.0], [3.0]]) + 1, 0)
    assert said(affine) == (None if size < 16 else (Reason.CHANNEL_AFFINE, "each channel is scaled and shifted on its own; the factors lie between 2 and 3"))


def test_what_is_no_offset_or_scale():
    assert s.constant_scale(np.zeros(20), np.ones(20)) is None and s.constant_offset(np.arange(20.0), np.arange(20.0) * 2) is None and s.constant_scale(np.arange(20.0), np.arange(20.0) + 9) is None


def test_noise_that_is_small_beside_the_values_is_no_scale():
    a = -np.arange(1.0, 21.0)
    b = a + 0.01 * np.random.default_rng(5).normal(size=20)
    assert s.constant_scale(a, b) is None and s.negative_side(np.append(a, 1.0), np.append(b, 1.0), 0.0) is None
    assert s.channel_affine(np.stack([a, a]), np.stack([b, b]), 0) is None


def test_the_negative_side_alone():
    a = np.concatenate([-np.arange(1.0, 21.0), np.zeros(3), np.arange(1.0, 5.0)])
    good = np.where(a < 0, 0.5 * a, a)
    assert s.negative_side(a, good, 0.0) and s.negative_side(-np.arange(1.0, 30.0), -np.arange(1.0, 30.0) / 2, 0.0) is None
    off = good.copy()
    off[-1] += 0.25
    assert s.negative_side(a, off, 0.25) and s.negative_side(a, off, 0.2499999) is None
    zero = good.copy()
    zero[20] = 1.0  # a zero is not negative: that it differs belongs to no slope
    assert s.negative_side(a, zero, 0.0) is None
    assert s.negative_side(a, np.where(a < 0, 10 * RNG.normal(size=a.size), a), 0.0) is None


def test_both_sides_of_a_difference():
    assert said(s.one_sided(measures(negative=16))) == (Reason.ONE_SIDED, "all 16 differences are negative") and s.one_sided(measures(positive=16, negative=1)) is None
    assert s.one_sided(measures()) is None


def test_straight_lines_by_channel():
    a = RNG.normal(size=(3, 20))
    b = a * np.array([[1.0], [2.0], [0.5]]) + np.array([[0.0], [1.0], [2.0]])
    assert said(s.channel_affine(a, b, 0)) == (Reason.CHANNEL_AFFINE, "each channel is scaled and shifted on its own; the factors lie between 0.5 and 2")
    assert s.channel_affine(a, b, None) is None and s.channel_affine(a, b, 2) is None and s.channel_affine(a[:1], b[:1], 0) is None and s.channel_affine(a, RNG.normal(size=a.shape), 0) is None
    assert s.channel_affine(a[:2], b[:2], 0)
    flat = np.vstack([np.full(20, 4.0), a[0]])  # a constant channel has no slope of its own
    assert said(s.channel_affine(flat, flat * 3 - 1, 0)) == (Reason.CHANNEL_AFFINE, "each channel is scaled and shifted on its own; the factors lie between 1 and 3")
    small = a * 0.01
    assert s.channel_affine(small, small * np.array([[1.0], [2.0], [0.5]]), 0).hint.endswith("between 0.5 and 2")


def border(height, width, ring, depth=2):
    a = np.zeros((depth, height, width))
    b = a + 1
    b[:, ring:height - ring, ring:width - ring] = 0
    return a, b


@pytest.mark.parametrize(("height", "width", "ring", "within"), [
    (5, 9, 1, 1), (9, 5, 1, 1), (4, 9, 1, None), (9, 4, 1, None), (9, 9, 2, 2), (8, 9, 2, None), (9, 8, 2, None), (12, 12, 3, None), (6, 6, 1, 1), (9, 9, 1, 1), (13, 13, 3, None), (10, 10, 2, 2),
])
def test_differences_at_the_border(height, width, ring, within):
    found = said(s.border_only(*border(height, width, ring), 0.5))
    assert found == (None if within is None else (Reason.BORDER_ONLY, f"every difference lies within {within} of the border of the last two axes"))


def test_a_border_needs_three_axes_and_a_bound_that_is_broken():
    a, b = border(9, 9, 1)
    assert s.border_only(a[0], b[0], 0.5) is None
    assert s.border_only(a + 9, b + 9, 0.5) and s.border_only(a[None, None], b[None, None], 0.5)
    b[0, 4, 4] = 0.5
    assert s.border_only(a, b, 0.5) and s.border_only(a, b, 0.4999999) is None
    assert s.border_only(np.zeros((1, 2, 9, 9)), np.stack([border(9, 9, 1)[1]]), 0.5)


@pytest.mark.parametrize(("low", "high", "cut"), [(-2.0, 2.0, 6), (-10.0, 2.0, 3), (-2.0, 10.0, 3), (-10.0, 4.0, None), (-4.0, 4.0, 2), (-10.0, 3.0, 2)])
def test_saturated(low, high, cut):
    """Whole numbers from -5 to 5; a cut of one element is no pattern."""
    a = np.arange(-5.0, 6.0)
    found = said(s.saturated(a, np.clip(a, low, high), 0.0))
    shown = [max(low, -5.0), min(high, 5.0)]
    assert found == (None if cut is None else (Reason.SATURATED, f"the candidate is the reference cut off to [{shown[0]:.6g}, {shown[1]:.6g}] in {cut} elements"))


def test_a_cut_by_less_than_the_bound_is_none():
    a = np.array([0.0, 1.0, 2.0, 3.0, 3.5, 3.5, -1.0])
    b = np.clip(a, -1.0, 3.0)
    assert s.saturated(a, b, 0.5) is None and s.saturated(a, b, 0.4999999)
    c = np.array([0.0, -1.0, -2.0, -3.0, -3.5, -3.5, 1.0])
    assert s.saturated(c, np.clip(c, -3.0, 1.0), 0.5) is None and s.saturated(c, np.clip(c, -3.0, 1.0), 0.4999999)
    assert s.saturated(a, np.full(7, 2.0), 0.0) is None and s.saturated(a, RNG.normal(size=7), 0.0) is None


def test_shorter_formats():
    ref = RNG.normal(size=16).astype(np.float32)
    assert said(s.low_precision(ref, ref.astype(np.float16).astype(np.float32))) == (Reason.LOW_PRECISION, "every value of the candidate is a float16 number")
    short = (ref.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert s.low_precision(ref, short).hint == "every value of the candidate is a bfloat16 number"
    assert s.low_precision(ref[:15], short[:15]) is None and s.low_precision(ref, ref) is None and s.low_precision(short, short) is None and s.low_precision(ref.astype(np.float64), short) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("lacking", "zeros", "named"), [(8, 0, True), (7, 0, False), (2, 14, True), (2, 10, False), (0, 16, False), (1, 14, True)])
def test_half_of_what_is_not_zero_must_be_lacking_in_the_shorter_format(lacking, zeros, named):
    """Sixteen elements: `lacking` no float16 holds (some are too large for it), `zeros`, and the rest are ones."""
    ref = np.ones(16, np.float32)
    ref[:lacking] = [1e30 if k % 2 else 1.0001 for k in range(lacking)]
    ref[16 - zeros:] = 0
    assert (s.low_precision(ref, np.ones(16, np.float32)) is not None) is named


def test_every_bit_below_a_shorter_format_counts():
    assert s._bits_clear(np.uint32([0, 1, 2, 0x8000, 0x10000]).view(np.float32), 16).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(("ref", "cand", "reason"), [
    ((4, 3), (2, 3), Reason.SHORTER), ((2, 3), (4, 3), Reason.LONGER), ((4, 3), (1, 3), Reason.BROADCAST), ((1, 3), (4, 3), Reason.BROADCAST), ((4, 3), (4, 2), Reason.SHAPE),
    ((4,), (3,), Reason.SHORTER), ((), (4,), Reason.BROADCAST), ((4, 3), (3,), Reason.BROADCAST), ((4, 3), (4,), Reason.SHAPE), ((2, 3), (2, 1), Reason.BROADCAST),
])
def test_kinds_of_shapes(ref, cand, reason):
    assert s.shape_reason(ref, cand) is reason

"""The statistics on arrays whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alignment.curves import (
    CANNOT_TELL, DIFFERENT, EQUIVALENT, Estimate, Hypothesis, block_error, block_length, block_variance, compare_means, first_leave, judge, local_level, noise_correlation,
    runs_needed,
)


def test_the_block_bootstrap_is_what_resampling_gives() -> None:
    rng = np.random.default_rng(0)
    values = np.convolve(rng.standard_normal(420), np.ones(5), "valid")[:400]
    length = 10
    start = rng.integers(0, 400, (20000, 40))
    means = values[(start[:, :, None] + np.arange(length)) % 400].reshape(20000, -1).mean(1)
    # The bootstrap's own spread; its Monte Carlo error is 1 / sqrt(2 * 20000).
    assert abs(math.sqrt(block_variance(values, length)) / means.std() - 1) < 4 / math.sqrt(2 * 20000)
    # Few points: the bootstrap times the factor for estimating the mean from 15 blocks.
    few = values[:150]
    assert block_error(few, length) == (math.sqrt(block_variance(few, length) * 15 / 14), 14)


@pytest.mark.parametrize("weight", [-0.5, 0.5])
def test_the_ends_of_the_blocks_are_corrected(weight: float) -> None:
    # Noise x[t] + weight * x[t - 1]: the variance of the mean is (1 + weight)^2 / n. Plain blocks miss a part at either end, in either direction.
    noise = np.random.default_rng(4).standard_normal((400, 1001))
    series, truth = noise[:, 1:] + weight * noise[:, :-1], (1 + weight) ** 2 / 1000
    plain = np.mean([block_variance(row, block_length(1000)) for row in series]) / truth
    found = np.mean([block_error(row)[0] ** 2 for row in series]) / truth
    assert abs(found - 1) < 0.06 < abs(plain - 1)


def test_block_error_sees_autocorrelation() -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(5000)
    slow = np.convolve(noise, np.ones(20) / 20, "valid")
    naive = slow.std() / math.sqrt(len(slow))
    assert block_error(slow, 100)[0] > 3 * naive


@pytest.mark.parametrize("count", [4, 5, 20, 475, 1902, 1_000_000])
def test_block_length_leaves_blocks(count: int) -> None:
    assert 2 <= block_length(count) <= count / 2 + 1
    assert math.isnan(block_error(np.zeros(3))[0])


def test_several_runs_use_students_t() -> None:
    rng = np.random.default_rng(2)
    a, b = 1 + 0.1 * rng.standard_normal((4, 50)), 1.1 + 0.1 * rng.standard_normal((4, 50))
    estimate = compare_means(a, b, 0.01, relative=False)
    reference = stats.ttest_ind(b.mean(1), a.mean(1))
    assert estimate.p_zero() == pytest.approx(reference.pvalue, rel=1e-9)
    assert estimate.freedom == 6
    low, high = estimate.interval()
    other = reference.confidence_interval(0.95)
    assert (low, high) == pytest.approx((other.low, other.high), rel=1e-9)


def test_unequal_numbers_of_runs_use_welch() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((3, 30)), 2 * rng.standard_normal((6, 30))
    reference = stats.ttest_ind(b.mean(1), a.mean(1), equal_var=False)
    assert compare_means(a, b, 0.01, relative=False).p_zero() == pytest.approx(reference.pvalue, rel=1e-9)


def test_one_run_a_side_carries_the_bound_on_seeds() -> None:
    rng = np.random.default_rng(4)
    a, b = 1 + 0.05 * rng.standard_normal((1, 2000)), 1 + 0.05 * rng.standard_normal((1, 2000))
    wide = compare_means(a, b, 0.01)
    assert wide.error > math.sqrt(2) * 0.01 * 0.99 and wide.p_equivalence(0.01) > 0.05
    assert compare_means(a, b, 0.0).error < 0.003


def test_runs_in_lockstep_do_not() -> None:
    rng = np.random.default_rng(5)
    a = 1 + 0.1 * rng.standard_normal((1, 2000))
    b = a + 0.001 * rng.standard_normal((1, 2000))
    pairing = noise_correlation(a[0], b[0])
    assert pairing > 0.99
    assert compare_means(a, b, 0.01, pairing=pairing).p_equivalence(0.01) < 1e-6


def test_curves_of_one_shape_are_not_taken_for_paired() -> None:
    rng = np.random.default_rng(6)
    shape = 2 * np.exp(-np.linspace(0, 8, 2000)) + 0.3
    a, b = (shape * (1 + 0.01 * rng.standard_normal(2000)) for _ in range(2))
    assert np.corrcoef(a, b)[0, 1] > 0.99
    assert abs(noise_correlation(a, b)) < 0.2
    # Without noise nothing can be told.
    assert noise_correlation(np.ones(100), np.ones(100)) == 0.0
    assert noise_correlation(a[:20], a[:20]) == 0.0


def test_less_noise_does_not_move_the_difference() -> None:
    # A mean of logarithms would differ by half the variance here, 2 %.
    rng = np.random.default_rng(7)
    a = 1 + 0.2 * rng.standard_normal((1, 40000))
    b = 1 + 0.001 * rng.standard_normal((1, 40000))
    level = local_level(a, b)
    assert abs(compare_means(a / level, b / level, 0.0).difference) < 0.004


def estimate(difference: float, error: float) -> Estimate:
    return Estimate(difference, error, 1e9, error / math.sqrt(2), "known")


def test_judge() -> None:
    def one(difference: float, error: float, deciding: bool = True) -> Hypothesis:
        return Hypothesis("h", estimate(difference, error), 0.01, 1.0, deciding)

    assert judge([one(0.0, 0.001)])[0] == EQUIVALENT
    assert judge([one(0.02, 0.001)])[0] == DIFFERENT
    assert judge([one(0.0, 0.02)])[0] == CANNOT_TELL
    # A difference that is real and smaller than the margin is not "different".
    assert judge([one(0.0095, 0.0005)])[0] == CANNOT_TELL
    assert judge([one(0.0, 0.001), one(0.0, 0.02)])[0] == CANNOT_TELL
    assert judge([one(0.0, 0.001), one(0.0, 0.02, deciding=False)])[0] == EQUIVALENT
    assert judge([one(0.0, 0.001), one(0.05, 0.001, deciding=False)])[0] == DIFFERENT
    # Two questions share alpha: 2.1 standard errors are enough for one alone and not for one of two.
    assert judge([one(0.021, 0.01)])[0] == DIFFERENT
    assert judge([one(0.021, 0.01), one(0.0, 0.001)])[0] == CANNOT_TELL
    assert judge([])[0] == CANNOT_TELL


def test_an_error_of_zero_decides_by_the_difference() -> None:
    assert estimate(0.0, 0.0).p_equivalence(0.01) == 0.0 and estimate(0.0, 0.0).p_zero() == 1.0
    assert estimate(0.01, 0.0).p_equivalence(0.01) == 1.0 and estimate(0.01, 0.0).p_zero() == 0.0


def test_runs_needed() -> None:
    few, verdict = runs_needed(Estimate(0.0, 0.005, 4, 0.005, ""), 0.01, 1.0)
    assert verdict == EQUIVALENT and 2 < few < 12
    many, verdict = runs_needed(Estimate(0.03, 0.02, 4, 0.02, ""), 0.01, 1.0)
    assert verdict == DIFFERENT and many > few / 2
    assert runs_needed(Estimate(0.01, 0.01, 4, 0.01, ""), 0.01, 1.0) == (None, CANNOT_TELL)


def test_first_leave_finds_the_place() -> None:
    rng = np.random.default_rng(8)
    x = np.arange(0, 6400, 10.0)
    a, b = (1 + 0.05 * rng.standard_normal((3, 640)) for _ in range(2))
    assert first_leave(a, b, x, 0.01, 0.01)["first"] is None
    b[:, 400:] += 0.3
    first = first_leave(a, b, x, 0.01, 0.01)["first"]
    assert first is not None and abs(first[0] - 4000) <= 100

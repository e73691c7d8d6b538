"""Statistics of two bundles of training curves: is their difference within the margin, beyond it, or not decided?

Everything here works on arrays, knows no file and no name, and is what ``python -m alignment.simulate`` checks. ``docs/statistics.md`` explains
the choices; in short:

* A curve is reduced to the mean, over a window of steps, of its value divided by the local level of all curves. This mean is linear in the
  values, so more or less noise on one side does not move it, and its difference between the sides is the relative difference.
* With several runs a side, the spread between runs is measured, and Student's t is used on one number a run: noise inside a run needs no model.
* With one run a side, the noise inside the runs comes from a circular block bootstrap of the difference at two block lengths (its exact variance, no resampling),
  and the spread between seeds, which one run cannot show, is a stated bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

EQUIVALENT, DIFFERENT, CANNOT_TELL = "equivalent", "different", "cannot tell"
#: The one-sided tests use this share of alpha. Noise that is not normal and an estimated level cost a few tenths of a percent, which it covers.
EQUIVALENCE_SHARE = 0.8


@dataclass(frozen=True)
class Policy:
    """What "equal" means and how sure one must be. Relative margins are fractions of the reference, metric margins are in mAP on a 0-1 scale.

    `seed_sd_loss` and `seed_sd_metric` bound the standard deviation between seeds and are used only where it cannot be measured (one run a
    side). `lockstep` is the correlation of step-to-step noise from which two runs count as one trajectory computed twice.
    """

    margin_loss: float = 0.01
    margin_metric: float = 0.003
    alpha: float = 0.05
    seed_sd_loss: float = 0.01
    seed_sd_metric: float = 0.005
    min_coverage: float = 0.95
    lockstep: float = 0.99


@dataclass(frozen=True)
class Estimate:
    """A difference (candidate minus reference) with its standard error and degrees of freedom. `run_sd` is the spread of one run's number,
    `method` names how the error was found, `level` is the reference's value in the unit of the curve."""

    difference: float
    error: float
    freedom: float
    run_sd: float
    method: str
    level: float = 1.0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        half = quantile(0.5 + confidence / 2, self.freedom) * self.error
        return self.difference - half, self.difference + half

    def p_zero(self) -> float:
        """Two-sided p-value of "no difference". An error of zero (identical noise) decides by the difference alone."""
        from scipy import special  # here: it takes a third of the time of starting a command

        if self.error == 0:
            return 1.0 if self.difference == 0 else 0.0
        return float(2 * special.stdtr(min(self.freedom, 1e9), -abs(self.difference) / self.error))

    def p_equivalence(self, margin: float) -> float:
        """The larger p-value of the two one-sided tests against -margin and +margin."""
        from scipy import special  # here: it takes a third of the time of starting a command

        if self.error == 0:
            return 0.0 if abs(self.difference) < margin else 1.0
        return float(special.stdtr(min(self.freedom, 1e9), (abs(self.difference) - margin) / self.error))


def quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t; the normal one for a very large `freedom`."""
    from scipy import special  # here: it takes a third of the time of starting a command

    return float(special.stdtrit(min(freedom, 1e9), probability))


#: Points from which the bootstrap's variance is corrected for the ends of its blocks.
CORRECTED = 200


def block_length(count: int) -> int:
    """Length of the blocks of the bootstrap for `count` points: the cube root that theory asks for, at least 2. The 1,902 lines of the real log get 13, an epoch."""
    return max(2, round(count**0.34))


def block_variance(values: np.ndarray, length: int) -> float:
    """Variance of the mean of `values` (n,) under a circular block bootstrap (Politis and Romano 1992) with infinitely many resamples, in closed form."""
    count = len(values)
    centred = values - values.mean()
    cumulative = np.cumsum(np.r_[0.0, centred, centred[: length - 1]])
    sums = cumulative[length:] - cumulative[:-length]
    return float(np.mean(sums**2)) / length / count


def block_error(values: np.ndarray, length: int | None = None) -> tuple[float, float]:
    """Standard error of the mean of `values` (n,) under autocorrelation, and its degrees of freedom.

    A block cuts the correlation at its two ends, which makes the bootstrap's variance too large where noise is anti-correlated (an epoch draws its images
    without replacement) and too small where it is correlated, by about 1 / length. From `CORRECTED` points on, two lengths take that out: twice the variance
    of blocks of double length minus that of single length (Politis and Romano 1995). The centring on the values' own mean takes 3 length / n of it, which is
    put back; the degrees of freedom are those of this weighting of the autocorrelations. Fewer points could not pay for the noise of the correction, and
    get the plain bootstrap with the small-sample factor of independent blocks. NaN for fewer than four points.
    """
    count = len(values)
    if count < 4:
        return math.nan, 1.0
    length = length or block_length(count)
    if count < CORRECTED:
        length = min(length, count // 2)
        blocks = count / length
        return math.sqrt(block_variance(values, length) * blocks / (blocks - 1)), blocks - 1
    length = min(length, count // 4)
    short, long = block_variance(values, length), block_variance(values, 2 * length)
    # The difference of two noisy numbers: never below half of the plain bootstrap's.
    variance = max(2 * long - short, long / 2) / (1 - 3 * length / count)
    return math.sqrt(variance), 0.75 * count / length


def local_level(a: np.ndarray, b: np.ndarray, pieces: int = 64) -> np.ndarray:
    """The level (n,) of all curves of `a` (runs, n) and `b` (runs, n): the mean absolute value of `pieces` stretches, both sides counting alike."""
    count = a.shape[1]
    edges = np.unique(np.linspace(0, count, min(pieces, max(1, count // 8)) + 1).astype(int))
    size = np.diff(edges)
    both = (np.abs(a).mean(0) + np.abs(b).mean(0)) / 2
    return np.repeat(np.add.reduceat(both, edges[:-1]) / size, size)


def noise_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the step-to-step noise of two curves (n,), or 0 when there are too few points or no noise to tell.

    Third differences over the last two thirds leave neither trend nor level, so two curves of one shape do not look paired.
    """
    start = len(a) // 3
    if len(a) - start < 30:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        x, y = np.diff(a[start:], 3), np.diff(b[start:], 3)
    usable = np.isfinite(x) & np.isfinite(y)
    x, y = x[usable], y[usable]
    if len(x) < 27 or x.std() < 1e-9 * max(abs(a[start]), 1e-300) or y.std() < 1e-9 * max(abs(b[start]), 1e-300):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def compare_means(
    a: np.ndarray, b: np.ndarray, seed_sd: float, *, pairing: float = 0.0, relative: bool = True,
    noise: tuple[float, float] | None = None, lockstep: float = 0.99,
) -> Estimate:
    """The difference of two bundles of curves over one window.

    `a` (runs, n) and `b` (runs, n) are normalised values at common steps, `seed_sd` the bound on the spread between seeds in their unit,
    `pairing` the noise correlation of the pairs when the sides are paired in order, else 0. With `relative` the difference is divided by the
    reference. `noise`, as (standard error, degrees of freedom), replaces what is found inside the window for one run a side. Lines with NaN must have been removed.
    """
    left, right = a.mean(1), b.mean(1)
    level = float(left.mean())
    scale = abs(level) if relative and level else 1.0
    difference = float(right.mean() - level) / scale
    runs_a, runs_b = len(left), len(right)
    paired = pairing >= lockstep and runs_a == runs_b
    if paired and runs_a > 1:
        deltas = (right - left) / scale
        spread = float(deltas.std(ddof=1))
        return Estimate(difference, spread / math.sqrt(runs_a), runs_a - 1, spread / math.sqrt(2), "paired runs, Student's t", level)
    if runs_a + runs_b <= 3:
        # Between-seed spread is not measured: inside one run it is invisible, and from two runs it has one degree of freedom.
        inside, freedom = noise if noise is not None else block_error(b.mean(0) - a.mean(0))
        inside = 0.0 if not math.isfinite(inside) else inside / scale
        # Runs in lockstep are not two draws: what is left of the seeds' spread is what their noise does not share.
        unshared = max(0.0, 1 - pairing) if paired else 1.0
        between = seed_sd * math.sqrt((1 / runs_a + 1 / runs_b) * unshared) / scale
        total = math.hypot(inside, between)
        freedom = freedom * (total / inside) ** 4 if inside > 1e-12 * total and total else 1e9
        method = "one run a side in lockstep, block bootstrap" if paired else "one run a side, block bootstrap and the stated bound on seeds"
        return Estimate(difference, total, freedom, total / math.sqrt(1 / runs_a + 1 / runs_b), method, level)
    return _between_runs(left, right, difference, scale, level)


def _between_runs(left: np.ndarray, right: np.ndarray, difference: float, scale: float, level: float) -> Estimate:
    runs_a, runs_b = len(left), len(right)
    square_a = float(left.var(ddof=1)) if runs_a > 1 else 0.0
    square_b = float(right.var(ddof=1)) if runs_b > 1 else 0.0
    if runs_a > 1 and runs_b > 1 and runs_a != runs_b:
        part_a, part_b = square_a / runs_a, square_b / runs_b
        error = math.sqrt(part_a + part_b)
        freedom = (part_a + part_b) ** 2 / (part_a**2 / (runs_a - 1) + part_b**2 / (runs_b - 1)) if error else runs_a + runs_b - 2
        return Estimate(difference, error / scale, freedom, error / scale / math.sqrt(1 / runs_a + 1 / runs_b), "between runs, Welch's t", level)
    # With equally many runs the pooled t is exact for equal spreads and keeps its level when they are not; with a lone run it is all there is.
    freedom = runs_a + runs_b - 2
    pooled = (square_a * (runs_a - 1) + square_b * (runs_b - 1)) / freedom
    sd = math.sqrt(pooled) / scale
    return Estimate(difference, sd * math.sqrt(1 / runs_a + 1 / runs_b), freedom, sd, "between runs, Student's t", level)


@dataclass(frozen=True)
class Hypothesis:
    """One question: is this difference within `margin`? `share` is the part of alpha it may use to say "different". `deciding` ones must all be
    equivalent for the whole to be; the others can only find differences."""

    name: str
    estimate: Estimate
    margin: float
    share: float
    deciding: bool
    outcome: str = CANNOT_TELL
    p_difference: float = 1.0
    p_equivalence: float = 1.0


def judge(hypotheses: list[Hypothesis], alpha: float = 0.05) -> tuple[str, list[Hypothesis]]:
    """The verdict over a family of hypotheses, and each with its outcome.

    "Different" needs a p-value below the hypothesis' share of alpha (shares are scaled to add up to one: weighted Bonferroni) and an estimate
    beyond the margin. "Equivalent" needs every deciding hypothesis to pass its two one-sided tests, which needs no correction for their
    number (intersection-union test). Anything else is "cannot tell".
    """
    if not hypotheses:
        return CANNOT_TELL, []
    total = sum(h.share for h in hypotheses)
    judged = []
    for h in hypotheses:
        p_zero, p_equal = h.estimate.p_zero(), h.estimate.p_equivalence(h.margin)
        if p_equal < EQUIVALENCE_SHARE * alpha:
            outcome = EQUIVALENT
        elif p_zero < alpha * h.share / total and abs(h.estimate.difference) >= h.margin:
            outcome = DIFFERENT
        else:
            outcome = CANNOT_TELL
        judged.append(replace(h, outcome=outcome, p_difference=p_zero, p_equivalence=p_equal, share=h.share / total))
    deciding = [h for h in judged if h.deciding]
    if any(h.outcome == DIFFERENT for h in judged):
        return DIFFERENT, judged
    if deciding and all(h.outcome == EQUIVALENT for h in deciding):
        return EQUIVALENT, judged
    return CANNOT_TELL, judged


def runs_needed(estimate: Estimate, margin: float, share: float, alpha: float = 0.05, power: float = 0.8, most: int = 200) -> tuple[int | None, str]:
    """How many runs a side would decide this question four times in five, if the difference and the spread are what they seem.

    Returns (runs a side, the verdict they would give); None when `most` would not do, because the difference is close to the margin.
    """
    from scipy import special  # here: it takes a third of the time of starting a command

    size, sd = abs(estimate.difference), max(estimate.run_sd, 1e-12)
    runs = np.arange(2, most + 1)
    freedom, error = 2.0 * runs - 2, sd * np.sqrt(2 / runs)
    upper = lambda probability: special.stdtrit(freedom, probability)  # noqa: E731
    aim = np.where(size > error / 2, power, (1 + power) / 2)
    equivalent = (margin - size) / error > upper(1 - EQUIVALENCE_SHARE * alpha) + upper(aim)
    different = ((size - margin) / error > upper(power)) & (size / error > upper(1 - alpha * share / 2) + upper(power))
    enough = np.flatnonzero(equivalent | different)
    if not len(enough):
        return None, CANNOT_TELL
    return int(runs[enough[0]]), EQUIVALENT if equivalent[enough[0]] else DIFFERENT


def first_leave(a: np.ndarray, b: np.ndarray, x: np.ndarray, margin: float, seed_sd: float, *, pieces: int = 64, alpha: float = 0.05) -> dict:
    """Where the candidate's curves first leave the band of the seeds, for a picture and a hint; the verdict does not rest on it.

    The curves (runs, n) are normalised. The band is `margin` plus what the mean of a stretch may differ by chance, at a level that holds for
    all stretches together. Returns the stretches' positions, differences and half widths, and `first` as (from, to) or None.
    """
    count = a.shape[1]
    edges = np.unique(np.linspace(0, count, min(pieces, max(1, count // 8)) + 1).astype(int))
    size = np.diff(edges)
    mean_a, mean_b = (np.add.reduceat(side, edges[:-1], axis=1) / size for side in (a, b))
    difference = mean_b.mean(0) - mean_a.mean(0)
    share = 1 / len(a) + 1 / len(b)
    if len(a) + len(b) > 3:
        spread = (mean_a.var(0) * len(a) + mean_b.var(0) * len(b)) / (len(a) + len(b) - 2)
        error = math.sqrt(float(spread.mean()) * share)
        freedom = (len(a) + len(b) - 2) * min(len(size), 16)
    else:
        delta = b.mean(0) - a.mean(0)
        centred = delta - np.repeat(difference, size)
        inside = np.median(np.sqrt(np.add.reduceat(centred**2, edges[:-1]) / np.maximum(size - 1, 1) / size))
        error, freedom = math.hypot(float(inside), seed_sd * math.sqrt(share)), 1e9
    half = margin + quantile(1 - alpha / 2 / len(size), freedom) * error
    outside = np.flatnonzero(np.abs(difference) > half)
    first = (float(x[edges[outside[0]]]), float(x[edges[outside[0] + 1] - 1])) if len(outside) else None
    return {
        "positions": x[(edges[:-1] + edges[1:] - 1) // 2], "difference": difference, "half_width": half, "first": first, "outside": len(outside),
        "pieces": len(size),
    }

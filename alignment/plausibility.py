"""Does a log look measured? Warnings, never accusations: each says what was seen and how often.

Two kinds. A *derived* curve (an exact shift, scale or smoothed copy of the other side's, or one without noise) measured nothing, so the comparison
may not call it equivalent. Everything else is shown and decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.curve_align import Aligned
from alignment.curve_verdict import rounding
from alignment.log_reader import Run
from jt_nanodet.errors import UserError

#: Chance below which a coincidence is reported.
UNLIKELY = 1e-6
_LONGEST = 20_000


@dataclass(frozen=True)
class Finding:
    """`code` is one of exact_shift, exact_scale, step_shift, smoothed_copy, no_noise, equal_digits, lr_config, time_backwards, summary_unfounded.
    `derived` ones stop the verdict "equivalent"."""

    code: str
    name: str
    text: str
    derived: bool = False


def inspect_pair(one: Aligned, row_a: int = 0, row_b: int = 0) -> list[Finding]:
    """Compare curve `row_a` of the reference with curve `row_b` of the candidate, both at common positions."""
    name = one.pair.ref
    rows_a, rows_b = one.head or (one.a, one.b)
    a, b = rows_a[row_a][:_LONGEST], rows_b[row_b][:_LONGEST]
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = a[usable], b[usable]
    if len(a) < 20 or one.pair.kind == "lr" or one.pair.how == "sum" or one.how != "same positions" or not a.std() or not b.std():
        return []
    unit = max(_unit(a), _unit(b))
    equal = np.abs(a - b) < 0.01 * unit
    if equal.mean() > 0.5:
        return _digits(name, a, b, equal, unit)
    found = _affine(name, a, b, unit) or _moved(name, a, b, unit) or _smoothed(name, a, b) or _no_noise(name, a, b, unit)
    return found + _digits(name, a, b, equal, unit)


def _unit(values: np.ndarray) -> float:
    """The last decimal place that `values` were written with."""
    sample = values[np.isfinite(values)][:500]
    for decimals in range(0, 13):
        if np.abs(np.round(sample, decimals) - sample).max(initial=0) < 1e-13 * max(1.0, np.abs(sample).max(initial=0)):
            return 10.0**-decimals
    return 1e-12


def _affine(name: str, a: np.ndarray, b: np.ndarray, unit: float) -> list[Finding]:
    """An exact shift or scale leaves a remainder no larger than rounding, where noise would leave far more."""
    step = np.abs(np.diff(a)).mean()
    # Where one step is not far above the rounding, everything fits everything.
    if step < 20 * unit:
        return []
    shift = np.median(b - a)
    if np.abs(b - a - shift).max() <= 1.5 * unit:
        return [Finding("exact_shift", name, f"{name} of the candidate is the reference's plus {shift:.6g} at all {len(a)} positions", True)]
    scale = float(a @ b / (a @ a))
    if np.abs(b - scale * a).max() <= unit * (1.5 + 0.5 * abs(scale)):
        return [Finding("exact_scale", name, f"{name} of the candidate is {scale:.6g} times the reference's at all {len(a)} positions", True)]
    slope, offset = np.polyfit(a, b, 1)
    if np.abs(b - slope * a - offset).max() <= unit * (1.5 + 0.5 * abs(slope)):
        return [Finding("exact_scale", name, f"{name} of the candidate is {slope:.6g} times the reference's plus {offset:.6g} at all positions", True)]
    return []


def _moved(name: str, a: np.ndarray, b: np.ndarray, unit: float) -> list[Finding]:
    """The same numbers some lines earlier or later."""
    for lag in [k for n in range(1, min(41, len(a) // 3)) for k in (n, -n)]:
        x, y = (a[:-lag], b[lag:]) if lag > 0 else (a[-lag:], b[:lag])
        if (np.abs(x - y) < 0.01 * unit).mean() > 0.95:
            return [Finding("step_shift", name, f"{name} of the candidate is the reference's, {abs(lag)} lines {'later' if lag > 0 else 'earlier'}", True)]
    return []


def _smoothed(name: str, a: np.ndarray, b: np.ndarray) -> list[Finding]:
    """One side's step-to-step noise is a moving or exponential average of the other's."""
    for source, copy, who in ((a, b, "candidate"), (b, a, "reference")):
        rough_source, rough_copy = np.diff(source).std(), np.diff(copy).std()
        if rough_copy > 0.8 * rough_source:
            continue
        best, how = 0.0, ""
        for width in (2, 3, 4, 5, 7, 9, 10, 11, 15, 20, 21, 25, 31, 50, 51, 100, 101):
            if len(source) < 4 * width:
                break
            mean = np.convolve(source, np.ones(width) / width, "valid")
            for start in {0, (width - 1) // 2, width // 2, width - 1}:
                value = _likeness(mean, copy[start:start + len(mean)])
                if value > best:
                    best, how = value, f"a moving average of {width}"
        for weight in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999):
            value = _likeness(_exponential(source, weight), copy)
            if value > best:
                best, how = value, f"an exponential average of weight {weight:g}"
        if best > 0.98:
            return [Finding("smoothed_copy", name, f"{name} of the {who} follows {how} of the other side's (correlation of the noise {best:.4f})", True)]
    return []


def _exponential(x: np.ndarray, weight: float) -> np.ndarray:
    """Exponential average, by convolution with a kernel long enough for its tail not to matter."""
    length = min(len(x), int(math.log(1e-4) / math.log(weight)) + 2)
    return np.convolve(x - x[0], (1 - weight) * weight ** np.arange(length))[: len(x)] + x[0]


def _likeness(x: np.ndarray, y: np.ndarray) -> float:
    count = min(len(x), len(y))
    skip = count // 4
    dx, dy = np.diff(x[skip:count]), np.diff(y[skip:count])
    return float(np.corrcoef(dx, dy)[0, 1]) if len(dx) > 10 and dx.std() > 0 and dy.std() > 0 else 0.0


def _no_noise(name: str, a: np.ndarray, b: np.ndarray, unit: float) -> list[Finding]:
    """A curve whose bends are a hundredth of the other's, or no more than rounding where the other's are far above it, was drawn and not measured."""
    bend_a, bend_b = (np.median(np.abs(np.diff(x, 2))) / np.abs(x).mean() for x in (a, b))
    for small, large, who in ((bend_b, bend_a, "candidate"), (bend_a, bend_b, "reference")):
        if small < 0.01 * large and large > 20 * unit / np.abs(a).mean():
            return [Finding("no_noise", name, f"{name} of the {who} has {small / large:.2%} of the other side's variation from line to line", True)]
    return []


def _digits(name: str, a: np.ndarray, b: np.ndarray, equal: np.ndarray, unit: float) -> list[Finding]:
    """More values equal to the last digit than independent noise would give."""
    # How often two measured curves meet depends on how far apart they lie elsewhere, which is little where both saw the same images.
    from scipy import special  # here: it takes a third of the time of starting a command

    apart = b[~equal] - a[~equal]
    noise = np.median(np.abs(apart - np.median(apart))) / 0.6745 / math.sqrt(2) if len(apart) > len(a) / 2 else np.diff(a).std() / math.sqrt(2)
    if noise < 2 * unit:
        return []
    chance = unit / (2 * math.sqrt(math.pi) * noise)
    count = int(equal.sum())
    if count < 5 or special.bdtrc(count - 1, len(a), min(1.0, chance)) > UNLIKELY:
        return []
    return [Finding("equal_digits", name, f"{count} of {len(a)} values of {name} are equal to the last digit; independent noise would give about {len(a) * chance:.1f}")]


def inspect_run(run: Run, config: Path | None = None) -> list[Finding]:
    """Findings about one log by itself; with `config` its learning rates are checked against the schedule in it."""
    found = []
    if run.backwards:
        line, before, now = run.backwards[0]
        found.append(Finding("time_backwards", run.path, f"in {run.path} the time runs backwards {len(run.backwards)} times, first on line {line}: {before} then {now}"))
    found += _summaries(run)
    if config is not None:
        found += _learning_rates(run, config)
    return found


def _summaries(run: Run) -> list[Finding]:
    """A quoted result must be one of the results, as far as it is written out, in percent or not."""
    found = []
    for name, value, line in run.summaries:
        candidates = [s for s in run.series.values() if s.name.lower() == name.lower()]
        if not candidates:
            found.append(Finding("summary_unfounded", name, f"line {line} of {run.path} quotes {name} {value:g}, and no line gives {name}"))
            continue
        unit = _unit(np.array([value]))
        values = np.concatenate([s.value for s in candidates])
        if not any(np.any(np.abs(values * scale - value) <= 0.51 * unit + 1e-9) for scale in (1, 100, 0.01)):
            found.append(Finding("summary_unfounded", name, f"line {line} of {run.path} quotes {name} {value:g}, which no line contains"))
    return found


def _learning_rates(run: Run, config: Path) -> list[Finding]:
    series = run.series.get("train/lr") or next((s for s in run.series.values() if s.kind == "lr"), None)
    if series is None:
        return []
    expected = schedule(config, series.step, series.epoch)
    if expected is None:
        return []
    unit = 10.0 ** np.floor(np.log10(np.maximum(np.abs(series.value), 1e-300)))
    wrong = np.flatnonzero(~(np.abs(series.value - expected) <= 1.02 * rounding(series.value) * unit + 1e-6 * expected))
    if not len(wrong):
        return []
    at = wrong[0]
    return [Finding("lr_config", series.key, f"{len(wrong)} of {len(series)} learning rates of {run.path} contradict {config.name}, first at step "
                                             f"{series.step[at]:g}: {series.value[at]:.4g} instead of {expected[at]:.4g}")]


def schedule(config: Path, step: np.ndarray, epoch: np.ndarray) -> np.ndarray | None:
    """Learning rate of upstream's schedules at every (step, epoch): warm-up by step, then CosineAnnealingLR or MultiStepLR by epoch.

    None for a schedule this program does not know or a log without steps and epochs. UserError when the file is not such a configuration.
    """
    import yaml

    try:
        settings = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["schedule"]
        base = float(settings["optimizer"]["lr"])
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{config} is not a configuration with a schedule ({error}); give the YAML file of the training with --config.") from error
    if not (np.isfinite(step).all() and np.isfinite(epoch).all()):
        return None
    plan, done = settings.get("lr_schedule") or {}, np.maximum(epoch - 1, 0)
    warm = settings.get("warmup") or {}
    steps, ratio = float(warm.get("steps", 0)), float(warm.get("ratio", 0))
    # PyTorch's schedules go on from the rate they find. The warm-up leaves the full rate behind, however many epochs it took.
    began = float(done[step <= steps].max(initial=0)) if steps else 0.0
    if plan.get("name") == "CosineAnnealingLR":
        low, turn = float(plan.get("eta_min", 0)), math.pi / float(plan["T_max"])
        rate = low + (base - low) * (1 + np.cos(turn * done)) / (1 + math.cos(turn * began))
    elif plan.get("name") == "MultiStepLR":
        milestones = np.array([m for m in plan["milestones"] if m > began], float)
        rate = base * float(plan.get("gamma", 0.1)) ** np.sum(done[:, None] >= milestones, axis=1)
    else:
        return None
    if steps:
        share = np.minimum(step / steps, 1.0)
        factor = {"constant": np.full(len(step), ratio), "linear": 1 - (1 - share) * (1 - ratio), "exp": ratio ** (1 - share)}.get(warm.get("name"))
        if factor is None:
            return None
        # Upstream warms up for step <= steps; at step == steps a linear warm-up has reached the base rate.
        rate = np.where(step <= steps, base * factor, rate)
    return rate

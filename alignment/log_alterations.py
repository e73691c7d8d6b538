"""Twelve named ways to alter a copy of upstream's log, and the verdict each must get against the original.

They are what the comparison is tested with, and what ``python -m alignment.simulate`` reports beside the error rates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alignment.curves import CANNOT_TELL, DIFFERENT, EQUIVALENT

_LINE = re.compile(r"(Train|Val)\|Epoch(\d+)/\d+\|Iter(\d+)\(")
_LOSS = re.compile(r"(\w*loss_\w+):(-?[\d.]+)")


@dataclass(frozen=True)
class Alteration:
    """`change` maps the log's text to the altered text. `code` is the finding or fact that must come with the verdict, if any; `mapping` is the map
    file that the user would give."""

    name: str
    verdict: str
    change: Callable[[str], str]
    code: str | None = None
    mapping: dict[str, str] | None = None


def _losses(text: str, change: Callable[[str, float, int], float]) -> str:
    """Apply `change(name, value, iteration)` to every loss of every Train and Val line."""
    out = []
    for line in text.splitlines(keepends=True):
        match = _LINE.search(line)
        if match:
            iteration = int(match.group(3))
            line = _LOSS.sub(lambda m: f"{m.group(1)}:{change(m.group(1), float(m.group(2)), iteration):.4f}", line)
        out.append(line)
    return "".join(out)


def _epoch(line: str) -> int | None:
    match = _LINE.search(line)
    return int(match.group(2)) if match else None


def _swapped(text: str) -> str:
    swap = lambda line: re.sub(r"\|( ?)loss_(bbox|dfl):", lambda m: f"|{m.group(1)}loss_{'dfl' if m.group(2) == 'bbox' else 'bbox'}:", line)  # noqa: E731
    return "".join(swap(line) if _LINE.search(line) else line for line in text.splitlines(keepends=True))


def _dropped(text: str, epoch: int = 42) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if _epoch(line) != epoch)


def _restarted(text: str, at: int = 63, back: int = 58) -> str:
    """Killed in epoch `at`, continued from the checkpoint of epoch `back`."""
    lines = text.splitlines(keepends=True)
    first = lambda epoch: next(i for i, line in enumerate(lines) if _epoch(line) == epoch)  # noqa: E731
    return "".join(lines[: first(at) + 4] + lines[first(back):])


def other_noise(text: str, seed: int = 7) -> str:
    """The same trend with the noise of another run: blocks of the log's own residuals, drawn anew, all losses of a line together."""
    rng = np.random.default_rng(seed)
    rows = [dict((n, float(v)) for n, v in _LOSS.findall(line)) for line in text.splitlines() if "Train|" in line]
    names = list(rows[0])
    values = np.array([[row[n] for n in names] for row in rows])
    trend = smooth_trend(values)
    ratio = (values / trend)[100:]
    # The average residual is taken out, or drawing it anew would shift the level by a little.
    ratio = ratio / ratio.mean(0)
    count, block = len(values), 13
    start = rng.integers(0, len(ratio), -(-count // block))
    index = ((start[:, None] + np.arange(block)) % len(ratio)).ravel()[:count]
    fresh = trend * ratio[index]
    at = iter(range(count))
    out = []
    for line in text.splitlines(keepends=True):
        if "Train|" in line:
            row = dict(zip(names, fresh[next(at)]))
            line = _LOSS.sub(lambda m: f"{m.group(1)}:{row[m.group(1)]:.4f}", line)
        elif "Val|" in line:
            line = _LOSS.sub(lambda m: f"{m.group(1)}:{float(m.group(2)) * (1 + 0.01 * rng.standard_normal()):.4f}", line)
        elif "Val_metrics" in line:
            line = re.sub(r": (0\.\d+)", lambda m: f": {float(m.group(1)) + 0.001 * rng.standard_normal()!r}", line)
        out.append(line)
    return "".join(out)


def smooth_trend(values: np.ndarray, half: int = 60) -> np.ndarray:
    """A running mean of `values` (n, series) over up to 2 * `half` + 1 lines, narrower towards the start, where the loss falls fast."""
    count = len(values)
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, 0)])
    reach = np.minimum(np.minimum(np.arange(count), np.arange(count)[::-1]), half)
    reach = np.maximum(np.minimum(reach, 1 + np.arange(count) // 4), 0)
    low, high = np.arange(count) - reach, np.arange(count) + reach + 1
    return (sums[high] - sums[low]) / (high - low)[:, None]


def _rate(text: str) -> str:
    def line_of(line: str) -> str:
        match = _LINE.search(line)
        if not match or int(match.group(3)) <= 500:
            return line
        return re.sub(r"lr:([\d.e+-]+)", lambda m: f"lr:{float(m.group(1)) * 0.9:.2e}", line)
    return "".join(line_of(line) for line in text.splitlines(keepends=True))


def _smoothed(text: str, weight: float = 0.9) -> str:
    """Every loss replaced by its exponential average, as a smoothing plotter would export it."""
    state: dict[tuple[str, str], float] = {}
    out = []
    for line in text.splitlines(keepends=True):
        match = _LINE.search(line)
        if match:
            def average(m: re.Match[str], phase: str = match.group(1)) -> str:
                key, value = (phase, m.group(1)), float(m.group(2))
                state[key] = weight * state.get(key, value) + (1 - weight) * value
                return f"{m.group(1)}:{state[key]:.4f}"
            line = _LOSS.sub(average, line)
        out.append(line)
    return "".join(out)


def _nan(text: str, after: int = 24000) -> str:
    return _losses(text, lambda name, value, iteration: float("nan") if iteration >= after and name == "loss_dfl" else value)


def _truncated(text: str) -> str:
    cut = text.index("loss_dfl", int(0.6 * len(text)))
    return text[: cut + 11]


def _interval(text: str) -> str:
    """Logged every 50 steps instead of every 25."""
    keep = lambda line: "Train|" not in line or int(_LINE.search(line).group(3)) % 50 == 0  # noqa: E731
    return "".join(line for line in text.splitlines(keepends=True) if keep(line))


_RENAMED = {"loss_qfl": "cls_loss", "loss_bbox": "box_loss", "loss_dfl": "dist_loss", "mAP": "coco_score"}


def _renamed(text: str) -> str:
    for old, new in _RENAMED.items():
        text = re.sub(rf"(?<![\w]){old}(?=:|':)", new, text)
    return text


ALTERATIONS = (
    Alteration("rescaled", DIFFERENT, lambda text: _losses(text, lambda n, v, i: v * 1.05), "exact_scale"),
    Alteration("shifted", DIFFERENT, lambda text: _losses(text, lambda n, v, i: v + 0.03), "exact_shift"),
    Alteration("one series swapped", DIFFERENT, _swapped),
    Alteration("an epoch dropped", EQUIVALENT, _dropped),
    Alteration("restarted", EQUIVALENT, _restarted),
    Alteration("noise from another seed", CANNOT_TELL, other_noise),
    Alteration("learning rate wrong after warm-up", DIFFERENT, _rate, "learning_rate"),
    Alteration("smoothed copy", CANNOT_TELL, _smoothed, "smoothed_copy"),
    Alteration("NaN in the middle", DIFFERENT, _nan, "not_finite"),
    Alteration("truncated in mid-line", CANNOT_TELL, _truncated, "coverage"),
    Alteration("other interval", EQUIVALENT, _interval),
    Alteration("other metric names", EQUIVALENT, _renamed, None, _RENAMED),
)

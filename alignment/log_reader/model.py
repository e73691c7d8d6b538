"""What a training log holds once it is read: runs made of series.

A series is one named number over the training: its value, and the step or the epoch it was written at. Nothing here knows a file format.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Series:
    """One named curve of one run, sorted by position and without repeats.

    `step` and `epoch` are float64 of shape (n,), NaN where the log does not say; `value` is float64 of shape (n,) and may hold NaN or
    infinities, which are findings and are kept. `phase` is "train", "val", or "epoch" for what a log by steps also sums up once an epoch; `kind` is one
    of `names.KINDS`.
    """

    name: str
    phase: str
    kind: str
    step: np.ndarray
    epoch: np.ndarray
    value: np.ndarray

    @property
    def key(self) -> str:
        return f"{self.phase}/{self.name}"

    def __len__(self) -> int:
        return len(self.value)

    def axis(self, name: str) -> np.ndarray | None:
        """The positions on axis "step" or "epoch", or None when a position is not known on it."""
        positions = self.step if name == "step" else self.epoch
        return positions if len(positions) and np.isfinite(positions).all() else None


@dataclass
class Run:
    """One training run as read from one file or one folder of event files.

    `lines` counts what every line was taken for (its values add up to `total_lines`); `unread` holds the first few lines that carry a number
    and were not understood, as (line number, text). `restarts` lists (position before, position after) wherever the log goes back.
    """

    path: str
    format: str
    encoding: str = "binary"
    series: dict[str, Series] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    total_lines: int = 0
    unread: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restarts: list[tuple[float, float]] = field(default_factory=list)
    repeated: int = 0
    out_of_order: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    backwards: list[tuple[int, str, str]] = field(default_factory=list)
    summaries: list[tuple[str, float, int]] = field(default_factory=list)
    seed: int | None = None
    total_epochs: int | None = None
    steps_per_epoch: int | None = None
    cut: bool = False

    def of_kind(self, *kinds: str) -> list[Series]:
        return [series for series in self.series.values() if series.kind in kinds]

    def describe(self) -> dict:
        """What was understood, as plain data for result.json."""
        return {
            "path": self.path, "format": self.format, "encoding": self.encoding, "total_lines": self.total_lines, "lines": dict(self.lines),
            "series": {
                key: {"kind": s.kind, "points": len(s), "not_finite": int((~np.isfinite(s.value)).sum()),
                      "first": _position(s, 0), "last": _position(s, -1)}
                for key, s in self.series.items()
            },
            "unread": [{"line": line, "text": text} for line, text in self.unread], "notes": self.notes,
            "restarts": [list(r) for r in self.restarts], "repeated_rows_replaced": self.repeated, "rows_out_of_order": self.out_of_order,
            "gaps": [list(g) for g in self.gaps], "seed": self.seed, "total_epochs": self.total_epochs, "steps_per_epoch": self.steps_per_epoch,
            "last_line_cut": self.cut,
        }


def _position(series: Series, index: int) -> dict[str, float]:
    if not len(series):
        return {}
    pairs = (("step", series.step[index]), ("epoch", series.epoch[index]))
    return {name: float(value) for name, value in pairs if np.isfinite(value)}

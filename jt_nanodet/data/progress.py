"""Progress of long work: what is done, what is left, how fast."""

from __future__ import annotations

import sys
import time


class Progress:
    """A line on a terminal that the next one replaces; elsewhere a line every ten seconds."""

    def __init__(self, total: int, what: str):
        self.total, self.what, self.began = total, what, time.monotonic()
        self.shown = self.began if not sys.stderr.isatty() else 0.0

    def step(self, done: int) -> None:
        """Say that ``done`` are done, at most every so often."""
        now = time.monotonic()
        if now - self.shown < (0.2 if sys.stderr.isatty() else 10):
            return
        self.shown = now
        rate = done / max(now - self.began, 1e-9)
        left = f" of {self.total}, {max(0.0, (self.total - done) / rate):.0f} s left" if self.total else ""
        print(f"{done}{left} {self.what}, {rate:.1f} a second", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

"""The log of a run: upstream's lines in ``logs.txt`` and on the console, one JSON object a line in ``log.jsonl``, TensorBoard scalars.

Lines follow ``nanodet/trainer/task.py`` and ``nanodet/util/logger.py``. Every line is written at once, so that a killed run keeps its log.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.errors import UserError
from jt_nanodet.run.memory import peak_memory_bytes
from jt_nanodet.run.scalars import ScalarWriter

SCHEMA = 1


class RunLog:
    """Log files in ``folder``; with ``silent`` (a process that is not the first of several) nothing is written or shown."""

    def __init__(self, folder: Path, header: dict, resumed: bool = False, silent: bool = False):
        self.silent, self.folder = silent, folder
        self.live = sys.stderr.isatty() and not silent
        self.shown = 0.0
        if silent:
            return
        with self._guard():
            self.text, self.rows = (_open(folder / name, resumed) for name in ("logs.txt", "log.jsonl"))
            self.scalars = ScalarWriter(folder)
        self.row({"type": "header", "schema_version": SCHEMA, "resumed": resumed, **header})

    def _guard(self):
        return _Writing(self.folder)

    def info(self, message: str) -> None:
        """One line to the console and to logs.txt, in upstream's format."""
        if self.silent:
            return
        line = f"[NanoDet][{time.strftime('%m-%d %H:%M:%S')}]INFO: {message}"
        with self._guard():
            self.text.write(line + "\n")
            self.text.flush()
        self._clear()
        print(line, flush=True)

    def row(self, values: dict) -> None:
        """One line of log.jsonl; NaN and infinities as strings."""
        if self.silent:
            return
        with self._guard():
            self.rows.write(json.dumps(_plain({"time": round(time.time(), 3), **values}), ensure_ascii=False) + "\n")
            self.rows.flush()

    def losses(self, phase: str, where: dict, lr: float, terms: dict[str, float]) -> None:
        """Upstream's Train or Val line. ``where``: epoch and epochs (from 1), step, batch (from 1) and batches of the epoch."""
        if self.silent:
            return
        parts = [
            f"{phase}|Epoch{where['epoch']}/{where['epochs']}|Iter{where['step']}({where['batch']}/{where['batches']})",
            f" mem:{peak_memory_bytes() / 1e9:.3g}G", f" lr:{lr:.2e}", *(f" {name}:{value:.4f}" for name, value in terms.items()),
        ]
        self.info("|".join(parts) + "| ")
        if phase == "Train":
            with self._guard():
                self.scalars.add({"Train_loss/lr": lr, **{f"Train_loss/{k}": v for k, v in terms.items()}}, where["step"])

    def epoch(self, epoch: int, epochs: int, means: dict[str, float], lr: float) -> None:
        """The epoch's means: all of the loss, its classification part and its box part, over both heads."""
        loss = sum(means.values())
        classes = sum(v for k, v in means.items() if k.endswith("loss_qfl"))
        self.info(f"Epoch {epoch}/{epochs}: loss={loss:.4f} cls_loss={classes:.4f} reg_loss={loss - classes:.4f} lr={lr:.6g}")
        self.row({"type": "epoch", "epoch": epoch, "loss": loss, "cls_loss": classes, "reg_loss": loss - classes, "lr": lr, **means})

    def metrics(self, epoch: int, step: int, metrics: dict) -> None:
        """The 12 numbers of a validation."""
        numbers = {k: metrics[k] for k in METRIC_NAMES}
        self.info(f"Val_metrics: {numbers}")
        if metrics.get("note"):
            self.info(metrics["note"])
        self.row({"type": "val", "epoch": epoch, "step": step, **numbers, "per_class": metrics["per_class"]})
        if not self.silent:
            with self._guard():
                self.scalars.add({f"Val_metrics/{k}": v for k, v in numbers.items()}, epoch)

    def progress(self, text: str) -> None:
        """A line that the next one replaces, on a terminal only."""
        if self.live and time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if not self.silent:
            self._clear()
            for file in (self.text, self.rows, self.scalars):
                file.close()


def _open(path: Path, resumed: bool):
    """The file for writing, at its end where the run goes on; a line that a kill cut off is ended first."""
    cut = resumed and path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    file = open(path, "a" if resumed else "w", encoding="utf-8")
    if cut:
        file.write("\n")
    return file


class _Writing:
    """Turns a full disk into one sentence."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise UserError(
                f"cannot write the log in {self.folder} ({error.strerror or error}); make room, then go on with --resume"
            ) from None


class TimeLeft:
    """Time left from the steps of this run so far; the first, which may compile kernels, does not count."""

    def __init__(self, total: int):
        self.total, self.first, self.began = total, None, 0.0

    def text(self, done: int) -> str:
        """``done`` steps of ``total``; empty until there is something to go by."""
        if self.first is None:
            self.first, self.began = done, time.monotonic()
        if done == self.first:
            return "time left not known yet"
        seconds = (time.monotonic() - self.began) / (done - self.first) * (self.total - done)
        hours, rest = divmod(int(seconds), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d} left"


def read_rows(folder: str | os.PathLike) -> list[dict]:
    """The rows of log.jsonl; a last line cut off by a kill is left out."""
    rows = []
    path = Path(folder) / "log.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

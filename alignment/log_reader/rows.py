"""From rows as they stand in a file to sorted series: which step a row belongs to, restarts, repeats, gaps."""

from __future__ import annotations

from array import array

import numpy as np

from alignment.log_reader import names
from alignment.log_reader.model import Run, Series

NAN = float("nan")


class Table:
    """Rows of one shape: `columns` as in `lines.Template`, the numbers row by row in `rows`, the line numbers in `numbers`, and, for rows
    without a position of their own, the (step, epoch) of the line before in `context`."""

    def __init__(self, columns: list, phase: str, keyed: bool) -> None:
        self.columns, self.phase, self.keyed = columns, phase, keyed
        self.rows, self.numbers, self.context = array("d"), array("q"), array("d")

    def last_position(self) -> tuple[float, float]:
        if not self.numbers:
            return NAN, NAN
        row = self.rows[-len(self.columns):]
        found = {column: value for column, value in zip(self.columns, row) if isinstance(column, str)}
        step = found.get("step", NAN)
        if "inner" in found and "step" not in found and "per" in found:
            step = (found["epoch"] - 1) * found["per"] + found["inner"]
        return step, found.get("epoch", NAN)


def collect(run: Run, tables: list[Table]) -> None:
    """Turn `tables` into `run.series`, and note what was odd on the way."""
    parts: dict[tuple[str, str], list[tuple]] = {}
    for table in tables:
        if not table.numbers:
            continue
        block = np.frombuffer(table.rows, np.float64).reshape(-1, len(table.columns))
        keys = {column: block[:, i] for i, column in enumerate(table.columns) if isinstance(column, str)}
        lines = np.frombuffer(table.numbers, np.int64)
        step, epoch, fraction = _positions(run, table, keys, lines)
        for index, column in enumerate(table.columns):
            if not isinstance(column, tuple):
                continue
            phase, name = names.split_phase(column[1], table.phase)
            kind = names.kind_of(name)
            if kind == "metric":
                phase = "val"
            if names.is_summary(name):
                run.summaries += [(names.summary_target(name), float(v), int(n)) for v, n in zip(block[:, index], lines)]
            elif kind != "environment":
                parts.setdefault((phase, name), []).append((lines, step, epoch, fraction, block[:, index]))
    seen_restarts: dict[str, tuple] = {}
    for (phase, name), pieces in parts.items():
        series = _series(run, phase, name, pieces, seen_restarts)
        if series is not None and len(series):
            run.series[series.key] = series
    _find_gaps(run)


def _positions(run: Run, table: Table, keys: dict, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(step, epoch, fraction) of every row. The fraction tells the rows of one validation pass, which share a step, apart."""
    empty = np.full(len(lines), NAN)
    if not table.keyed:
        context = np.frombuffer(table.context, np.float64).reshape(-1, 2)
        return context[:, 0], context[:, 1], None
    step, epoch = keys.get("step", empty), keys.get("epoch", empty)
    per, fraction = keys.get("per"), None
    if "epochs" in keys:
        run.total_epochs = int(keys["epochs"][-1])
    if "per_step" in keys and "epoch" in keys:
        # "Epoch 3 Iter 20/317": inside the epoch when the count starts again with the next epoch, over all when it goes on.
        if (np.diff(step)[np.diff(epoch) > 0] <= 0).any():
            step, per = (epoch - 1) * keys["per_step"] + step, keys["per_step"]
    elif "inner" in keys and "step" not in keys:
        step = (epoch - 1) * per + keys["inner"]
    elif "inner" in keys and table.phase == "val":
        fraction = keys["inner"] / (per + 1)
    if per is not None and table.phase == "train":
        run.steps_per_epoch = int(np.median(per))
    return step, epoch, fraction


def _series(run: Run, phase: str, name: str, pieces: list[tuple], seen: dict) -> Series | None:
    order = np.argsort(np.concatenate([p[0] for p in pieces]), kind="stable")
    join = lambda i: np.concatenate([p[i] for p in pieces])[order]  # noqa: E731
    step, epoch, value = (join(1), join(2), join(4)) if len(pieces) > 1 else (pieces[0][1], pieces[0][2], pieces[0][4])
    fractions = [np.zeros(len(p[0])) if p[3] is None else p[3] for p in pieces]
    fraction = np.concatenate(fractions)[order] if len(fractions) > 1 else fractions[0]
    where = step if np.isfinite(step).all() else epoch
    if names.kind_of(name) == "metric" and np.isfinite(epoch).all() and len(np.unique(epoch)) >= len(np.unique(step)):
        # A result belongs to an epoch; the step next to it is only that of the line above.
        where = epoch
    by_step = where is step
    known = np.isfinite(where)
    if not known.all():
        # Rows from before the first known position belong nowhere.
        step, epoch, value, where, fraction = step[known], epoch[known], value[known], where[known], fraction[known]
    if not len(where):
        return None
    if by_step:
        step = where = _restart_inside_epoch(run, step, epoch)
    keep, _, value = _last_word(run, where + fraction, value, seen, phase)
    return Series(name, phase, names.kind_of(name), step[keep] + fraction[keep], epoch[keep], value)


def _restart_inside_epoch(run: Run, step: np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """Steps that count from zero in every epoch, made to count on. The length of an epoch is the largest step seen plus one interval."""
    if len(step) < 4 or not np.isfinite(epoch).all():
        return step
    change = np.diff(epoch) > 0
    if change.sum() < 2 or (np.diff(step)[change] < 0).mean() < 0.9:
        return step
    inside = np.diff(step)[np.diff(step) > 0]
    length = step.max() + (np.median(inside) if len(inside) else 1)
    note = f"steps start again in every epoch; an epoch is taken to be {length:g} steps long"
    if note not in run.notes:
        run.notes.append(note)
    return (epoch - epoch.min()) * length + step


def _last_word(run: Run, x: np.ndarray, value: np.ndarray, seen: dict, phase: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows count: of equal neighbours their mean, and after a restart only what the later part wrote.

    Returns (indices, positions, values). A single row that is out of order between two neighbours in order is dropped and counted.
    """
    index = np.arange(len(x))
    if (np.diff(x) > 0).all():
        return index, x, value
    same = np.diff(x) == 0
    if same.any():
        start = np.flatnonzero(np.r_[True, ~same])
        counts = np.diff(np.r_[start, len(x)])
        note = "several rows share one position without a step of their own; their mean is used"
        if counts.max() > 1 and note not in run.notes and not np.array_equal(value[:-1][same], value[1:][same]):
            run.notes.append(note)
        value, x, index = np.add.reduceat(value, start) / counts, x[start], start + counts - 1
    if len(x) > 2:
        lone = np.r_[False, (np.diff(x)[:-1] < 0) & (x[2:] > x[:-2]), False]
        lone |= np.r_[False, (np.diff(x)[1:] < 0) & (x[2:] > x[:-2]) & (np.diff(x)[:-1] > 0) & (x[1:-1] > np.r_[x[3:], np.inf]), False]
        if lone.any() and lone.sum() < 0.01 * len(x) + 1:
            run.out_of_order = max(run.out_of_order, int(lone.sum()))
            x, value, index = x[~lone], value[~lone], index[~lone]
    later = np.r_[np.minimum.accumulate(x[::-1])[::-1][1:], np.inf]
    keep = x < later
    if not keep.all():
        back = np.flatnonzero(np.diff(x) <= 0)
        restarts = [(float(x[i]), float(x[i + 1])) for i in back]
        key = (phase, tuple(restarts))
        if key not in seen:
            seen[key] = True
            if phase == "train" or not run.restarts:
                run.restarts = restarts if len(restarts) >= len(run.restarts) else run.restarts
        run.repeated = max(run.repeated, int((~keep).sum()))
    return index[keep], x[keep], value[keep]


def _find_gaps(run: Run) -> None:
    """Missing pieces of the longest training series: places where the distance is more than one and a half of the usual one."""
    candidates = [s for s in run.series.values() if s.phase == "train"] or list(run.series.values())
    if not candidates:
        return
    longest = max(candidates, key=len)
    x = longest.axis("step") if longest.axis("step") is not None else longest.axis("epoch")
    if x is None or len(x) < 4:
        return
    distance = np.diff(x)
    usual = np.median(distance)
    run.gaps = [(float(x[i]), float(x[i + 1])) for i in np.flatnonzero(distance > 1.5 * usual)[:100]]

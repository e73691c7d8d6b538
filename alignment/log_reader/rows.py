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

    def __init__(self, columns: list, phase: str, keyed: bool, constants: dict[str, float] | None = None) -> None:
        self.columns, self.phase, self.keyed, self.constants = columns, phase, keyed, constants or {}
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
    _part_summaries(parts)
    places: dict[tuple, _Place] = {}
    for (phase, name), pieces in parts.items():
        kind = names.kind_of(name)
        # Series that come from the same rows have the same positions, worked out and kept in memory once.
        source = (phase, kind == "metric", *(id(piece[0]) for piece in pieces))
        if source not in places:
            places[source] = _Place(run, kind, pieces)
        place = places[source]
        if place.count:
            series = Series(name, phase, kind, place.step, place.epoch, place.values([piece[4] for piece in pieces]))
            run.series[series.key] = series
    for place in places.values():
        place.note(run)
    _find_gaps(run)


def _part_summaries(parts: dict) -> None:
    """Move what is written once an epoch to a phase of its own, "epoch", when the training is also logged step by step.

    Such lines repeat in other words what the steps say; mixed with them, "lr" or "loss" would be two things under one name.
    """
    stepped = lambda piece: np.isfinite(piece[1]).any()  # noqa: E731
    if not any(phase == "train" and names.kind_of(name) == "loss" and any(map(stepped, pieces)) for (phase, name), pieces in parts.items()):
        return
    for phase, name in [key for key in parts if key[0] == "train"]:
        by_epoch = [piece for piece in parts[phase, name] if not stepped(piece)]
        if by_epoch:
            parts[phase, name] = [piece for piece in parts[phase, name] if stepped(piece)]
            parts.setdefault(("epoch", name), []).extend(by_epoch)
            if not parts[phase, name]:
                del parts[phase, name]


def _positions(run: Run, table: Table, keys: dict, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(step, epoch, fraction) of every row. The fraction tells the rows of one validation pass, which share a step, apart."""
    empty = np.full(len(lines), NAN)
    if not table.keyed:
        context = np.frombuffer(table.context, np.float64).reshape(-1, 2)
        return context[:, 0], context[:, 1], None
    step, epoch = keys.get("step", empty), keys.get("epoch", empty)
    per, fraction = keys.get("per"), None
    if "epochs" in keys or "epochs" in table.constants:
        run.total_epochs = int(keys["epochs"][-1] if "epochs" in keys else table.constants["epochs"])
    if "per" in table.constants and table.phase == "train":
        run.steps_per_epoch = int(table.constants["per"])
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


class _Place:
    """Where the rows of some series stand: which of them count, in which order, and at which step and epoch.

    Of rows that share a position without a gap between them the mean counts; after a restart only what the later part wrote; a single row out
    of order between two neighbours in order is dropped.
    """

    def __init__(self, run: Run, kind: str, pieces: list[tuple]) -> None:
        lines, step, epoch = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
        fraction = np.concatenate([np.zeros(len(piece[0])) if piece[3] is None else piece[3] for piece in pieces])
        order = np.argsort(lines, kind="stable")
        step, epoch, fraction = step[order], epoch[order], fraction[order]
        by_step = bool(np.isfinite(step).all())
        if kind == "metric" and np.isfinite(epoch).all() and len(np.unique(epoch)) >= len(np.unique(step)):
            # A result belongs to an epoch; the step next to it is only that of the line above.
            by_step = False
        # Rows from before the first known position belong nowhere.
        known = np.isfinite(step if by_step else epoch)
        self.order, step, epoch, fraction = order[known], step[known], epoch[known], fraction[known]
        if by_step:
            step = _restart_inside_epoch(run, step, epoch)
        x = (step if by_step else epoch) + fraction
        start = np.flatnonzero(np.r_[True, np.diff(x) != 0]) if len(x) else np.zeros(0, int)
        self.start, self.counts = start, np.diff(np.r_[start, len(x)])
        self.shared = int((self.counts > 1).sum())
        chosen, self.lone, self.repeated, self.restarts = _last_word(x[start])
        self.chosen, last = chosen, (start + self.counts - 1)[chosen]
        self.step, self.epoch = step[last] + fraction[last], epoch[last]
        self.count = len(chosen)
        self.differing = False

    def values(self, pieces: list[np.ndarray]) -> np.ndarray:
        """The numbers of one series at this place's positions."""
        value = (np.concatenate(pieces) if len(pieces) > 1 else pieces[0])[self.order]
        if self.shared:
            mean = np.add.reduceat(value, self.start) / self.counts
            self.differing |= not np.allclose(np.repeat(mean, self.counts), value, rtol=1e-12, atol=0, equal_nan=True)
            value = mean
        return np.ascontiguousarray(value[self.chosen])

    def note(self, run: Run) -> None:
        """Tell the run what was odd here."""
        text = "several rows share one position without a step of their own; their mean is used"
        if self.differing and text not in run.notes:
            run.notes.append(text)
        run.out_of_order = max(run.out_of_order, self.lone)
        run.repeated = max(run.repeated, self.repeated)
        if len(self.restarts) > len(run.restarts):
            run.restarts = self.restarts


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


def _last_word(x: np.ndarray) -> tuple[np.ndarray, int, int, list[tuple[float, float]]]:
    """(indices that count, rows out of order, rows replaced after a restart, restarts as (position before, position after))."""
    index = np.arange(len(x))
    if (np.diff(x) > 0).all():
        return index, 0, 0, []
    out_of_order = 0
    if len(x) > 2:
        step = np.diff(x)
        over = x[2:] > x[:-2]
        low = (step[:-1] < 0) & over
        high = (step[1:] < 0) & over & (step[:-1] > 0) & (x[1:-1] > np.r_[x[3:], np.inf])
        lone = np.r_[False, low | high, False]
        if 0 < lone.sum() < 0.01 * len(x) + 1:
            out_of_order = int(lone.sum())
            index = index[~lone]
    kept = x[index]
    later = np.r_[np.minimum.accumulate(kept[::-1])[::-1][1:], np.inf]
    keep = kept < later
    restarts = [(float(kept[i]), float(kept[i + 1])) for i in np.flatnonzero(np.diff(kept) <= 0)]
    return index[keep], out_of_order, int((~keep).sum()), restarts


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

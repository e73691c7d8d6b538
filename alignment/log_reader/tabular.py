"""Reading logs that are tables: JSON lines and CSV (comma, semicolon or tab)."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from alignment.log_reader import encoding as encodings
from alignment.log_reader import names
from alignment.log_reader.model import Run
from alignment.log_reader.rows import Table, collect
from alignment.log_reader.shapes import MAX_SHAPES, Plan, blocks, learn, numbers, skeleton
from jt_nanodet.errors import UserError

STEP_NAMES = {"step", "global_step", "globalstep", "iter", "iteration", "iters", "iterations", "it", "steps", "迭代", "迭代次数", "步数"}
EPOCH_NAMES = {"epoch", "epochs", "current_epoch", "轮次"}
PHASE_NAMES = {"phase", "mode", "split", "stage", "subset", "type"}
#: Names of objects that only hold other names together; a phase among them is kept by `names.split_phase`.
_CONTAINERS = {"losses", "loss_states", "metrics", "metric", "scalars", "logs", "log", "data", "values", "results", "stats"}
_TOTALS = {"total_epochs": "total_epochs", "epochs": "total_epochs", "max_epochs": "total_epochs", "seed": "seed",
           "steps_per_epoch": "steps_per_epoch", "batches_per_epoch": "steps_per_epoch"}


def read_jsonl(path: Path, *, step_name: str | None = None) -> Run:
    """Read a file with one JSON object a line. Nested objects are flattened; lines that are no object are counted as unread."""
    encoding = encodings.detect(path)
    run = Run(str(path), "jsonl", encoding)
    reader = _Objects(run, step_name)
    counts: dict[str, int] = {}
    plans: dict[bytes, Plan] = {}
    number = 0
    for block in blocks(encodings.raw_lines(path, encoding)):
        plan = plans.get(skeleton(block[0]))
        if plan is not None and plan.take_block(block, number + 1):
            reader.last = plan.table
            number += len(block)
            continue
        for line in block:
            number += 1
            _take_object(reader, plans, number, line, encoding, counts)
    for plan in plans.values():
        counts[plan.category] = counts.get(plan.category, 0) + plan.taken
    run.total_lines, run.lines = number, {name: count for name, count in counts.items() if count}
    collect(run, [table for _, table in reader.tables.values()])
    return run


def _take_object(reader: _Objects, plans: dict[bytes, Plan], number: int, line: bytes, encoding: str, counts: dict[str, int]) -> None:
    """Take one line, by its shape when that is known; else parse it, and learn its shape where that is safe."""
    plan = plans.get(skeleton(line))
    if plan is not None:
        tokens = numbers(line)
        if len(tokens) == plan.count and (plan.fixed is None or plan.fixed(tokens) == plan.fixed_values):
            try:
                plan.table.rows.extend(map(float, plan.pick(tokens)))
                plan.table.numbers.append(number)
                plan.taken += 1
                reader.last = plan.table
                return
            except ValueError:
                del plan.table.rows[len(plan.table.numbers) * len(plan.table.columns):]
    text = line.decode("gb18030" if encoding == "gb18030" else "utf-8", "replace")
    taken, chosen, table = reader.take(number, text)
    counts[taken] = counts.get(taken, 0) + 1
    if chosen and table.keyed and len(plans) < MAX_SHAPES and text.isascii():
        spans = [_span(text, name) for name in chosen]
        if None not in spans and len(set(spans)) == len(spans):
            plan = learn(line, spans, table, table.phase, None)
            if plan is not None:
                plans[skeleton(line)] = plan


def _span(text: str, name: str) -> tuple[int, int] | None:
    """Where the number called `name` stands in a line of JSON; None unless there is exactly one such place."""
    places = [match.span(1) for match in re.finditer(r'"' + re.escape(name.split("/")[-1]) + r'"\s*:\s*(-?[\d.]+(?:[eE][-+]?\d+)?)\s*[,}]', text)]
    return places[0] if len(places) == 1 else None


class _Objects:
    """The slow path of JSON lines: one object after the other."""

    def __init__(self, run: Run, step_name: str | None) -> None:
        self.run, self.step_name = run, step_name
        self.tables: dict[tuple, tuple[list[str], Table]] = {}
        self.last: Table | None = None

    def take(self, number: int, line: str) -> tuple[str, list[str], Table | None]:
        """Take a line; returns what it was taken for, the names taken from it and their table."""
        if not line.strip():
            return "blank", [], None
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
        except ValueError:
            if not line.endswith("\n"):
                self.run.cut = True
                return "cut", [], None
            return self._unread(number, line)
        row = _flatten(row)
        signature = (tuple(row), tuple(value if type(value) is str else None for name, value in row.items() if name.lower() in PHASE_NAMES),
                     tuple(map(_numeric, row.values())))
        if signature not in self.tables:
            self.tables[signature] = _plan(self.run, row, self.step_name)
        chosen, table = self.tables[signature]
        kinds = {names.kind_of(column[1].split("/")[-1]) for column in table.columns if isinstance(column, tuple)}
        # Without a position of its own a row counts only when it holds results: a header's settings are no series.
        if not chosen or (not table.keyed and (self.last is None or not kinds & {"loss", "metric"})):
            return "notice", [], None
        table.rows.extend([float(row[name]) for name in chosen])
        table.numbers.append(number)
        if table.keyed:
            self.last = table
        else:
            table.context.extend(self.last.last_position())
        return table.phase, chosen, table

    def _unread(self, number: int, line: str) -> tuple[str, list[str], None]:
        if len(self.run.unread) < 8:
            self.run.unread.append((number, line.rstrip("\n")[:200]))
        return "unread", [], None


def _flatten(row: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in row.items():
        inner = prefix + str(name)
        if isinstance(value, dict):
            flat.update(_flatten(value, prefix if str(name).lower() in _CONTAINERS else inner + "/"))
        else:
            flat[inner] = value
    return flat


def _column(name: str, step_name: str | None) -> object:
    lower = name.lower().strip()
    if step_name and lower == step_name.lower() or lower in STEP_NAMES:
        return "step"
    return "epoch" if lower in EPOCH_NAMES else ("value", name.strip())


def _numeric(value: object) -> bool:
    if isinstance(value, bool):
        return False
    # Strict JSON has no NaN, so writers spell it as a word.
    return isinstance(value, (int, float)) or isinstance(value, str) and bool(re.fullmatch(r"(?i)[-+]?(nan|inf(inity)?)", value))


def _plan(run: Run, row: dict, step_name: str | None) -> tuple[list[str], Table]:
    """Which entries of rows like `row` to take, and the table they go to."""
    phase = "train"
    for name, value in row.items():
        lower = name.lower()
        if lower in PHASE_NAMES and isinstance(value, str):
            phase = "val" if re.match(r"(?i)val|test|eval|metric", value) else phase
        if lower in _TOTALS and isinstance(value, int) and not isinstance(value, bool) and (lower != "epochs" or "epoch" in row):
            setattr(run, _TOTALS[lower], value)
    lowers = {name.lower() for name in row}
    inside = {"batch": "inner", "batches": "per"} if {"batch", "batches"} <= lowers else {}
    chosen = [n for n, v in row.items() if _numeric(v) and n.lower() not in _TOTALS and names.kind_of(n) != "environment" or n.lower() in inside]
    columns = [inside.get(name.lower()) or _column(name, step_name) for name in chosen]
    keyed = "step" in columns or "epoch" in columns
    if not any(isinstance(column, tuple) for column in columns):
        chosen = []
    # Two columns for one thing ("iter" and "global_step"): the first counts, the other is left out.
    for key in ("step", "epoch"):
        while columns.count(key) > 1:
            last = len(columns) - 1 - columns[::-1].index(key)
            del columns[last], chosen[last]
    return chosen, Table(columns, phase, keyed)


def read_csv(path: Path, *, step_name: str | None = None) -> Run:
    """Read a table with a header line. An empty cell is no value. UserError when the header names neither a step nor an epoch."""
    encoding = encodings.detect(path)
    run = Run(str(path), "csv", encoding)
    counts: dict[str, int] = {}
    with encodings.open_text(path, encoding) as file:
        header_line = file.readline()
        while header_line.startswith("#") or (header_line and not header_line.strip()):
            header_line = file.readline()
            counts["comment"] = counts.get("comment", 0) + 1
        delimiter = max(",;\t", key=header_line.count)
        header = next(csv.reader([header_line], delimiter=delimiter))
        columns = [_column(name, step_name) for name in header]
        if "step" not in columns and "epoch" not in columns:
            raise UserError(
                f"no column of {path} is called step, iter, iteration or epoch (its columns are {', '.join(header[:8])}); "
                "name the one that counts the steps with --step-name NAME."
            )
        phase_at = next((i for i, name in enumerate(header) if name.strip().lower() in PHASE_NAMES), None)
        tables: dict[tuple, tuple[list[int], Table]] = {}
        number = 1 + counts.get("comment", 0)
        # All columns filled and unquoted is the rule, and needs no CSV parser.
        full = Table(columns, "train", "step" in columns or "epoch" in columns)
        width = len(columns)
        for line in file:
            number += 1
            cells = line.split(delimiter)
            if len(cells) == width:
                try:
                    full.rows.extend(map(float, cells))
                    full.numbers.append(number)
                    continue
                except ValueError:
                    del full.rows[len(full.numbers) * width:]
            cells = next(csv.reader([line], delimiter=delimiter), [])
            phase = cells[phase_at].strip().lower() if phase_at is not None and phase_at < len(cells) else ""
            signature = (phase, *map(bool, cells))
            entry = tables.get(signature)
            if entry is None:
                chosen = [i for i, cell in enumerate(cells[: len(columns)]) if cell.strip() and i != phase_at]
                kept = [columns[i] for i in chosen]
                side = "val" if phase.startswith(("val", "test", "eval")) else "train"
                entry = tables[signature] = (chosen, Table(kept, side, "step" in kept or "epoch" in kept))
            chosen, table = entry
            try:
                if len(cells) > len(columns) or not table.keyed or len(cells) < len(columns):
                    raise ValueError
                table.rows.extend([float(cells[i]) for i in chosen])
            except ValueError:
                del table.rows[len(table.numbers) * len(chosen):]
                what = "unread" if any(cells) else "blank"
                counts[what] = counts.get(what, 0) + 1
                if what == "unread" and len(run.unread) < 8:
                    run.unread.append((number, delimiter.join(cells)[:200]))
                continue
            table.numbers.append(number)
            counts[table.phase] = counts.get(table.phase, 0) + 1
    counts["header"] = 1
    counts["train"] = counts.get("train", 0) + len(full.numbers)
    run.total_lines, run.lines = number, {name: count for name, count in counts.items() if count}
    collect(run, [full] + [table for _, table in tables.values()])
    return run

"""Reading a text log of any shape, line by line, in memory that grows with its numbers and not with its text."""

from __future__ import annotations

import re
from pathlib import Path

from alignment.log_reader import encoding as encodings
from alignment.log_reader.lines import NUMBER, Template, analyse, stamp_in_place, step_pattern
from alignment.log_reader.model import Run
from alignment.log_reader.rows import Table, collect
from alignment.log_reader.shapes import MAX_SHAPES, Plan, blocks, learn, numbers, skeleton

_ANSI = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_COCO = re.compile(
    r"^\s*Average (Precision|Recall)\s+\((AP|AR)\) @\[ IoU=([\d.:]+)\s*\|\s*area=\s*(\w+)\s*\|\s*maxDets=\s*(\d+)\s*\] = (-?[\d.]+)"
)
_NUMERIC = re.compile(r"\d")
_SEED = re.compile(r"\bseed\b\D{0,12}(\d+)", re.I)
_PAIRLIKE = re.compile(r"[\w)\"']\s*[:=：]\s*[\"']?" + NUMBER + r"(?![\d:/\-])")
#: What loggers put before a message: names and times in brackets, bare times, the level.
_PREFIX = re.compile(r"^\s*(?:\[[^\]]*\]\s*|\d{4}-\d\d-\d\d[ T][\d:.,]+\s*(?:-\s*)?)*(?:(?:DEBUG|INFO|WARNING|ERROR)\s*(?:[:\-]\s*)+)?")
#: Regular expressions remembered for lines whose shape alone is not enough. A log has a handful.
MAX_TEMPLATES = 48
UNREAD_SHOWN = 8


class _Reader:
    """State of one pass over a text log."""

    def __init__(self, run: Run, encoding: str, step_name: str | None) -> None:
        self.run = run
        self.step_regex = step_pattern(step_name)
        self.encoding = encoding
        self.templates: list[tuple[Template, Table]] = []
        self.all_tables: list[Table] = []
        self.plans: dict[bytes, Plan] = {}
        self.last_keyed: Table | None = None
        self.class_header: list[str] | None = None
        self.class_tables: dict[tuple, Table] = {}
        self.stamp = self.previous = b""

    # -- one line -------------------------------------------------------------------------------------------------------------------
    def unusual(self, number: int, raw: bytes, complete: bool) -> str:
        """Take a line of a shape without a plan. Returns what it was taken for."""
        line = raw.decode(self.encoding, "replace")
        if not line.strip():
            return "blank"
        for index, (template, table) in enumerate(self.templates):
            match = template.regex.fullmatch(line)
            if match:
                self.templates.insert(0, self.templates.pop(index))
                self.plan(raw, line, [match.span(i + 1) for i in range(len(template.columns))], template, table)
                self.take(table, number, match.groups())
                return template.category
        if not complete and self.templates:
            # The last line, without its end, in a shape seen nowhere before: the writer was stopped in the middle of it.
            self.run.cut = True
            return "cut"
        coco = _COCO.match(line)
        if coco:
            return self.coco(number, coco)
        if line.lstrip().startswith("|"):
            return self.class_row(number, line)
        self.class_header = None
        template = analyse(line, self.step_regex, context=self.last_keyed is not None)
        if template is None:
            return self.notice(number, line)
        match = template.regex.fullmatch(line)
        if match is None:
            return self.unread(number, line)
        table = Table(template.columns, template.phase, template.keyed, template.constants)
        self.all_tables.append(table)
        self.templates.insert(0, (template, table))
        del self.templates[MAX_TEMPLATES:]
        self.plan(raw, line, template.spans, template, table)
        self.take(table, number, match.groups())
        return template.category

    def plan(self, raw: bytes, line: str, spans: list[tuple[int, int]], template: Template, table: Table) -> None:
        """Remember the shape of a line that has its own position, so that the next one like it is taken by `read_text` directly."""
        if not template.keyed or len(self.plans) >= MAX_SHAPES or (len(raw) != len(line) and self.encoding != "utf-8"):
            return
        if len(raw) != len(line):
            spans = [(len(line[:a].encode()), len(line[:b].encode())) for a, b in spans]
        stamp = template.stamp if stamp_in_place(line, template.stamp) else None
        plan = learn(raw, spans, table, template.category, stamp)
        if plan is not None:
            self.plans[skeleton(raw)] = plan

    def take(self, table: Table, number: int, groups: tuple) -> None:
        table.rows.extend(map(float, groups))
        table.numbers.append(number)
        if table.keyed:
            self.last_keyed = table
        else:
            table.context.extend(self.position())

    def position(self) -> tuple[float, float]:
        """(step, epoch) of the last line that had one; NaN for what it does not say."""
        return self.last_keyed.last_position() if self.last_keyed is not None else (float("nan"), float("nan"))

    def notice(self, number: int, line: str) -> str:
        seed = _SEED.search(line)
        if seed and self.run.seed is None:
            self.run.seed = int(seed.group(1))
        # "Best mAP: 0.557" may stand anywhere, also where no step is known.
        for match in re.finditer(r"\b(best|final)[ _]([\w./@]+)\s*[:=]\s*(" + NUMBER + ")", line, re.I):
            self.run.summaries.append((match.group(2), float(match.group(3)), number))
        line = _PREFIX.sub("", line)
        if _PAIRLIKE.search(line) and not re.search(r"(?i)loaded|loading|size\(|shape|saving|seed|best|final", line):
            return self.unread(number, line)
        return "notice" if line.strip() else "empty message"

    def unread(self, number: int, line: str) -> str:
        if len(self.run.unread) < UNREAD_SHOWN:
            self.run.unread.append((number, line[:200]))
        return "unread"

    # -- blocks that COCO evaluators print ---------------------------------------------------------------------------------------------
    def coco(self, number: int, match: re.Match[str]) -> str:
        _, kind, iou, area, detections, value = match.groups()
        name = f"coco_{kind}@{iou}/{area}/{detections}"
        self.one(number, name, float(value))
        return "metric"

    def class_row(self, number: int, line: str) -> str:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            return "table frame"
        if any(cell.lower() == "class" for cell in cells):
            self.class_header = cells
            return "table frame"
        if self.class_header is None or len(cells) != len(self.class_header):
            return self.unread(number, line) if _NUMERIC.search(line) else "notice"
        label = ""
        for heading, cell in zip(self.class_header, cells):
            if heading.lower() == "class":
                label = cell
            elif cell and re.fullmatch(NUMBER, cell):
                self.one(number, f"class_{heading}/{label}", float(cell))
        return "metric"

    def one(self, number: int, name: str, value: float) -> None:
        """Add one number that belongs to the last known position."""
        table = self.class_tables.get((name,))
        if table is None:
            table = self.class_tables[(name,)] = Table([("value", name)], "val", False)
        self.take(table, number, (value,))


def read_text(path: Path, *, step_name: str | None = None) -> Run:
    """Read a text log. UserError when it cannot be opened as text. The result may hold no series; `read.read_run` objects to that."""
    encoding = encodings.detect(path)
    run = Run(str(path), "text", encoding)
    plain = "gb18030" if encoding == "gb18030" else "utf-8"
    reader = _Reader(run, plain, step_name)
    counts: dict[str, int] = {}
    plans, number = reader.plans, 0
    for block in blocks(encodings.raw_lines(path, encoding)):
        plan = plans.get(skeleton(block[0]))
        if plan is not None and block[-1].endswith(b"\n") and plan.take_block(block, number + 1):
            # Nearly all of a long log: hundreds of lines of one shape.
            _after_block(run, reader, plan, block, number + 1)
            number += len(block)
        else:
            number = _line_by_line(run, reader, block, number, counts)
    for plan in plans.values():
        if plan.taken:
            counts[plan.category] = counts.get(plan.category, 0) + plan.taken
    run.total_lines, run.lines = number, counts
    collect(run, reader.all_tables + list(reader.class_tables.values()))
    return run


def _after_block(run: Run, reader: _Reader, plan: Plan, block: list[bytes], number: int) -> None:
    reader.last_keyed, reader.previous = plan.table, block[-1]
    if plan.stamp is not None:
        _check_time(run, reader, number, block[0][plan.stamp])
        reader.stamp = block[-1][plan.stamp]


def _check_time(run: Run, reader: _Reader, number: int, stamp: bytes) -> None:
    # Stamps without a year fall back once a year, from December to January.
    if stamp < reader.stamp and not (reader.stamp.startswith(b"12") and stamp.startswith(b"01")):
        run.backwards.append((number, reader.stamp.decode("ascii", "replace"), stamp.decode("ascii", "replace")))
    reader.stamp = stamp


def _line_by_line(run: Run, reader: _Reader, block: list[bytes], number: int, counts: dict[str, int]) -> int:
    """Take the lines of `block` one after the other; returns the number of the last line."""
    plans = reader.plans
    for line in block:
        number += 1
        complete = line.endswith(b"\n")
        if b"\x1b" in line:
            line = _ANSI.sub(b"", line)
        plan = plans.get(skeleton(line))
        if plan is not None and (complete or not _shortened(line, reader.previous)):
            tokens = numbers(line)
            if len(tokens) == plan.count and (plan.fixed is None or plan.fixed(tokens) == plan.fixed_values):
                table = plan.table
                try:
                    table.rows.extend(map(float, plan.pick(tokens)))
                except ValueError:
                    del table.rows[len(table.numbers) * len(table.columns):]
                else:
                    table.numbers.append(number)
                    plan.taken += 1
                    reader.last_keyed, reader.previous = table, line
                    if plan.stamp is not None:
                        _check_time(run, reader, number, line[plan.stamp])
                    continue
        elif plan is not None:
            run.cut = True
            counts["cut"] = counts.get("cut", 0) + 1
            continue
        number -= 1
        # A carriage return alone ends a line too: progress bars write many of them.
        for piece in line.rstrip(b"\r\n").split(b"\r"):
            number += 1
            taken = reader.unusual(number, piece, complete)
            counts[taken] = counts.get(taken, 0) + 1
    return number


def _shortened(line: bytes, previous: bytes) -> bool:
    """True when an unended last line closes with a number that has fewer digits than the one before it had: it may have been cut there."""
    tail, before = (re.search(rb"[\d.eE+-]+\W*$", text) for text in (line, previous))
    return bool(tail and before and line[-1:].isdigit() and len(tail.group()) < len(before.group().rstrip()))

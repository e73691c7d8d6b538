"""Reading a text log of any shape, line by line, in memory that grows with its numbers and not with its text."""

from __future__ import annotations

import re
from pathlib import Path

from alignment.log_reader import encoding as encodings
from alignment.log_reader import names
from alignment.log_reader.lines import NUMBER, Template, analyse, step_pattern
from alignment.log_reader.model import Run
from alignment.log_reader.rows import Table, collect

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COCO = re.compile(
    r"^\s*Average (Precision|Recall)\s+\((AP|AR)\) @\[ IoU=([\d.:]+)\s*\|\s*area=\s*(\w+)\s*\|\s*maxDets=\s*(\d+)\s*\] = (-?[\d.]+)"
)
_NUMERIC = re.compile(r"\d")
_SEED = re.compile(r"\bseed\b\D{0,12}(\d+)", re.I)
_PAIRLIKE = re.compile(r"[\w)\"']\s*[:=：]\s*[\"']?" + NUMBER + r"(?![\d:/\-])")
#: What loggers put before a message: names and times in brackets, bare times, the level.
_PREFIX = re.compile(r"^\s*(?:\[[^\]]*\]\s*|\d{4}-\d\d-\d\d[ T][\d:.,]+\s*(?:-\s*)?)*(?:(?:DEBUG|INFO|WARNING|ERROR)\s*(?:[:\-]\s*)+)?")
#: Shapes of line remembered at a time. A log has a handful; the bound keeps a file of unrelated text from slowing down.
MAX_TEMPLATES = 48
UNREAD_SHOWN = 8


class _Reader:
    """State of one pass over a text log."""

    def __init__(self, run: Run, step_name: str | None) -> None:
        self.run = run
        self.step_regex = step_pattern(step_name)
        self.templates: list[Template] = []
        self.tables: list[Table] = []
        self.last_keyed: Table | None = None
        self.class_header: list[str] | None = None
        self.class_tables: dict[tuple, Table] = {}
        self.old: list[Table] = []
        self.stamp = ""

    # -- one line -------------------------------------------------------------------------------------------------------------------
    def unusual(self, number: int, line: str, complete: bool) -> str:
        """Take a line that the current template does not fit. Returns what it was taken for."""
        if not line.strip():
            return "blank"
        for index, template in enumerate(self.templates):
            match = template.regex.fullmatch(line)
            if match:
                self.templates.insert(0, self.templates.pop(index))
                table = self.tables.pop(index)
                self.tables.insert(0, table)
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
        if match is None or not self.remember(template):
            return self.unread(number, line)
        self.take(self.tables[0], number, match.groups())
        return template.category

    def remember(self, template: Template) -> bool:
        if len(self.templates) >= MAX_TEMPLATES:
            # The least recently used shape makes room; its rows stay in `old`.
            self.templates.pop()
            self.run.notes.append("more shapes of line than are remembered at a time") if not self.old else None
            self.old.append(self.tables.pop())
        self.templates.insert(0, template)
        self.tables.insert(0, Table(template.columns, template.phase, template.keyed))
        return True

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
    reader = _Reader(run, step_name)
    counts: dict[str, int] = {}
    number = 0
    template: Template | None = None
    table: Table | None = None
    category, fit, extend, append, where = "", None, None, None, None
    common = 0
    previous = ""
    with encodings.open_text(path, encoding) as file:
        for line in file:
            number += 1
            complete = line[-1] == "\n"
            line = line[:-1] if complete else line
            if "\x1b" in line:
                line = _ANSI.sub("", line)
            if fit is not None:
                match = fit(line)
                if match is not None and (complete or not _shortened(line, previous)):
                    # The hot path: four of five lines of a real log, and all of a long one, end here.
                    extend(map(float, match.groups()))
                    append(number)
                    common += 1
                    if where is not None:
                        stamp = line[where]
                        if stamp < reader.stamp:
                            _backwards(run, number, reader.stamp, stamp)
                        reader.stamp = stamp
                    previous = line
                    continue
            if not complete and fit is not None and fit(line) is not None:
                run.cut = True
                counts["cut"] = counts.get("cut", 0) + 1
                continue
            taken = reader.unusual(number, line, complete)
            counts[taken] = counts.get(taken, 0) + 1
            if reader.templates and reader.templates[0] is not template and reader.templates[0].keyed:
                if common:
                    counts[category] = counts.get(category, 0) + common
                    common = 0
                template, table = reader.templates[0], reader.tables[0]
                category, fit, where = template.category, template.regex.fullmatch, template.stamp
                extend, append = table.rows.extend, table.numbers.append
                reader.last_keyed = table
    if common:
        counts[category] = counts.get(category, 0) + common
    run.total_lines, run.lines = number, counts
    collect(run, reader.tables + reader.old + list(reader.class_tables.values()))
    return run


def _shortened(line: str, previous: str) -> bool:
    """True when an unended last line closes with a number that has fewer digits than the one before it had: it may have been cut there."""
    tail, before = (re.search(NUMBER + r"\W*$", text) for text in (line, previous))
    return bool(tail and before and line[-1:].isalnum() and len(tail.group()) < len(before.group()))


def _backwards(run: Run, number: int, before: str, now: str) -> None:
    # Stamps without a year fall back once a year, from December to January.
    if not (before.startswith("12") and now.startswith("01")):
        run.backwards.append((number, before, now))

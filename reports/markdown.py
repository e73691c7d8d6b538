"""report.md: what a pull request needs to show. Verdict, table of checks, failing rows, metric, speed.

Everything that comes from a result file is escaped for GitHub's Markdown: it can neither open a tag, nor
break a table, nor mention a person.
"""

from __future__ import annotations

import re

from reports import parts, tables
from reports.source import Source, as_dict, as_number
from reports.summary import Summary
from reports.tables import Table

MAX_FAILING = 30
MAX_NOT_RUN = 20
MAX_CELL = 300
_SPECIAL = re.compile(r"([\\`*_\[\]!|~]|^[#+>=-])")


def text(value: str, limit: int | None = MAX_CELL) -> str:
    """`value` as inert Markdown text of at most `limit` characters; None: whole."""
    value = value if limit is None or len(value) <= limit else value[: limit - 1] + "…"
    value = value.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")
    # "www." and "https://" would become links; a zero-width break is invisible and stops that.
    value = re.sub(r"(?i)(www)\.|(https?|ftp):", lambda m: f"{m.group(1) or m.group(2)}&#8203;{m.group()[-1]}", value)
    return _SPECIAL.sub(r"\\\1", value)


def code(value: str) -> str:
    """`value` as a code span that also survives inside a table."""
    value = value if len(value) <= MAX_CELL else value[: MAX_CELL - 1] + "…"
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not value.strip() else ""
    return f"{fence}{pad}{value or '-'}{pad}{fence}".replace("|", "\\|")


def block(value: str) -> str:
    """`value` as a fenced code block whose fence the content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{value}\n{fence}"


def grid(columns: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns (and any "note") are words; cells must be escaped already."""
    rule = ["---" if number < left or name == "note" else "---:" for number, name in enumerate(columns)]
    lines = [columns, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(found: Table) -> str:
    """A shared table, escaped."""
    return grid([text(name) for name in found.columns], [[text(cell) for cell in row] for row in found.rows], found.left)


def _failing(summary: Summary) -> list[str]:
    bad = [row for row in summary.rows if row.bad]
    if not bad:
        return []
    rows = []
    for row in bad[:MAX_FAILING]:
        numbers = [tables.sci(row.values[key]) for key in ("max_abs", "tolerance", "own", "inherited")]
        rows.append([code(row.name), text(row.stage), text(row.why or row.verdict), *numbers])
    lines = [f"### Failing rows ({len(bad)})", "", grid(["tensor", "stage", "reason", "max abs", "bound", "own", "inherited"], rows, 3)]
    if len(bad) > MAX_FAILING:
        lines += ["", f"{len(bad) - MAX_FAILING} more stand in the HTML report."]
    return [*lines, ""]


def render(source: Source, summary: Summary, html_name: str) -> str:
    """The whole file; `html_name` is the link to the page next to it."""
    lines = [f"## Parity report: {summary.label}", "", f"`{summary.line}`", ""]
    if summary.first:
        words = [code(summary.first["name"])] + [text(summary.first[key]) for key in ("stage", "reason", "hint") if summary.first.get(key)]
        lines += [f"First failure: {', '.join(words)}", ""]
    lines += [f"> {text(warning)}" for warning in summary.warnings] + [""] * bool(summary.warnings)
    rows = []
    for check in summary.checks:
        counts = [tables.count(number) for number in (check.compared, check.failed, check.skipped)]
        verdict = f"**{check.label}**" if check.verdict == "fail" else check.label
        rows.append([text(check.title), verdict, *counts, text(check.note)])
    lines += [grid(["check", "verdict", "compared", "failed", "skipped", "note"], rows, 2), ""]
    lines += _failing(summary)
    infer = as_dict(source.parts["infer"].data)
    metric = tables.metric_table(tables.metrics_of(infer))
    if metric:
        lines += ["### COCO numbers", "", table(metric), ""]
    found = as_dict(infer.get("detections"))
    if found:
        kinds = ("matched", "moved", "missing", "extra", "relabelled", "unexplained")
        lines += ["### Detections", "", grid(list(kinds), [[tables.count(as_number(found.get(kind))) for kind in kinds]], 0), ""]
    others = {name: as_dict(part.data) for name, part in source.parts.items()}
    for name, found, note in (("train", parts.steps, parts.steps_note), ("upstream", parts.original, parts.original_note)):
        shown = found(others.get(name, {}))
        if shown:
            lines += [f"### {parts.TITLES[name]}", "", table(shown), "", text(note(others[name]), limit=None), ""]
    fps = as_dict(infer.get("fps"))
    speed = tables.fps_table(fps)
    if speed:
        lines += ["### Speed", "", table(speed), "", text("median (p20–p80); " + tables.fps_note(fps)).rstrip("; "), ""]
    if summary.not_run:
        lines += ["### Not run", ""]
        lines += [f"- {text(what)}: {text(why)}" for what, why in summary.not_run[:MAX_NOT_RUN]]
        left = len(summary.not_run) - MAX_NOT_RUN
        lines += [f"- and {left} more, listed in the HTML report"] if left > 0 else []
        lines += [""]
    commands = tables.commands(source)
    if commands:
        lines += ["### Repeat it", "", block(commands[0][1]), ""]
    return "\n".join([*lines, f"[Full report]({html_name})", ""])

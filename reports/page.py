"""The self-contained page: gathers what the template shows, and renders it with escaping on.

Only text of this package (style, script, plots drawn here) is marked as safe; whatever comes from a
result file is escaped by the template engine. A content policy in the page forbids every outside resource.
"""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from reports import infer_plots, infer_tables, parts, plots, tables
from reports.pictures import FIRST_SCORE, Picture, build_pictures
from reports.rows import STAGE_ORDER, Row
from reports.source import Source, as_dict, as_list, as_number, as_text
from reports.structure import build_tree, totals
from reports.summary import Summary
from reports.words import ZH

TEMPLATES = Path(__file__).parent / "templates"
#: Passing rows beyond this are left out of the page (and counted there); failing rows never are, up to the second number.
MAX_ROWS, MAX_BAD_ROWS = 1500, 3000
MAX_DIFFERENCES = 500
MAX_NOT_RUN = 300
ENVIRONMENT = (
    "versions", "device", "cpu", "machine", "platform", "threads", "flags", "environment", "seed", "seeds", "config", "coverage",
    "constant_tensors", "peak_memory_mb", "input", "images", "source", "sources",
)  # fmt: skip
BARE = ("versions", "environment", "machine", "platform")
DETECTION_COUNTS = ("matched", "moved", "missing", "extra", "relabelled", "unexplained")


def translate(text: str) -> Markup:
    """A label with its Chinese twin in an attribute, for the language button; plain text if there is none."""
    known = ZH.get(text)
    return Markup('<span data-zh="{}">{}</span>').format(known, text) if known else escape(text)


def environment() -> jinja2.Environment:
    """The template engine: everything escaped, unknown names are errors."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.globals["t"] = translate
    found.filters.update(sci=tables.sci, shade=tables.shade, count=tables.count)
    return found


def stage_groups(rows: list[Row]) -> list[dict]:
    """Rows by stage, in the order of the pipeline, with counts; at most MAX_ROWS passing rows each."""

    def order(row: Row) -> int:
        return STAGE_ORDER.index(row.stage) if row.stage in STAGE_ORDER else len(STAGE_ORDER)

    groups = []
    rows = [row for row in rows if row.bad or row.part != "structure"]  # the tree shows those that agree
    ranked = sorted(rows, key=lambda row: (order(row), row.stage))
    for stage, members in groupby(ranked, key=lambda row: row.stage):
        members = list(members)
        room, bad_room, shown = MAX_ROWS, MAX_BAD_ROWS, []
        for row in members:
            if row.bad and bad_room > 0:
                bad_room -= 1
                shown.append(row)
            elif not row.bad and room > 0:
                room -= 1
                shown.append(row)
        group = {"stage": stage, "rows": shown, "total": len(members), "hidden": len(members) - len(shown)}
        group["bad"] = sum(row.bad for row in members)
        groups.append(group)
    return groups


def inference(infer: dict) -> dict | None:
    """Counts, largest differences and the list of differences; None when there is nothing about detections."""
    found = as_dict(infer.get("detections"))
    if not found:
        return None
    listed = [tables.differences(infer, part) for part in ("detections", "weights_change")]
    hidden = [max(0, len(one.rows) - MAX_DIFFERENCES) for one in listed]
    for one in listed:
        one.rows, one.marks = one.rows[:MAX_DIFFERENCES], one.marks[:MAX_DIFFERENCES]
    counts = [(name, as_number(found.get(name))) for name in DETECTION_COUNTS]
    largest = [
        ("largest box difference", f"{tables.plain(as_number(found.get('max_box_diff')))} px"),
        ("largest score difference", tables.sci(as_number(found.get("max_score_diff")))),
    ]
    floor = as_dict(found.get("floor"))
    if floor:
        text = f"{tables.sci(as_number(floor.get('box')))} px / {tables.sci(as_number(floor.get('score')))}"
        largest.append(("floor", text))
    return {"counts": counts, "largest": largest, "tables": list(zip(("Differences", "Made by the rounded weights"), listed, hidden))}


def depth_plots(rows: list[Row]) -> list[tuple[str, Markup]]:
    """Error-by-depth plots: one of the forward pass with what follows it, one of the backward pass."""
    found = []
    for title, stages in (("Errors by depth", ("data", "forward", "decode", "post")), ("Errors by depth, backward", ("backward",))):
        svg = plots.error_by_depth([row for row in rows if row.stage in stages], salt=stages[-1])
        if svg:
            found.append((title, Markup(svg)))
    return found


def divergence(layers: dict, said: str) -> dict | None:
    """The first divergence as `alignment.locate` found it: name, what it says beyond `said`, and possible causes."""
    found = as_dict(layers.get("first_divergence"))
    if not found:
        return None
    texts = [as_text(found.get("kind")), as_text(found.get("hint") or found.get("reason")), as_text(found.get("note"))]
    causes = [as_text(cause) for cause in as_list(found.get("causes"))]
    return {"name": as_text(found.get("name")), "text": "; ".join(text for text in texts if text and text != said), "causes": causes[:20]}


def first_score(shots: list[Picture]) -> float:
    """Where the score slider starts: at FIRST_SCORE, or at 0 when that would hide every box."""
    scores = [box.score for shot in shots for _, found in shot.sides for box in found]
    return FIRST_SCORE if any(score >= FIRST_SCORE for score in scores) or not scores else 0.0


def first_row(summary: Summary) -> Row | None:
    """The row behind the first failure, if it is one of the compared tensors."""
    anchor = summary.first.get("anchor")
    return next((row for row in summary.rows if row.anchor == anchor), None)


def context(source: Source, summary: Summary) -> dict:
    """Everything the template needs, as text, numbers and safe markup."""
    data = {name: part.data for name, part in source.parts.items() if part.data is not None}
    infer, structure = data.get("infer", {}), data.get("structure", {})
    metrics, fps = tables.metrics_of(infer), as_dict(infer.get("fps"))
    layer_rows = [row for row in summary.rows if row.part == "layers"]
    groups, bars = stage_groups(summary.rows), plots.speed_bars(fps)
    tree, shown, hidden = build_tree(structure)
    shots, shots_left = build_pictures(source.folder, infer)
    times, total = tables.durations(source)
    top = source.top.data or {}
    commands = tables.commands(source)
    return {
        "summary": summary,
        "subject": next((as_text(top[key]) for key in ("title", "model", "config") if top.get(key)), ""),
        "created": as_text(top.get("created")) or datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "total": total, "times": times, "first_row": first_row(summary), "divergence": divergence(data.get("layers", {}), summary.first.get("hint", "")),
        "groups": groups,
        "stages": [group["stage"] for group in groups],
        "matches": list(dict.fromkeys(row.match for row in summary.rows if row.match)),
        "has_layers": bool(layer_rows),
        "depth_plots": depth_plots(layer_rows), "speed_plot": Markup(bars) if bars else "",
        "tree": tree, "tree_rows": shown, "tree_hidden": hidden, "tree_totals": totals(structure),
        "inference": inference(infer), "pictures": shots, "pictures_left": shots_left, "first_score": first_score(shots),
        "causes": [(title, infer_tables.cause_table(as_dict(infer.get(key)))) for title, key in (("Causes", "detections"), ("Made by the rounded weights", "weights_change"))],
        "precision_plot": Markup(infer_plots.precision_pairs(infer) or ""), "class_plot": Markup(infer_plots.class_heat(infer) or ""),
        "intervals": infer_tables.interval_table(as_dict(infer.get("bootstrap"))), "intervals_note": infer_tables.interval_note(as_dict(infer.get("bootstrap"))),
        "train": parts.steps(data.get("train", {})), "train_note": parts.steps_note(data.get("train", {})),
        "original": parts.original(data.get("upstream", {})), "original_note": parts.original_note(data.get("upstream", {})),
        "metric": tables.metric_table(metrics), "classes": tables.class_table(metrics),
        "speed": tables.fps_table(fps), "speed_note": tables.fps_note(fps),
        "environment": tables.settings(source, ENVIRONMENT, BARE), "hashes": tables.settings(source, ("hashes", "commits"), ("hashes",)),
        "commands": commands,
        "not_run": summary.not_run[:MAX_NOT_RUN], "not_run_left": max(0, len(summary.not_run) - MAX_NOT_RUN),
        "css": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "js": Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
    }  # fmt: skip


def render(source: Source, summary: Summary) -> str:
    """The whole page as text."""
    return environment().get_template("report.html.j2").render(context(source, summary))

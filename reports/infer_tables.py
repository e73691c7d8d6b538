"""Tables of an inference result beside the metric: what the differences of detections are due to, and the intervals of COCO's numbers over images."""

from __future__ import annotations

from reports.source import as_dict, as_list, as_number, as_text
from reports.tables import Table, count, sci, signed


def cause_rows(data: dict) -> list[list]:
    """(cause, detections that one side lacks or has under another class, pairs that moved, largest margin) of every cause, unexplained first."""
    found: dict[str, list[dict]] = {}
    for one in as_list(data.get("differences")):
        found.setdefault(as_text(as_dict(one).get("cause")) or "unexplained", []).append(as_dict(one))
    rows = []
    for cause, some in sorted(found.items(), key=lambda pair: (pair[0] != "unexplained", -len(pair[1]))):
        moved = sum(one.get("kind") == "moved" for one in some)
        margins = [abs(number) for number in (as_number(one.get("margin")) for one in some) if number is not None]
        rows.append([cause, len(some) - moved, moved, max(margins, default=None)])
    return rows


CAUSE_COLUMNS = ("cause", "on one side only", "pairs that moved", "largest margin")


def cause_table(data: dict) -> Table | None:
    """The causes of all differences with their counts; None without differences."""
    rows = cause_rows(data)
    cells = [[cause, count(lone), count(moved), sci(margin)] for cause, lone, moved, margin in rows]
    return Table(list(CAUSE_COLUMNS), cells, ["bad" if row[0] == "unexplained" else "" for row in rows]) if rows else None


def interval_table(bootstrap: dict) -> Table | None:
    """The difference of every COCO number with its interval over images, and the images that would tell it from 0."""
    rows = {name: as_dict(one) for name, one in as_dict(bootstrap.get("metrics")).items()}
    table = Table(["number", "difference", "low", "high", "images that would decide"], [], ["odd" if one.get("decided") else "" for one in rows.values()])
    for name, one in rows.items():
        table.rows.append([name, *(signed(as_number(one.get(key))) for key in ("delta", "low", "high")), count(as_number(one.get("images_needed")))])
    return table if rows else None


def interval_note(bootstrap: dict) -> str:
    """What the intervals are, in one line."""
    level = as_number(bootstrap.get("level"))
    return "" if level is None else f"{level:.0%} intervals: {as_text(bootstrap.get('resamples'))} draws of {as_text(bootstrap.get('images'))} images, the same for both sides"

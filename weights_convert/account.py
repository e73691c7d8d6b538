"""The account of a conversion: one row for every key on either side, printed short or whole, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

STATUSES = ("consistent", "renamed", "value_converted", "dropped")


@dataclass(frozen=True)
class Row:
    """One key. ``source``/``target`` are its names on the two sides; ``target`` is None for what was dropped.

    ``shape`` and ``dtype`` are those of the source (None for entries that are no tensors). ``status`` is one of
    STATUSES: same name and value; other name; value stored in another dtype; left out. ``reason`` is never empty.
    """

    source: str
    target: str | None
    status: str
    shape: tuple[int, ...] | None
    dtype: str | None
    reason: str


def retarget(rows: Iterable[Row], prefix: str) -> list[Row]:
    """Return the rows for a destination that puts ``prefix`` before every name (Lightning's "model.")."""
    result = []
    for row in rows:
        if row.target is not None and prefix:
            target = prefix + row.target
            if row.status == "value_converted":
                row = replace(row, target=target, reason=f"{row.reason}; prefix '{prefix}' added")
            elif target == row.source:
                row = replace(row, target=target, status="consistent", reason="same name on both sides")
            else:
                before = [] if row.status == "consistent" else [row.reason]
                reason = "; ".join([*before, f"prefix '{prefix}' added"])
                row = replace(row, target=target, status="renamed", reason=reason)
        result.append(row)
    return result


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """Number of rows of each status, in the order of STATUSES, zeros included."""
    found = Counter(row.status for row in rows)
    return {status: found[status] for status in STATUSES}


def to_json(rows: Iterable[Row], **about: object) -> bytes:
    """The whole account as JSON: ``schema_version``, what ``about`` says, ``counts``, ``rows``."""
    rows = list(rows)
    document = {"schema_version": 1, **about, "counts": counts(rows), "rows": [asdict(row) for row in rows]}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def show(rows: Iterable[Row], about: Mapping[str, str], notes: Iterable[str], verbose: bool) -> None:
    """Print summary and table. Short: rows with the same status and reason share a line, identical ones are counted."""
    # Imported here so that the Python interface needs NumPy alone.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    # Piped output is read by programs and people alike: no wrapping at 80 columns there.
    console = Console(width=None if Console().is_terminal else 160, highlight=False, markup=False)
    for key, value in about.items():
        console.print(f"{key}: {value}", soft_wrap=True)
    lines = [(row.source, row) for row in rows] if verbose else _grouped(rows)
    if lines:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("source", "target", "status", "shape", "dtype", "reason"):
            table.add_column(column, overflow="fold")
        for source, row in lines:
            shape = "" if row.shape is None else str(row.shape)
            cells = (source, row.target or "", row.status, shape, row.dtype or "", row.reason)
            # Text, not str: names come from the file and must not be read as markup.
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    tally = ", ".join(f"{number} {status}" for status, number in counts(rows).items())
    console.print(f"{len(rows)} keys: {tally}", soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)


def _grouped(rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """First row of every (status, reason) except the consistent ones, with the number of rows it stands for."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.status != "consistent":
            groups.setdefault((row.status, row.reason), []).append(row)
    lines = []
    for members in groups.values():
        more = f" (and {len(members) - 1} more)" if len(members) > 1 else ""
        lines.append((members[0].source + more, members[0]))
    return lines

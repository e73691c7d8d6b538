"""Tables of the READMEs and of pages in docs/, generated from the committed measurements in reports/results/.

A README marks where a table goes:

    <!-- table: inference.json metrics -->
    ... replaced ...
    <!-- /table -->

The first word names a file of reports/results/, the second one of its tables:

- `tables.NAME` of the file when it brings its own: `{"columns": [...], "rows": [[...], ...], "note": "..."}`, cells being
  text or numbers; `columns_zh` and `note_zh` serve README.zh-CN.md;
- `metrics`, `fps`, `classes` for a result.json of `alignment.infer` (also below an `infer` or `result` entry);
- `gpu` for a file of `python -m jt_nanodet bench gpu`.

`python -m reports.readme_tables` rewrites the READMEs; `--check` only says whether they are up to date (exit 1 if not).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

from jt_nanodet.errors import UserError, nearest, run_cli
from reports import markdown, save_text, tables
from reports.source import Part, as_dict, as_list, as_number, as_text, read_json
from reports.words import ZH

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md", "docs/statistics.md", "docs/method.md", "docs/training.md", "docs/training-speed.md", "docs/performance.md",
           "docs/operators.md", "docs/atlas.md", "docs/pairs.md")
_MARK = re.compile(r"<!-- table: (?P<file>\S+) (?P<name>\S+) -->\n(?P<body>.*?)<!-- /table -->", re.S)
_OPEN = re.compile(r"<!-- table:")
#: Tables that are made from the fields of a result file.
DERIVED: dict[str, Callable[[dict], tables.Table | None]] = {
    "metrics": lambda data: tables.metric_table(tables.metrics_of(data)),
    "classes": lambda data: tables.class_table(as_dict(data.get("metrics"))),
    "fps": lambda data: tables.fps_table(as_dict(data.get("fps"))),
    "gpu": tables.gpu_table,
}
NOTES: dict[str, Callable[[dict], str]] = {"fps": lambda data: tables.fps_note(as_dict(data.get("fps"))), "gpu": tables.gpu_note}


def cell_text(value: object) -> str:
    """A cell as written: text as it is, whole numbers plain, other numbers with four significant digits."""
    if value is None or isinstance(value, (bool, str)):
        return as_text(value) or tables.NONE
    number = as_number(value)
    if number is None:
        return as_text(value)
    if math.isfinite(number) and abs(number) < 1e15 and number == int(number):
        return f"{int(number):,}"
    return tables.sci(number) if abs(number) < 1e-3 else f"{number:.4g}"


def own_table(entry: dict, chinese: bool) -> tuple[tables.Table, str]:
    """A table that a results file brings along, and its note."""
    columns = as_list(entry.get("columns_zh")) if chinese else []
    columns = [as_text(name) for name in columns or as_list(entry.get("columns"))]
    rows = [[cell_text(cell) for cell in as_list(row)] for row in as_list(entry.get("rows"))]
    left = next((at for at in range(len(columns)) if all(_is_number(row, at) for row in as_list(entry.get("rows")))), len(columns))
    note = as_text((entry.get("note_zh") if chinese else None) or entry.get("note"))
    return tables.Table(columns, rows, [""] * len(rows), max(1, left)), note


def _is_number(row: object, at: int) -> bool:
    cells = as_list(row)
    return at < len(cells) and not isinstance(cells[at], str) and as_number(cells[at]) is not None


def build(results: Path, file: str, name: str, chinese: bool) -> str:
    """The Markdown that belongs between two marks; UserError when the file or table is not there."""
    part: Part = read_json(results / file, file, f"reports/results/{file}")
    if part.data is None or Path(file).name != file:
        known = [path.name for path in results.glob("*.json")]
        hint = nearest(file, known)
        raise UserError(
            f"{part.problem or file + ' is not a plain file name'}; correct the mark in the README"
            + (f" (did you mean {hint}?)" if hint else " or measure it first")
        )
    own = as_dict(part.data.get("tables"))
    if name in own:
        table, note = own_table(as_dict(own[name]), chinese)
    else:
        homes = [part.data, as_dict(part.data.get("infer")), as_dict(part.data.get("result"))]
        found = next((t for t in (DERIVED[name](home) for home in homes) if t), None) if name in DERIVED else None
        if found is None:
            names = [*own, *DERIVED]
            raise UserError(f"reports/results/{file} has no table {name!r}; name one of {', '.join(names)} in the README's mark")
        table, note = found, NOTES[name](homes[0]) if name in NOTES else ""
        if chinese:
            table.columns = [ZH.get(column, column) for column in table.columns]
    if not table.columns or not table.rows or any(len(row) != len(table.columns) for row in table.rows):
        raise UserError(f"table {name!r} of reports/results/{file} is empty or ragged; measure it again")
    return markdown.table(table) + (f"\n\n{markdown.text(note, limit=None)}" if note else "")


def update(text: str, results: Path, chinese: bool) -> str:
    """`text` of a README with every marked table made anew."""
    if len(_OPEN.findall(text)) != len(_MARK.findall(text)):
        raise UserError("a `<!-- table: FILE NAME -->` mark is not closed; put `<!-- /table -->` on the line after the table")

    def fill(match: re.Match) -> str:
        body = build(results, match["file"], match["name"], chinese)
        return f"<!-- table: {match['file']} {match['name']} -->\n{body}\n<!-- /table -->"

    return _MARK.sub(fill, text)


def stale(root: Path = ROOT) -> list[Path]:
    """READMEs whose tables are not those of the results."""
    return [path for path, old, new in _all(root) if old != new]


def _all(root: Path) -> list[tuple[Path, str, str]]:
    found = []
    for name in READMES:
        path = root / name
        if path.is_file():
            old = path.read_text(encoding="utf-8")
            found.append((path, old, update(old, root / "reports" / "results", "zh" in name)))
    return found


def main(argv: list[str]) -> int:
    """Rewrite the READMEs, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(prog="python -m reports.readme_tables", description="Fill the tables of the READMEs from reports/results/*.json.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a table is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository root (default: this one)")
    args = parser.parse_args(argv)
    changed = [(path, new) for path, old, new in _all(args.root) if old != new]
    for path, new in changed:
        if not args.check:
            save_text(path, new)
        print(f"{path.name}: {'out of date; run `python -m reports.readme_tables`' if args.check else 'updated'}")
    if not changed:
        print("all tables are up to date")
    return 1 if args.check and changed else 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

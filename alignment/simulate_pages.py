"""The tables of ``docs/statistics.md``, written from the numbers of ``python -m alignment.simulate``."""

from __future__ import annotations

import os
from pathlib import Path

from jt_nanodet.errors import UserError

BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"


def tables(document: dict) -> str:
    """The Markdown between the markers of ``docs/statistics.md``."""
    lines = [f"{document['repeats']} pairs of sides a row, {2 * document['repeats']} where intervals are checked; noise of `{document['log']}` ({document['lines']} Train lines). A rate of 5 % is known to "
             f"± {document['resolution']:.1%} (95 %); the last column is the 95 % interval of the promised rate.", "",
             "| runs a side | true difference | equivalent | different | cannot tell | promise | known to |", "|---|---|---|---|---|---|---|"]
    for row in document["rows"]:
        promise = f"{row['limit'][0]} {row['limit'][1]} {row['limit'][2]:.0%}: {'kept' if row['kept'] else 'BROKEN'}" if row["limit"] else ""
        known = f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}" if row["limit"] else ""
        lines.append(f"| {row['runs_a_side']} | {row['truth']} | {row['equivalent']:.1%} | {row['different']:.1%} | {row['cannot_tell']:.1%} | {promise} | {known} |")
    lines += ["", "| coverage of the 95 % intervals | total loss | losses, lowest and highest | mAP |", "|---|---|---|---|"]
    for name, row in document["coverage"].items():
        parts = [v for k, v in row.items() if k.startswith("train/") and "total" not in k]
        lines.append(f"| {name} | {row['train/total loss, whole']:.1%} | {min(parts):.1%} to {max(parts):.1%} | {row['val/mAP, last third of the evaluations']:.1%} |")
    lines += ["", "| altered copy of the real log | verdict | found with it |", "|---|---|---|"]
    lines += [f"| {row['name']} | {row['verdict']}{'' if row['right'] else ' (WRONG)'} | {', '.join(row['codes']) or '–'} |" for row in document["alterations"]]
    return "\n".join(lines)


def write_docs(path: Path, document: dict) -> None:
    """Replace the part of `path` between the markers. UserError when they are not there."""
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise UserError(f"{path} has no lines {BEGIN} and {END}; add them where the tables shall stand.")
    head, rest = text.split(BEGIN, 1)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(head + BEGIN + "\n\n" + tables(document) + "\n\n" + END + rest.split(END, 1)[1], encoding="utf-8")
    os.replace(partial, path)

"""The atlas as a recording (JSON), a Markdown table and an HTML page; each finding with the lines that show it again."""

from __future__ import annotations

import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

from alignment.atlas.entry import PLAIN, Entry
from alignment.atlas.judge import CRASHES, DIFFERS, EQUAL, MISSING, ORDER, UNCLEAR, Finding, Judged
from alignment.atlas.table import FAMILIES
from jt_nanodet.errors import UserError
from reports import save_text

SCHEMA_VERSION = 1
OUTCOMES = (EQUAL, DIFFERS, MISSING, CRASHES, UNCLEAR)
#: Longest sentence in a table; the whole one is in the recording.
TEXT = 110
PREAMBLE = ["from jt_nanodet import runtime; runtime.setup()", "import jittor as jt, numpy as np; from jittor import nn, init, optim"]


def reproduction(entry: Entry, finding: Finding) -> str:
    """Python lines that show a finding on Jittor's side; the comment says what PyTorch gives."""
    lines = list(entry.drawing(finding.case))
    names = list(entry.inputs)
    if names:
        lines.append(f"{', '.join(names)} = {', '.join(f'jt.array({name})' for name in names)}")
    if finding.case == "strided":
        lines += [f"{name} = {name}.permute(*range({name}.ndim - 1, -1, -1))" for name in entry.changed()]
    *before, last = [line for line in entry.jittor.splitlines() if line.strip()]
    lines += before
    if finding.part.startswith("gradient "):
        wanted = finding.part.removeprefix("gradient ")
        lines += [f"y = {last}", "y = y[0] if isinstance(y, (tuple, list)) else y", "w = np.random.RandomState(7).randn(*y.shape).astype('float32')",
                  f"print(jt.grad((y * jt.array(w)).sum(), {wanted}))"]
    else:
        lines.append(f"print({last})")
    return "\n".join([*lines, f"# {finding.text}"])


def recording(judged: list[Judged], versions: dict[str, str], date: str, machine: str) -> dict[str, Any]:
    """The compact document: an entry a row, and the tables for the docs."""
    found = [_entry(one) for one in judged]
    counts = Counter(one["outcome"] for one in found)
    document = {"schema_version": SCHEMA_VERSION, "command": "python -m alignment.ops", "date": date, "machine": machine, "versions": versions,
                "cases": sum(one.cases for one in judged), "counts": {name: counts.get(name, 0) for name in OUTCOMES}, "entries": found}
    document["tables"] = {"atlas": _table(document), "findings": _findings(document), "counts": _counts(document)}
    return document


def _entry(judged: Judged) -> dict[str, Any]:
    entry, first = judged.entry, judged.first
    kept = {"name": entry.name, "family": entry.family, "jittor": entry.jittor, "outcome": judged.outcome, "forward": judged.forward, "gradient": judged.gradient,
            "edges": judged.edges, "cases": judged.cases}
    if first:
        kept["findings"] = [{"case": f.case, "part": f.part, "outcome": f.outcome, "how": f.how, "text": f.text} for f in judged.findings]
        kept["reproduction"] = reproduction(entry, first)
    return kept


def about(document: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return f"{document['date']}; {versions}; {document['machine']}"


def counted(document: dict[str, Any]) -> str:
    """How many entries have which outcome, in one line."""
    parts = ", ".join(f"{count} {name}" for name, count in document["counts"].items() if count)
    return f"{len(document['entries'])} operators, {document['cases']} cases: {parts}"


def _short(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1].rstrip() + "…"


def what(entry: dict[str, Any]) -> str:
    """The finding to show, and which edges have one."""
    found = entry.get("findings", [])
    if not found:
        return ""
    plain = [f for f in found if f["case"] in PLAIN] or found
    worst = max(plain, key=lambda f: OUTCOMES.index(f["outcome"]) if f["outcome"] != UNCLEAR else 0)
    edges = list(dict.fromkeys(f["case"] for f in found if f["case"] not in PLAIN))
    also = f" (edges: {', '.join(edges)})" if edges else ""
    return f"{worst['part']}: {_short(worst['text'])}{also}"


def _table(document: dict[str, Any]) -> dict[str, Any]:
    rows = [[FAMILIES[one["family"]], one["name"], one["forward"], one["gradient"] or "–", one["edges"] or "–"] for one in document["entries"]]
    return {"columns": ["family", "operator", "forward", "gradient", "edge inputs"], "rows": rows, "note": f"{counted(document)}. {about(document)}"}


def _findings(document: dict[str, Any]) -> dict[str, Any]:
    rows = [[one["name"], one["outcome"], what(one)] for one in document["entries"] if one["outcome"] != EQUAL]
    return {"columns": ["operator", "outcome", "what Jittor gives"], "rows": rows or [["none", "", ""]], "note": about(document)}


def _counts(document: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for family, title in FAMILIES.items():
        of = Counter(one["outcome"] for one in document["entries"] if one["family"] == family)
        if of:
            rows.append([title, sum(of.values()), *(of.get(name, 0) for name in OUTCOMES)])
    return {"columns": ["family", "operators", *OUTCOMES], "rows": rows, "note": f"{counted(document)}. {about(document)}"}


def read_document(path: Path) -> dict[str, Any]:
    """The recording at `path`. UserError when it cannot be read as one."""
    again = f"make it with \"python -m alignment.ops --output out --record {path}\""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(one[key], str) for one in document["entries"] for key in ("family", "name", "jittor", "outcome", "forward", "gradient"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no recording of the atlas ({error}): {again}") from None
    if document.get("schema_version") != SCHEMA_VERSION or not document["entries"] or not whole:
        raise UserError(f"{path} is a recording of another version, or empty: {again}")
    return document


def read_recording(path: Path) -> dict[str, dict[str, str]]:
    """``family/name`` to its `outcome`, and to the outcome of its `plain` inputs alone. UserError when it cannot be read as a recording."""
    return {f"{one['family']}/{one['name']}": {"outcome": one["outcome"], "plain": max(one["forward"], one["gradient"], key=ORDER.index)} for one in read_document(path)["entries"]}


def write(folder: Path, document: dict[str, Any]) -> None:
    """``atlas.md`` and ``atlas.html``."""
    save_text(folder / "atlas.md", markdown(document))
    save_text(folder / "atlas.html", page(document))


def markdown(document: dict[str, Any]) -> str:
    def cell(text: Any) -> str:
        return str(text).replace("|", "\\|").replace("\n", " ")

    lines = ["# Jittor's operators against PyTorch's", "", f"{counted(document)}.", "", about(document), ""]
    table = document["tables"]["findings"]
    lines += ["| " + " | ".join(table["columns"]) + " |", "|---" * len(table["columns"]) + "|"]
    lines += ["| " + " | ".join(cell(one) for one in row) + " |" for row in table["rows"]]
    table = document["tables"]["atlas"]
    lines += ["", "| " + " | ".join(table["columns"]) + " |", "|---" * len(table["columns"]) + "|"]
    lines += ["| " + " | ".join(cell(one) for one in row) + " |" for row in table["rows"]]
    return "\n".join(lines) + "\n"


STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}pre{white-space:pre-wrap;background:#f5f5f5;padding:.6rem}
.equal{color:#1b7f3b}.differs,.crashes{color:#b00020}.missing,.unclear{color:#8a6d00}summary{cursor:pointer}"""


def page(document: dict[str, Any]) -> str:
    """One self-contained HTML page."""
    escape = html.escape
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Jittor's operators</title><style>{STYLE}</style>",
             f"<h1>Jittor's operators against PyTorch's</h1><p>{escape(counted(document))}.<p>{escape(about(document))}"]
    for family, title in FAMILIES.items():
        of = [one for one in document["entries"] if one["family"] == family]
        if not of:
            continue
        parts.append(f"<h2>{escape(title)}</h2><table><tr><th>operator<th>forward<th>gradient<th>edge inputs<th>what differs</tr>")
        for one in of:
            cells = "".join(f"<td class='{one[key]}'>{one[key] or '–'}" for key in ("forward", "gradient", "edges"))
            parts.append(f"<tr><td>{escape(one['name'])}{cells}<td>{_details(one)}</tr>")
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def _details(entry: dict[str, Any]) -> str:
    found = entry.get("findings", [])
    if not found:
        return ""
    items = "".join(f"<li>{html.escape(f['case'])}, {html.escape(f['part'])}: {html.escape(f['text'])}" for f in found)
    lines = html.escape("\n".join([*PREAMBLE, entry["reproduction"]]))
    return f"<details><summary>{html.escape(_short(found[0]['text']))}</summary><ul>{items}</ul><pre>{lines}</pre></details>"

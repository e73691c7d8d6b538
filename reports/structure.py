"""The two module trees as one: rows of structure/result.json put into nested nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from reports.source import as_dict, as_list, as_number, as_text

#: More rows than any sensible model has; the rest is counted, so the page stays small.
MAX_ROWS = 4000
#: Deeper than this the tree is shown flat: a template recursion must not be driven by the input.
MAX_DEPTH = 24


@dataclass
class Node:
    """One module on one or both sides; `bad` counts differing nodes in it and below it."""

    name: str
    ref: str = ""
    cand: str = ""
    status: str = ""
    change: str = ""
    params: str = ""
    bad: int = 0
    children: dict[str, Node] = field(default_factory=dict)


def row_text(row: dict) -> str:
    """What differs in a row, then its notes. Read are `differences` (list of field, ref, cand) and `hyper_diff`."""
    pieces = []
    for item in as_list(row.get("differences")):
        item = as_dict(item)
        pieces.append(f"{as_text(item.get('field'))}: {as_text(item.get('ref'))} → {as_text(item.get('cand'))}")
    pieces.append(change_text(row.get("hyper_diff")))
    pieces += [as_text(note) for note in as_list(row.get("notes"))]
    return "; ".join(piece for piece in pieces if piece)


def change_text(value: object) -> str:
    """A hyper-parameter difference as text: `eps: 1e-05 → 0.001; groups: 1 → 2`."""
    if isinstance(value, dict):
        pieces = []
        for key, item in value.items():
            if isinstance(item, dict) and set(item) >= {"ref", "cand"}:
                item = [item["ref"], item["cand"]]
            pair = isinstance(item, list) and len(item) == 2
            pieces.append(f"{key}: {as_text(item[0])} → {as_text(item[1])}" if pair else f"{key}: {as_text(item)}")
        return "; ".join(pieces)
    if isinstance(value, list):
        return "; ".join(as_text(item) for item in value)
    return as_text(value)


def content(data: dict) -> dict:
    """Where rows and totals stand: at the top of the result, or else in its `structure` entry."""
    return data if "rows" in data or "totals" in data else as_dict(data.get("structure"))


def build_tree(data: dict) -> tuple[Node, int, int]:
    """Return (root, rows shown, rows left out) for the content of a structure result."""
    root = Node("")
    data = content(data)
    rows = [row for row in as_list(data.get("rows")) if isinstance(row, dict)]
    for row in rows[:MAX_ROWS]:
        path = as_text(row.get("path") or row.get("path_ref") or row.get("path_cand"))
        steps = path.split(".") if path else []
        if len(steps) > MAX_DEPTH:
            steps = [*steps[: MAX_DEPTH - 1], ".".join(steps[MAX_DEPTH - 1 :])]
        status = as_text(row.get("status")) or "match"
        chain = [root]
        for step in steps:
            chain.append(chain[-1].children.setdefault(step, Node(step)))
        node = chain[-1]
        node.ref, node.cand = as_text(row.get("type_ref")), as_text(row.get("type_cand"))
        node.status, node.change = status, row_text(row)
        other = as_text(row.get("path_cand"))
        if other and other != path:
            node.cand = f"{node.cand} ({other})"
        params = row.get("params")
        if "parameters_ref" in row:
            params = [row["parameters_ref"], row.get("parameters_cand")]
        if isinstance(params, list):
            node.params = _both(params)
        elif isinstance(params, dict):
            node.params = _both(list(params.values()))
        else:
            node.params = _both([params])
        if status != "match":
            for item in chain:
                item.bad += 1
    return root, min(len(rows), MAX_ROWS), max(0, len(rows) - MAX_ROWS)


def _both(values: list) -> str:
    """Parameter counts of both sides: one number where they agree, nothing where both have none."""
    return " / ".join(dict.fromkeys(_number(item) for item in values)) if any(values) else ""


def _number(value: object) -> str:
    number = as_number(value)
    if not value:
        return "" if value is None else as_text(value)
    return as_text(value) if number is None or number != number or abs(number) > 1e15 else f"{int(number):,}"


def totals(data: dict) -> list[tuple[str, str, str, bool | None]]:
    """(what, PyTorch, Jittor, equal) for the parameter and FLOP totals; equal is None where one number serves both."""
    found = as_dict(content(data).get("totals"))
    sides = [as_dict(found.get(side)) for side in ("pytorch", "jittor")]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    pairs = [(key, sides[0].get(key), sides[1].get(key)) for key in keys]
    rows = [(key, _number(ref), _number(cand), ref == cand) for key, ref, cand in pairs]
    single = [(key, value) for key, value in found.items() if as_number(value) is not None]
    return rows + [(key.replace("_", " "), _number(value), "", None) for key, value in single]

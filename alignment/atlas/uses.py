"""Which of Jittor's operators a port uses, and which of them the recorded atlas knows to differ. Reads source text; starts no framework."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.atlas.entry import names_in, operator_name
from alignment.atlas.judge import EQUAL, ORDER, UNCLEAR
from jt_nanodet.errors import UserError

#: A comment with these words is a reason: the difference is known at this place.
REASON = "# differs:"
#: What is no operator although it is written like one: how code is built, run and differentiated.
MACHINERY = frozenset({
    "jt.nn", "jt.init", "jt.optim", "jt.lr_scheduler", "jt.Function", "jt.Module", "jt.Var", "jt.code", "jt.flag_scope", "jt.flags", "jt.gc", "jt.grad", "jt.in_mpi", "jt.no_grad", "jt.profile_scope", "jt.rank", "jt.set_seed", "jt.sync",
    "jt.sync_all", "jt.world_size", "nn.Module", "nn.ModuleList", "nn.Sequential",
})


@dataclass(frozen=True)
class Use:
    """One place in a port. `reason`: the text of its ``# differs:`` comment, or ""."""

    file: str
    line: int
    name: str
    reason: str


def marked(document: dict[str, Any]) -> tuple[dict[str, list[dict[str, Any]]], set[str]]:
    """From a recording: names of Jittor's to the entries in which they are not equal, and every name that the atlas tries.

    An entry uses helpers beside its operator. It speaks about the names that are in no equal entry; where there are none, about those that are in no equal
    entry of another family, else about all; and of these about its functions, or where it has none about its methods. What is `unclear` is not known to differ.
    """
    named = [(one, names_in(one["jittor"]) - MACHINERY) for one in document["entries"]]
    sound: dict[str, set[str]] = defaultdict(set)
    for one, names in named:
        for name in names if one["outcome"] == EQUAL else ():
            sound[name].add(one["family"])
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one, names in named:
        if one["outcome"] not in (EQUAL, UNCLEAR):
            spoken = {name for name in names if name not in sound} or {name for name in names if sound[name] <= {one["family"]}} or names
            for name in {name for name in spoken if not name.startswith(".")} or spoken:
                found[name].append(one)
    return dict(found), {name for _, names in named for name in names}


def worst(entries: list[dict[str, Any]]) -> str:
    """The worst outcome of these entries."""
    return max((one["outcome"] for one in entries), key=ORDER.index)


def sources(place: Path) -> list[Path]:
    """The Python files of a folder, or the file itself, that import Jittor. UserError when there are none."""
    if not place.exists():
        raise UserError(f"{place} does not exist: give --used-by a Python file, or the folder of a port")
    found = [path for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place]) if imports_jittor(tree_of(path))]
    if not found:
        raise UserError(f"no Python file of {place} imports jittor: give --used-by a Python file, or the folder of a port")
    return found


def tree_of(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Python ({' '.join(str(error).split())}): mend it, or give --used-by another path") from None


def imports_jittor(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "jittor" for name in names):
            return True
    return False


def used(place: Path, document: dict[str, Any]) -> tuple[list[tuple[Use, list[dict[str, Any]]]], dict[str, list[str]]]:
    """Every use of a name that the recording tries, with the entries in which it is not equal; and the functions that it does not try, with their places."""
    known_to_differ, tried = marked(document)
    found, untried = [], defaultdict(list)
    for path in sources(place):
        for use in uses(path, path.relative_to(place).as_posix() if place.is_dir() else path.name):
            if use.name in tried:
                found.append((use, known_to_differ.get(use.name, [])))
            elif not use.name.startswith(".") and use.name not in MACHINERY:
                untried[use.name].append(f"{use.file}:{use.line}")
    return found, dict(untried)


def uses(path: Path, name: str = "") -> list[Use]:
    """Every attribute in a file, as the atlas writes names, with the reason that stands there. `name`: how the file is called in the answer."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for statement, nodes in statements(tree_of(path)):
        reason = reason_at(lines, statement)
        found += [Use(name or path.name, node.lineno, operator_name(node), reason) for node in nodes]
    return sorted(set(found), key=lambda use: (use.line, use.name))


def statements(tree: ast.Module) -> Iterator[tuple[tuple[int, int], list[ast.Attribute]]]:
    """(first line, last line) of every statement, of a compound one its head alone, with the attributes in it."""
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.stmt):
            continue
        inner = [child for field in ("body", "orelse", "finalbody", "handlers", "cases") for child in getattr(statement, field, [])]
        last = min((child.lineno for child in inner), default=(statement.end_lineno or statement.lineno) + 1) - 1
        heads = [child for child in ast.iter_child_nodes(statement) if child not in inner]
        nodes = [node for head in heads for node in ast.walk(head) if isinstance(node, ast.Attribute)]
        yield (statement.lineno, max(last, statement.lineno)), nodes


def reason_at(lines: list[str], place: tuple[int, int]) -> str:
    """The reason within these lines, or in the comment right above them."""
    first, last = place
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return next((line.partition(REASON)[2].strip() for line in lines[first - 1:last] if REASON in line), "")

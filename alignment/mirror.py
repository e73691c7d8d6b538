"""The two packages side by side: after a dozen substitutions the Jittor file must be the PyTorch file, but for lines that say why.

    python -m alignment.mirror              every line that differs without a reason
    python -m alignment.mirror head         both files of one pair in two columns

A reason is ``# differs: ...`` among the differing lines of either side, or in the docstring of the class or function around them.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from alignment.cli import run_cli
from jt_nanodet.errors import UserError, nearest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"jittor": "jt_nanodet", "pytorch": "torch_ref"}
#: Files that only share a name: each package's own command line.
APART = frozenset({"__init__", "__main__"})
MARK = "# differs:"
#: Jittor's words for PyTorch's; (pattern, replacement) in this order, applied to every line of the Jittor file.
SUBSTITUTIONS = [
    (r"^import jittor as jt$", "import torch"),
    (r"^from jittor import", "from torch import"),
    (r"^( *)def execute\(", r"\1def forward("),
    (r"\bjt\.concat\(", "torch.cat("),
    (r"\bjt\.array\(", "torch.from_numpy("),
    (r"\bjt\.Var\b", "torch.Tensor"),
    (r"\bjt\.", "torch."),
    (r"\bnn\.(softmax|log_softmax|leaky_relu)\(", r"F.\1("),
    (r"\bnp\.(minimum|maximum)\(", r"torch.\1("),
    (r"\.cast\(", ".to("),
    (r"\.float32\(\)", ".float()"),
    (r"^from \.(errors|config|checkpoint|weight_rules|data[\w.]*|run[\w.]*) import", r"from jt_nanodet.\1 import"),
    (r"python -m jt_nanodet (.*)\.pkl\b", r"python -m torch_ref \1.pth"),
    (r"python -m jt_nanodet\b", "python -m torch_ref"),
]
#: What only PyTorch has to say, because Jittor places every Var itself; dropped from every line of the PyTorch file.
PLACES = re.compile(r"\.to\([\w.]*\bdevice\)|\.cpu\(\)|, device=[\w.]+")
#: Lines of the PyTorch file whose counterpart has no line of its own: Jittor keeps these functions in `jittor.nn`.
UNPAIRED = frozenset({"from torch.nn import functional as F"})


@dataclass(frozen=True)
class Block:
    """Neighbouring lines that differ: (line number, text) of either side, and whether a reason stands with them."""

    name: str
    jittor: tuple[tuple[int, str], ...]
    pytorch: tuple[tuple[int, str], ...]
    explained: bool

    @property
    def place(self) -> str:
        """``file:line`` of the first differing line."""
        side, lines = ("jittor", self.jittor) if self.jittor else ("pytorch", self.pytorch)
        return f"{PACKAGES[side]}/{self.name}.py:{lines[0][0]}"

    def __str__(self) -> str:
        lines = [f"  - {text}" for _, text in self.pytorch] + [f"  + {text}" for _, text in self.jittor]
        return "\n".join([f"{self.place}: differs from its twin without a reason ({MARK} ...)", *lines])


def names(root: Path = ROOT) -> list[str]:
    """Modules that both packages have."""
    found = [{path.stem for path in (root / package).glob("*.py")} for package in PACKAGES.values()]
    return sorted(set.intersection(*found) - APART)


def translated(line: str) -> str:
    """A line of the Jittor file in PyTorch's words."""
    for pattern, replacement in SUBSTITUTIONS:
        line = re.sub(pattern, replacement, line)
    return line


def blocks(name: str, jittor: str, pytorch: str) -> list[Block]:
    """All differing blocks of the two sources of module `name`; blank lines and line numbers do not count."""
    ours, theirs = _lines(jittor), [one for one in _lines(pytorch) if one[1] not in UNPAIRED]
    matcher = difflib.SequenceMatcher(None, [_code(translated(text)) for _, text in ours], [_placed(text) for _, text in theirs], autojunk=False)
    regions = {side: _regions(text) for side, text in (("jittor", jittor), ("pytorch", pytorch))}
    found = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            continue
        # one reason must not excuse its neighbours: a block that spans several definitions is taken apart
        pieces = _split(ours[a:b], regions["jittor"].tops), _split(theirs[c:d], regions["pytorch"].tops)
        if len(pieces[0]) > 1:
            found += [Block(name, tuple(piece), (), _explained(piece, regions["jittor"])) for piece in pieces[0][:-1]]
        last = pieces[0][-1] if pieces[0] else []
        explained = _explained(last, regions["jittor"]) or _explained(theirs[c:d], regions["pytorch"])
        found.append(Block(name, tuple(last), tuple(theirs[c:d]), explained))
    return found


def unexplained(root: Path = ROOT) -> list[Block]:
    """Every difference without a reason, in all pairs."""
    return [block for name in names(root) for block in blocks(name, *sources(name, root)) if not block.explained]


def columns(name: str, root: Path = ROOT, width: int = 96) -> str:
    """Both files side by side: PyTorch left, Jittor right; ``|`` marks lines that differ, ``!`` those without a reason."""
    jittor, pytorch = sources(name, root)
    ours, theirs = jittor.splitlines(), pytorch.splitlines()
    bad = {side: {n for one in blocks(name, jittor, pytorch) if not one.explained for n, _ in getattr(one, side)} for side in PACKAGES}
    matcher = difflib.SequenceMatcher(None, [_placed(text) for text in theirs], [_code(translated(text)) for text in ours], autojunk=False)
    rows = []
    for kind, a, b, c, d in matcher.get_opcodes():
        for k in range(max(b - a, d - c)):
            left, right = (theirs[a + k] if a + k < b else ""), (ours[c + k] if c + k < d else "")
            sign = " " if kind == "equal" else "!" if a + k + 1 in bad["pytorch"] and a + k < b or c + k + 1 in bad["jittor"] and c + k < d else "|"
            rows.append(f"{left[:width]:<{width}} {sign} {right}".rstrip())
    return "\n".join(rows)


def sources(name: str, root: Path = ROOT) -> tuple[str, str]:
    """Text of the Jittor and of the PyTorch file."""
    return tuple((root / PACKAGES[side] / f"{name}.py").read_text(encoding="utf-8") for side in ("jittor", "pytorch"))


def _lines(text: str) -> list[tuple[int, str]]:
    return [(number, line.rstrip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _code(line: str) -> str:
    """The line without a reason at its end: a reason alone is no difference."""
    return line.split(f"  {MARK}")[0].rstrip()


def _placed(line: str) -> str:
    return PLACES.sub("", _code(line))


@dataclass(frozen=True)
class _Regions:
    """First and last lines of the top-level definitions, and of every definition whose docstring holds a reason."""

    tops: list[tuple[int, int]]
    explained: list[tuple[int, int]]


def _regions(text: str) -> _Regions:
    kinds = (ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(text)
    tops = [(node.lineno, node.end_lineno) for node in tree.body if isinstance(node, kinds)]
    lines = text.splitlines()
    inside = []
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            docstring = lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
            if any(MARK in line for line in docstring):
                inside.append((node.lineno, node.end_lineno))
    return _Regions(tops, inside)


def _split(lines: list[tuple[int, str]], tops: list[tuple[int, int]]) -> list[list[tuple[int, str]]]:
    """`lines` in pieces, each of one top-level definition or of the lines between two."""
    pieces: dict[object, list[tuple[int, str]]] = {}
    between = 0
    for number, text in lines:
        owner = next((top for top in tops if top[0] <= number <= top[1]), None)
        if owner is None and pieces and next(reversed(pieces)) != ("between", between):
            between += 1
        pieces.setdefault(owner or ("between", between), []).append((number, text))
    return list(pieces.values())


def _explained(lines: list[tuple[int, str]], regions: _Regions) -> bool:
    if any(MARK in text for _, text in lines):
        return True
    return bool(lines) and any(first <= lines[0][0] and lines[-1][0] <= last for first, last in regions.explained)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.mirror", description=__doc__.split("\n\n")[0])
    parser.add_argument("name", nargs="?", metavar="NAME", help="module to show in two columns, such as head; default: all differences without a reason")
    args = parser.parse_args(argv)
    if args.name is None:
        found = unexplained()
        print("\n".join([*map(str, found), f"{len(names())} pairs, {len(found)} differences without a reason"]))
        return int(bool(found))
    if args.name not in names():
        close = nearest(args.name, names())
        raise UserError(f"the two packages share no module '{args.name}'" + (f", did you mean '{close}'?" if close else "") + f": type one of {', '.join(names())}")
    print(columns(args.name))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

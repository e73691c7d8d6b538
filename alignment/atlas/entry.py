"""An entry of the atlas is text: what to draw, and the same computation in the words of either framework.

The text is what runs, and what a reader types to see a difference again; there is no second description that could disagree with it.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: How an edge case changes the drawn arrays. `{x}` is each array it applies to.
EDGES = {
    "nan": "{x}.flat[{x}.size // 2] = np.nan",
    "inf": "{x}.flat[0], {x}.flat[-1] = np.inf, -np.inf",
    "ties": "{x} = np.round({x})",
    "far": "{x} = {x} * np.float32(40)",
    "huge": "{x} = {x} * np.float32(1e30)",
    "tiny": "{x} = {x} * np.float32(1e-30)",
    "strided": "{x} = np.ascontiguousarray({x}.T)",
    "empty": "{x} = {x}[:0]",
    "0-d": "{x} = np.asarray({x}.flat[0])",
}
#: What the framework does with `{x}` before the computation: a view that is not contiguous.
VIEWS = {"strided": "{x} = {x}.permute(*range({n} - 1, -1, -1))"}
#: The plain cases: two seeds.
PLAIN = ("seed 0", "seed 1")
#: Edges that shake every element by an ULP for the floor; elsewhere that would leave the edge.
SHAKEN = frozenset({*PLAIN, "far", "huge", "tiny", "strided"})
ELEMENTWISE = ("nan", "inf", "ties", "far", "huge", "tiny", "strided", "empty", "0-d")
LAYER = ("nan", "inf", "huge", "strided", "empty")
#: PyTorch's words for Jittor's, where the rest of the line is the same.
_WORDS = [(r"\bF\.", "nn."), (r"\btorch\.", "jt.")]


@dataclass(frozen=True)
class Entry:
    """One operator with one set of options.

    `torch`, `jittor`: lines of code over the names in `inputs`; the last line is an expression, a tensor or a tuple of them. `jittor` is left out where
    changing ``F.`` to ``nn.`` and ``torch.`` to ``jt.`` is all. `inputs`: name to a NumPy expression, in which ``r`` is the seeded generator. `grad`:
    the inputs whose gradients are compared (None: all of type float32). `edges` apply to the inputs in `edge_of` (None: the first).
    `smooth`: an input moved by an ULP moves the output a little (not so for rounding and ordering). `relative`: every element has its own size, so small
    ones are judged by their own. `strict`: types and 0-d shapes count. `kind`: ``values``, or ``distribution`` for random numbers. `refused`: PyTorch raises,
    and Jittor should.
    """

    name: str
    torch: str
    jittor: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    grad: tuple[str, ...] | None = None
    edges: tuple[str, ...] = ()
    edge_of: tuple[str, ...] | None = None
    smooth: bool = True
    relative: bool = False
    strict: bool = False
    kind: str = "values"
    refused: bool = False
    family: str = ""

    def __post_init__(self) -> None:
        if not self.jittor:
            text = self.torch
            for pattern, word in _WORDS:
                text = re.sub(pattern, word, text)
            object.__setattr__(self, "jittor", text)

    @property
    def key(self) -> str:
        """``family/name``, unique in the atlas."""
        return f"{self.family}/{self.name}"

    @property
    def cases(self) -> tuple[str, ...]:
        random = self.kind == "distribution" or not self.inputs
        return (PLAIN[:1] if random else PLAIN) + self.edges

    def changed(self) -> tuple[str, ...]:
        """The inputs that an edge changes."""
        return self.edge_of if self.edge_of is not None else tuple(self.inputs)[:1]

    def drawing(self, case: str) -> list[str]:
        """NumPy lines that make the inputs of a case."""
        seed = case.split()[-1] if case in PLAIN else "0"
        lines = [f"r = np.random.RandomState({seed})", *(f"{name} = {text}" for name, text in self.inputs.items())]
        if case in EDGES:
            lines += [EDGES[case].format(x=name) for name in self.changed()]
        return lines if self.inputs else []

    def views(self, case: str, dims: Mapping[str, int]) -> list[str]:
        """Lines of either framework between the arrays and the computation. `dims`: number of dimensions of each input."""
        return [VIEWS[case].format(x=name, n=dims[name]) for name in self.changed()] if case in VIEWS else []

    def digest(self, case: str) -> str:
        """Changes whenever the case would compute something else."""
        text = repr((self.torch, self.jittor, self.drawing(case), case, None if self.grad is None else list(self.grad), self.smooth, self.kind))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def uses(self) -> set[str]:
        """Jittor's names in the code, as ``jt.topk``, ``nn.relu``, ``.sum``."""
        return names_in(self.jittor)


def names_in(source: str) -> set[str]:
    """``jt.X``, ``nn.X``, ``init.X``, ``optim.X`` and ``jt.a.X`` of a Python text, and methods as ``.X``."""
    return {operator_name(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def operator_name(node: ast.Attribute) -> str:
    """How the atlas writes an attribute: ``jt.topk``, ``nn.relu``, and ``.sum`` where the object is a value."""
    base = ast.unparse(node.value)
    if base in ("jt", "nn", "init", "optim"):
        return f"{base}.{node.attr}"
    if base in ("jt.nn", "jt.init", "jt.optim", "jt.lr_scheduler"):
        return f"{base.removeprefix('jt.')}.{node.attr}"
    return f".{node.attr}"


def normal(*shape: int) -> str:
    return f"r.randn({', '.join(map(str, shape))}).astype('float32')"


def uniform(low: float, high: float, *shape: int) -> str:
    return f"r.uniform({low}, {high}, ({', '.join(map(str, shape))},)).astype('float32')"


def integers(high: int, *shape: int, low: int = 0) -> str:
    return f"r.randint({low}, {high}, ({', '.join(map(str, shape))},)).astype('int32')"


def array(values: list, dtype: str = "float32") -> str:
    return f"np.array({values!r}, '{dtype}')"

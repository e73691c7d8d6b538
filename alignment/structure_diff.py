"""Two module trees side by side: paths, types, shapes, hyper-parameters, parameters, FLOPs.

A runner describes each side as a list, in order of registration, of::

    {"path": "backbone.conv1.0", "type": "Conv2d", "hyper": {"stride": [2, 2], ...}, "calls": 1, "flops": 12345 or None,
     "params": [{"name": "weight", "shape": [24, 3, 3, 3], "dtype": "float32"}, ...]}

`params` are the own parameters and buffers of the module, not of its children (a buffer carries ``"trainable": false`` and is not
counted in the totals); `calls` is how often it ran in one forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from alignment.reasons import Reason
from alignment.result import TensorResult, check_row
from jt_nanodet.errors import printable

HERE = "<--- *** HERE ***"
#: Type names that mean the same module; every name maps to the one shown. Jittor has one class for Sequential and ModuleList.
SAME_TYPE = {
    "Conv": "Conv2d", "Conv2d": "Conv2d", "BatchNorm": "BatchNorm2d", "BatchNorm2d": "BatchNorm2d", "ReLU": "ReLU", "Relu": "ReLU",
    "LeakyReLU": "LeakyReLU", "Leaky_relu": "LeakyReLU", "ReLU6": "ReLU6", "Relu6": "ReLU6", "Hardswish": "Hardswish", "HardSwish": "Hardswish",
    "SiLU": "SiLU", "Swish": "SiLU", "Pool": "MaxPool2d", "MaxPool2d": "MaxPool2d", "AvgPool2d": "AvgPool2d", "AdaptiveAvgPool2d": "AdaptiveAvgPool2d",
    "Upsample": "Upsample", "Resize": "Upsample", "Sequential": "Sequential", "ModuleList": "Sequential", "Identity": "Identity", "Linear": "Linear",
    "Dropout": "Dropout", "GroupNorm": "GroupNorm", "Sigmoid": "Sigmoid",
}
#: Hyper-parameters that go by another name on one side, for each shown type.
SAME_HYPER = {
    "LeakyReLU": {"scale": "slope", "negative_slope": "slope"},
    "BatchNorm2d": {"num": "num_features"},
}
#: Hyper-parameters without influence on what is computed.
IGNORED = frozenset({"inplace", "is_train", "device"})
#: Hyper-parameters that are pairs; a single number stands for two equal ones.
PAIRS = frozenset({"kernel_size", "stride", "padding", "dilation", "output_padding"})


@dataclass(frozen=True)
class FieldDifference:
    """One particular in which a pair of modules differs."""

    field: str
    ref: Any
    cand: Any


@dataclass(frozen=True)
class StructureRow:
    """One module. `status`: match, diff, only_ref, only_cand. `notes`: differences that are expected and do not count."""

    path: str
    type_ref: str | None
    type_cand: str | None
    status: str
    differences: tuple[FieldDifference, ...] = ()
    notes: tuple[str, ...] = ()
    parameters_ref: int = 0
    parameters_cand: int = 0
    flops_ref: int | None = None
    flops_cand: int | None = None

    @property
    def text(self) -> str:
        """What is wrong, in one line."""
        if self.status == "only_ref":
            return "the candidate lacks this module"
        if self.status == "only_cand":
            return "the reference lacks this module"
        return "; ".join(f"{one.field}: {_show(one.ref)} against {_show(one.cand)}" for one in self.differences)


@dataclass(frozen=True)
class StructureDiff:
    """Rows in the reference's order, modules that only the candidate has at their place among them. Totals: parameters (elements) and FLOPs."""

    rows: tuple[StructureRow, ...]
    totals: dict[str, int | None] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {status: sum(row.status == status for row in self.rows) for status in ("match", "diff", "only_ref", "only_cand")}

    @property
    def first_difference(self) -> StructureRow | None:
        return next((row for row in self.rows if row.status != "match"), None)

    def results(self) -> list[TensorResult]:
        """One row of ``result.json`` for each module."""
        return [
            check_row(row.path or "(root)", row.status == "match", _reason(row), row.text or "; ".join(row.notes), stage="structure") for row in self.rows
        ]

    def to_json(self) -> dict[str, Any]:
        first = self.first_difference
        return {
            "counts": self.counts, "totals": self.totals, "first_difference": first.path if first else None, "rows": [asdict(row) for row in self.rows],
        }

    def tree(self, *, only_different: bool = False) -> str:
        """Both trees side by side as text, with a mark at the first difference."""
        shown = [row for row in self.rows if not only_different or row.status != "match"]
        left = [_label(row.path, row.type_ref, row.parameters_ref) for row in shown]
        right = [_label(row.path, row.type_cand, row.parameters_cand) for row in shown]
        width = max([len(text) for text in left] + [len("reference")])
        width_right = max([len(text) for text in right] + [len("candidate")])
        signs = {"match": "=", "diff": "!", "only_ref": "<", "only_cand": ">"}
        lines = [f"{'reference':<{width}}   {'candidate':<{width_right}}".rstrip()]
        for row, one, two in zip(shown, left, right):
            tail = f"  {row.text}" if row.status != "match" else ("  (" + "; ".join(row.notes) + ")" if row.notes else "")
            here = f"  {HERE}" if row is self.first_difference else ""
            lines.append(f"{one:<{width}} {signs[row.status]} {two:<{width_right}}{tail}{here}".rstrip())
        total = self.totals
        lines.append(f"parameters: {_number(total['parameters_ref'])} and {_number(total['parameters_cand'])}; "
                     f"FLOPs: {_number(total['flops_ref'])} and {_number(total['flops_cand'])}")
        return "\n".join(lines)


def diff_structure(ref: Sequence[Mapping[str, Any]], cand: Sequence[Mapping[str, Any]], *, same_type: Mapping[str, str] = SAME_TYPE) -> StructureDiff:
    """Pair the modules by path and compare every particular. ValueError when a side is empty or names a path twice."""
    left, right = _by_path(ref, "reference"), _by_path(cand, "candidate")
    rows = []
    for path in _merged(list(left), list(right)):
        a, b = left.get(path), right.get(path)
        differences, notes = _compare(a, b, same_type) if a and b else ((), ())
        status = "only_cand" if a is None else "only_ref" if b is None else "diff" if differences else "match"
        rows.append(StructureRow(
            path, a and a["type"], b and b["type"], status, differences, notes, _count(a), _count(b), a and a.get("flops"), b and b.get("flops"),
        ))
    moved = _first_out_of_order(list(left), list(right))
    if moved:
        rows = [_with_order(row, *moved) if row.path == moved[0] else row for row in rows]
    totals = {f"parameters_{side}": sum(_count(one) for one in modules.values()) for side, modules in (("ref", left), ("cand", right))}
    totals.update({f"flops_{side}": _sum_flops(modules) for side, modules in (("ref", left), ("cand", right))})
    return StructureDiff(tuple(rows), totals)


def _by_path(modules: Sequence[Mapping[str, Any]], side: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for module in modules:
        if module["path"] in found:
            raise ValueError(f"the {side} names the module {module['path']!r} twice")
        found[module["path"]] = module
    if not found:
        raise ValueError(f"the {side} names no module")
    return found


def _merged(left: list[str], right: list[str]) -> list[str]:
    """The reference's order, with each surplus path of the candidate after the path it follows there."""
    known, order, after = set(left), list(left), {}
    previous = None
    for path in right:
        if path not in known:
            after.setdefault(previous, []).append(path)
        else:
            previous = path
    merged = list(after.get(None, []))
    for path in order:
        merged += [path, *after.get(path, [])]
    return merged


def _first_out_of_order(left: list[str], right: list[str]) -> tuple[str, int, int] | None:
    """The first path that both sides have, at another place among the paths both have; the order decides the order of the state dict."""
    both = set(left) & set(right)
    a, b = [path for path in left if path in both], [path for path in right if path in both]
    return next(((path, place, b.index(path)) for place, path in enumerate(a) if b[place] != path), None)


def _with_order(row: StructureRow, path: str, place: int, other: int) -> StructureRow:
    extra = FieldDifference("place among the common modules", place, other)
    return StructureRow(**{**row.__dict__, "status": "diff", "differences": (*row.differences, extra)})


def _compare(a: Mapping[str, Any], b: Mapping[str, Any], same_type: Mapping[str, str]) -> tuple[tuple[FieldDifference, ...], tuple[str, ...]]:
    found: list[FieldDifference] = []
    notes: list[str] = []
    kind_a, kind_b = same_type.get(a["type"], a["type"]), same_type.get(b["type"], b["type"])
    if kind_a != kind_b:
        found.append(FieldDifference("type", a["type"], b["type"]))
    elif a["type"] != b["type"]:
        notes.append(f"{a['type']} and {b['type']} are the same module")
    hyper_a, hyper_b = _hyper(a, kind_a), _hyper(b, kind_b)
    for key in dict.fromkeys((*hyper_a, *hyper_b)):
        one, two = hyper_a.get(key, "absent"), hyper_b.get(key, "absent")
        if not _equal(one, two):
            found.append(FieldDifference(key, one, two))
    params_a = {one["name"]: one for one in a.get("params", ())}
    params_b = {one["name"]: one for one in b.get("params", ())}
    for name in dict.fromkeys((*params_a, *params_b)):
        one, two = params_a.get(name), params_b.get(name)
        if one is None or two is None:
            found.append(FieldDifference(name, "absent" if one is None else list(one["shape"]), "absent" if two is None else list(two["shape"])))
            continue
        shapes = tuple(one["shape"]), tuple(two["shape"])
        if shapes in (((), (1,)), ((1,), ())):
            notes.append(f"{name} is {list(shapes[0])} and {list(shapes[1])}: one number either way")
        elif shapes[0] != shapes[1]:
            found.append(FieldDifference(f"{name} shape", list(shapes[0]), list(shapes[1])))
        if str(one["dtype"]) != str(two["dtype"]):
            found.append(FieldDifference(f"{name} dtype", one["dtype"], two["dtype"]))
        if one.get("trainable", True) != two.get("trainable", True):
            found.append(FieldDifference(f"{name} trainable", one.get("trainable", True), two.get("trainable", True)))
    if list(params_a) != list(params_b) and set(params_a) == set(params_b):
        found.append(FieldDifference("order of parameters", list(params_a), list(params_b)))
    for key in ("calls", "flops"):
        one, two = a.get(key), b.get(key)
        if one is None or two is None:
            if one is not two:
                notes.append(f"{key} known on one side only")
        elif one != two:
            found.append(FieldDifference(key, one, two))
    return tuple(found), tuple(notes)


def _hyper(module: Mapping[str, Any], kind: str) -> dict[str, Any]:
    names = SAME_HYPER.get(kind, {})
    return {names.get(key, key): _normal(names.get(key, key), value) for key, value in module.get("hyper", {}).items() if key not in IGNORED}


def _normal(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_normal("", one) for one in value)
    if key == "align_corners" and value is None:
        return False  # PyTorch's documented default of the interpolating modes
    if key in PAIRS and isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    return value


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return False
    return one == two


def _count(module: Mapping[str, Any] | None) -> int:
    return sum(math.prod(one["shape"]) for one in module.get("params", ()) if one.get("trainable", True)) if module else 0


def _sum_flops(modules: Mapping[str, Mapping[str, Any]]) -> int | None:
    known = [module["flops"] for module in modules.values() if module.get("flops") is not None]
    return sum(known) if known else None


def _reason(row: StructureRow) -> Reason:
    return {"only_ref": Reason.MISSING, "only_cand": Reason.EXTRA}.get(row.status, Reason.STRUCTURE_DIFFERS)


def _label(path: str, kind: str | None, parameters: int) -> str:
    if kind is None:
        return ""
    depth, name = (path.count(".") + 1, path.rsplit(".", 1)[-1]) if path else (0, "(root)")
    return f"{'  ' * depth}{printable(name)}: {printable(kind)}" + (f" [{parameters:,}]" if parameters else "")


def _show(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"

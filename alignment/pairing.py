"""Which module of the candidate stands for which of the reference, and which weight for which; framework-free, pure.

Modules are paired by what the user says, by `rename`, by equal path, and what is left by type, shapes of weights and order of execution: these are
guesses, and shown as such. A composite module is paired when all its paired parts lie in one composite of the other side.
A module is a row ``{"path", "type", "leaf", "params": [{"name", "shape"}], "first"}``, `first` the number of its first call or None.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.structure_diff import SAME_TYPE
from jt_nanodet.errors import UserError
from weights_convert.account import Row

#: Names of the two frameworks' own layers that mean the same.
TYPES = {**SAME_TYPE, "relu": "ReLU", "gelu": "GELU", "GELU": "GELU", "relu6": "ReLU6", "softmax": "Softmax", "Softmax": "Softmax", "silu": "SiLU", "sigmoid": "Sigmoid",
         "ConvTranspose": "ConvTranspose2d", "ConvTranspose2d": "ConvTranspose2d", "BatchNorm1d": "BatchNorm", "BatchNorm2d": "BatchNorm", "BatchNorm": "BatchNorm",
         "BatchNorm3d": "BatchNorm", "leaky_relu": "LeakyReLU", "tanh": "Tanh", "Flatten": "Flatten"}
#: Entries that one framework keeps and the other does not, without influence on what is computed.
COUNTERS = ("num_batches_tracked",)


@dataclass(frozen=True)
class Match:
    """`how`: override, rename, name, guess; "" for a module on one side only (the other path is None)."""

    ref: str | None
    cand: str | None
    how: str
    why: str


def kind(row: Mapping[str, Any]) -> tuple:
    """What must agree in a guess: type and shapes of weights, without their names' order."""
    return (TYPES.get(row["type"], row["type"]), tuple(sorted((p["name"], tuple(p["shape"])) for p in row["params"] if p["name"] not in COUNTERS)))


def executed(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leaves in order of their first call, those never called last, in order of definition."""
    return sorted((r for r in rows if r["leaf"]), key=lambda r: (r["first"] is None, r["first"] or 0))


def pair_modules(ref: Sequence[Mapping[str, Any]], cand: Sequence[Mapping[str, Any]], overrides: Mapping[str, str] | None = None,
                 rename: Callable[[str], str] | None = None) -> list[Match]:
    """One match for every module of either side, in the reference's order, then what only the candidate has. UserError for an override that names no module."""
    left, right = {r["path"]: r for r in ref}, {r["path"]: r for r in cand}
    found: dict[str, tuple[str, str, str]] = {}
    for one, two in (overrides or {}).items():
        for path, known, side in ((one, left, "reference"), (two, right, "candidate")):
            if path not in known:
                close = difflib.get_close_matches(path, list(known), n=1)
                raise UserError(f"the layer map names {path!r}, which the {side} does not have{f' (it has {close[0]!r})' if close else ''}: mend the map")
        found[one] = (two, "override", "given by the layer map")
    if len(set(overrides.values() if overrides else ())) < len(overrides or {}):
        raise UserError("the layer map names one module of the candidate twice: give each reference module its own")
    taken = {two for two, *_ in found.values()}

    def take(one: str, two: str, how: str, why: str) -> None:
        if one not in found and two in right and two not in taken:
            found[one] = (two, how, why)
            taken.add(two)

    for path in left:
        if rename is not None and path:
            new = rename(path + ".weight")
            if isinstance(new, str) and new.endswith(".weight") and new != path + ".weight":
                take(path, new.removesuffix(".weight"), "rename", "by rename()")
    for path in left:
        if path in right and left[path]["leaf"] == right[path]["leaf"]:
            take(path, path, "name", "same name")
    a, b = executed(ref), executed(cand)
    owner = {two: one for one, (two, *_) in found.items()}
    keys_a = [("paired", r["path"]) if r["path"] in found else kind(r) for r in a]
    keys_b = [("paired", owner[r["path"]]) if r["path"] in owner else kind(r) for r in b]
    for block in difflib.SequenceMatcher(None, keys_a, keys_b, autojunk=False).get_matching_blocks():
        for i in range(block.size):
            take(a[block.a + i]["path"], b[block.b + i]["path"], "guess", "same type and shapes at the same place in the order of execution")
    # a rest that is alone of its kind on both sides needs no order
    for one in a:
        if one["path"] not in found and one["params"]:
            twins_a = [r for r in a if r["path"] not in found and kind(r) == kind(one)]
            twins_b = [r for r in b if r["path"] not in taken and kind(r) == kind(one)]
            if len(twins_a) == len(twins_b) == 1:
                take(one["path"], twins_b[0]["path"], "guess", "the only ones left with this type and these shapes")
    for path, row in left.items():  # composites
        if not row["leaf"] and path not in found:
            inside = {found[p][0] for p in left if p.startswith(path + ".") and left[p]["leaf"] and p in found}
            homes = [q for q in right if not right[q]["leaf"] and q not in taken and q and inside and all(t.startswith(q + ".") for t in inside)]
            if homes:
                home = max(homes, key=len)  # the smallest that holds them all
                within = {q for q in right if q.startswith(home + ".") and right[q]["leaf"]}
                if all(q in inside or q not in taken for q in within):
                    take(path, home, "guess", "holds the same parts")
    matches = [Match(p, *found[p]) if p in found else Match(p, None, "", "the candidate has no such module") for p in left]
    return matches + [Match(None, q, "", "the reference has no such module") for q in right if q not in taken]


def transfer(ref: Mapping[str, np.ndarray], cand: Mapping[str, np.ndarray], matches: Sequence[Match],
             rename: Callable[[str], str] | None = None) -> tuple[dict[str, np.ndarray], list[Row], list[str]]:
    """(the candidate's new state, an account of every key of the reference, keys of the candidate that got nothing).

    Values are copied by paired module and equal name; a matrix that fits only when turned is turned, one number may be of shape () or (1,).
    """
    where = {m.ref: m.cand for m in matches if m.ref is not None and m.cand is not None}
    state: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for key, value in ref.items():
        path, _, name = key.rpartition(".")
        target = rename(key) if rename else None
        if target is None or (target == key and key not in cand):
            target = (f"{where[path]}.{name}" if where.get(path) else name) if path in where else key
        shape, dtype = tuple(value.shape), str(value.dtype)
        if target not in cand:
            reason = "a counter that the candidate does not keep" if name in COUNTERS else "the candidate has no such entry"
            rows.append(Row(key, None, "dropped", shape, dtype, reason))
            continue
        if target in state:
            raise UserError(f"two weights of the reference, {key} among them, would become {target}: mend rename() or the layer map")
        want = tuple(cand[target].shape)
        status, reason, moved = ("consistent", "same name on both sides", value) if target == key else ("renamed", f"module paired: {path} and {where.get(path, path)}", value)
        if want != shape:
            if {want, shape} == {(), (1,)}:
                moved = value.reshape(want)
            elif len(shape) == 2 and shape[::-1] == want:
                status, reason, moved = "value_converted", "transposed", np.ascontiguousarray(value.T)
            else:
                rows.append(Row(key, None, "dropped", shape, dtype, f"{target} has shape {want}"))
                continue
        state[target] = moved
        rows.append(Row(key, target, status, shape, dtype, reason))
    return state, rows, [k for k in cand if k not in state and k.rpartition(".")[2] not in COUNTERS]

"""Judging the backward pass of any pair (``--pair FILE --backward``): gradients of every call and every parameter, own and in the whole run.

The rows stand in the order in which the backward pass ends calls: later calls before earlier ones, parts before the whole that holds them, the model itself
last. So the first failed row is the innermost place where the gradients part. `runners/pair_backward.py` has what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from alignment import backward, locate, pairing
from alignment.bundle import Bundle
from alignment.compare import compare_tensors
from alignment.noise import EXACT
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners.pair_backward import MODEL

STAGE = "backward"


class Double(Mapping):
    """The float64 gradients of a bundle under the names of the float32 ones."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle

    def __getitem__(self, name: str) -> np.ndarray:
        return self.bundle[f"double/{name}"]

    def __iter__(self):
        return (n.removeprefix("double/") for n in self.bundle if n.startswith("double/"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def judge(ref: Bundle, cand: Bundle, layers: Bundle, matches: list[pairing.Match], result: Result) -> locate.Divergence | None:
    """Add the rows to `result` and its part ``backward``; `layers` is the reference's bundle of the forward pass, with the module tree."""
    about, agreement = ref.header.extra, {"cosine": 1.0, "sign_agreement": 1.0, "rel_l2": 0.0}
    found = Rows(ref, cand, {m.ref: m for m in matches if m.ref is not None}, agreement)
    types = {r["path"]: r["type"] for r in layers.header.extra["modules"]}
    for call in reversed(about["order"]):
        if call:
            found.call(call, about["calls"][call], types, result)
    found.model(result)
    if about["dropout"]:
        result.leave_out("dropout", f"switched off on both sides for the backward pass: {', '.join(about['dropout'])}")
    result.add(found.rows)
    divergence = locate.first_divergence(found.rows, training=True)
    result.parts["backward"] = {"calls": len(about["order"]), "rows": len(found.rows), "failed": sum(r.failed for r in found.rows), "agreement": agreement,
                                "near_zero": about["near_zero"], "first_divergence": vars(divergence) if divergence else None, "loss": about["loss"]}
    return divergence


class Rows:
    def __init__(self, ref: Bundle, cand: Bundle, where: dict[str, pairing.Match], agreement: dict[str, float]):
        self.ref, self.cand, self.where, self.agreement = ref, cand, where, agreement
        self.double, self.rows, self.failed_paths = Double(ref), [], []
        self.names: dict[str, list[str]] = {}
        for name in ref:
            if name.startswith("own/"):
                call = max((c for c in ref.header.extra["refed"] if name.startswith(f"own/{c}/")), key=len)
                self.names.setdefault(call, []).append(name)

    def compared(self, name: str, around: str = "") -> TensorResult:
        """`around`: the same parameter's gradient in the whole run."""
        floors = self.ref.header.extra["floors"]
        if floors.get(name):
            return backward.one(name, self.ref, self.cand, self.double, {"floors": floors}, name, bool(floors.get(around)) and backward.vanishes(floors[around]))
        return compare_tensors(name, self.ref[name], self.cand[name], tolerance=None if self.ref[name].dtype.kind == "f" else EXACT, stage=STAGE, allow_0d_as_1d=True)

    def missing(self, shown: str, hint: str, reason: Reason = Reason.MISSING) -> None:
        self.rows.append(TensorResult(shown, None, Verdict.FAIL, reason, Gate.KEYS, stage=STAGE, hint=hint))

    def call(self, call: str, one: dict[str, Any], types: dict[str, str], result: Result) -> None:
        """Every gradient of one call alone, with the gradient that came to it in the whole run beside it."""
        match, path = self.where[one["path"]], one["path"]
        if match.cand is None:
            return  # said by the rows of the forward pass
        if call not in self.ref.header.extra["refed"]:
            result.leave_out(f"backward/{call}", "its inputs cannot be stored, or no output is floating: what contains it is compared")
            return
        inherited = [n for n in (f"run/{o}" for o in one["outputs"]) if n in self.ref and n in self.cand and self.ref[n].size]
        for name in self.names.get(call, []):
            part = name.removeprefix(f"own/{call}/")
            shown = f"backward/{call}/{part.removeprefix('param/')}"
            if call in self.cand.header.extra["raised"]:
                self.missing(shown, f"the candidate raised {self.cand.header.extra['raised'][call]}", Reason.CHILD_FAILED)
                continue
            key = f"run/param/{path}.{part.removeprefix('param/')}"
            if name not in self.cand:
                if not (part.startswith("param/") and key in self.cand):  # a weight that rename() moves to another module: judged in the whole run
                    self.missing(shown, "the candidate has no such gradient")
                continue
            if self.ref[name].size == 0 and self.cand[name].shape == self.ref[name].shape:
                continue
            around = [key] if part.startswith("param/") and key in self.ref and key in self.cand else inherited
            whole = [self.compared(n) for n in around]
            row = locate.combine(self.compared(name, key), next((r for r in whole if r.failed), whole[0] if whole else None), module_type=types.get(path, ""))
            inner = [p for p in self.failed_paths if p.startswith(path + ".")]
            if row.failed and inner:
                row = replace(row, hint=f"{row.hint}; holds {inner[0]}, which fails too")
            if row.failed:
                self.failed_paths.append(path)
            self.rows.append(replace(row, name_ref=shown, name_cand=f"backward/{(match.cand or MODEL) + call[len(path):]}/{part.removeprefix('param/')}", match_method=match.how))

    def model(self, result: Result) -> None:
        """The whole run's gradients of every parameter and input, and the loss: the model's own pass, from its last call to its first."""
        extra, weights = self.cand.header.extra, {r["source"] for r in self.cand.header.extra["account"] if r["target"] is None}
        zero = True
        last = {one["path"]: at for at, one in enumerate(map(self.ref.header.extra["calls"].get, self.ref.header.extra["order"]))}
        ended = lambda name: -last.get(name.removeprefix("run/param/").rpartition(".")[0], -1)  # noqa: E731
        for name in sorted((n for n in self.ref if n.startswith(("run/param/", "run/input/")) or n == "loss"), key=lambda n: n != "loss" and 1 + len(last) + ended(n)):
            key = name.removeprefix("run/param/").removeprefix("run/")
            shown = f"backward/{MODEL}/{key}"
            if name not in self.cand:
                if key not in weights:
                    self.missing(shown, "the candidate does not train it")
                continue
            if self.ref[name].size == 0 and self.cand[name].shape == self.ref[name].shape:
                continue
            zero = zero and (name == "loss" or not self.ref[name].any())
            row = locate.combine(self.compared(name), None)
            if row.max_abs is not None and name != "loss" and self.ref.header.extra["floors"].get(name):
                backward.scale_free(self.ref[name], self.cand[name], self.ref.header.extra["floors"][name], row, self.agreement)
            if row.failed and self.failed_paths:
                row = replace(row, hint=f"{row.hint}; holds {self.failed_paths[0]}, which fails too")
            self.rows.append(replace(row, name_ref=shown, name_cand=shown))
        known = {r["source"] for r in extra["account"]}
        for name in self.cand:
            if name.startswith("run/param/") and name not in self.ref and name.removeprefix("run/param/") in known:
                self.missing(f"backward/{MODEL}/{name.removeprefix('run/param/')}", "the candidate trains it, the reference does not", Reason.EXTRA)
        if zero:
            self.rows.append(TensorResult(f"backward/{MODEL}", None, Verdict.NOT_COMPARABLE, Reason.NOTHING_COMPARED, Gate.COUNT, stage=STAGE,
                                          hint="every gradient of the reference is zero: give a loss() that depends on the weights"))

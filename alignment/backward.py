"""Judging a backward pass: gradients of every leaf call and every parameter, own and inherited (``alignment.layers --backward``).

Own: the call alone, on the reference's inputs and the reference's gradient of its output. Inherited: the same gradient in the whole run.
The rows stand in the order of the backward pass, so the first failed one is where the gradients part.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from alignment import layers_repro, locate
from alignment.compare import compare_tensors
from alignment.noise import ROUNDING_SHARE, Floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from alignment.train_judge import gradient_row, sign_row, tolerance


def run(folder: Path, given: dict[str, dict[str, Any]], input_file: Path, result: Result, *, verbosity: int = 0) -> tuple[locate.Divergence | None, Path | None]:
    """Run both sides, add the rows to `result` and its `backward` part; returns the first divergence of the backward pass, and a folder that shows it again."""
    scratch = folder / "backward"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        files = {k: str(scratch / f"{k}.safetensors") for k in ("pytorch", "jittor", "double")}
        floors = scratch / "floors.json"
        original = child.run("pytorch", [{"kind": "backward", "inputs": str(input_file), "output": files["pytorch"], "double": files["double"], "floors": str(floors)}],
                             given["pytorch"], scratch, verbosity=verbosity)["tasks"][0]
        told = child.run("jittor", [{"kind": "backward", "inputs": str(input_file), "reference": files["pytorch"], "output": files["jittor"]}],
                         given["jittor"], scratch, verbosity=verbosity)["tasks"][0]
        about = json.loads(floors.read_text(encoding="utf-8"))
        arrays = load_file(files["pytorch"])
        rows, agreement = judge(arrays, *(load_file(files[k]) for k in ("jittor", "double")), about, told["signs"])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for side, same in (("pytorch", original["observer_equal"]), ("jittor", told["observer_equal"])):
        result.check(f"observer/{side}/backward", same, Reason.OBSERVER_CHANGED_RESULT, "" if same else f"recording the {side} side's backward pass changed a gradient", stage="observer")
    evaluation = {row.name_ref: row for row in result.rows() if row.stage == "forward"}
    result.add(rows)
    divergence = locate.first_divergence(rows, training=True, evaluated={row.name_ref: evaluation[name] for row in rows if (name := call_of(row)) in evaluation})
    row = next((row for row in rows if divergence and row.name_ref == divergence.name and call_of(row)), None)
    ask = functools.partial(ask_side, given, folder, verbosity)
    repro = layers_repro.write(folder, divergence, row, Path(given["pytorch"]["config"]), ask, arrays=arrays)
    result.parts["backward"] = {"calls": len(about["order"]), "rows": len(rows), "failed": sum(r.failed for r in rows), "signs": told["signs"],
                                "agreement": agreement, "first_divergence": vars(divergence) if divergence else None,
                                "repro": str(repro.relative_to(folder)) if repro else None,
                                "loss": "seeded projection of both heads' raw outputs, training mode"}
    return divergence, repro


def ask_side(given: dict[str, dict[str, Any]], folder: Path, verbosity: int, side: str, task: dict[str, Any]) -> dict[str, Any]:
    """One more task of `side`, in a process of its own; what its runner says about it."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return child.run(side, [task], given[side], Path(scratch), verbosity=verbosity)["tasks"][0]


def call_of(row: TensorResult) -> str:
    """The call of a row ``backward/CALL/PART``; "" for another row."""
    return row.name_ref.removeprefix("backward/").rpartition("/")[0] if row.name_ref.startswith("backward/") else ""


def judge(ref: dict, cand: dict, double: dict, about: dict[str, Any], signs: dict[str, Any]) -> tuple[list[TensorResult], dict[str, float]]:
    """Rows from the arrays of both sides; names ``backward/CALL/input``, ``backward/CALL/PARAMETER``. Also the worst cosine, sign agreement and
    relative L2 of the parameters' gradients that are more than rounding."""
    rows, agreement = [sign_row(None, signs, 0.0)], {"cosine": 1.0, "sign_agreement": 1.0, "rel_l2": 0.0}
    rows[0] = locate.replace(rows[0], stage="backward")
    own = [n for n in ref if n.startswith("own/")]
    calls = {call: [n for n in own if n.rsplit("/", 1)[0] == f"own/{call}"] for call in about["order"]}
    for call in reversed(about["order"]):
        for name in calls[call]:
            part = name.rsplit("/", 1)[1]
            inherited = f"grad/{call}" if part == "input" else f"param/{call.split('@')[0]}.{part}"
            if name not in cand or inherited not in cand:
                rows.append(TensorResult(f"backward/{call}/{part}", None, Verdict.FAIL, Reason.MISSING, Gate.KEYS, stage="backward",
                                         hint="the candidate has no such gradient"))
                continue
            row = one(name, ref, cand, double, about, call, part != "input" and vanishes(about["floors"][inherited]))
            in_whole = one(inherited, ref, cand, double, about, call)
            row = locate.combine(row, in_whole, module_type=about["types"][call])
            rows.append(locate.replace(row, name_ref=f"backward/{call}/{part}", name_cand=f"backward/{call}/{part}"))
            if part != "input":
                scale_free(ref[inherited], cand[inherited], about["floors"][inherited], in_whole, agreement)
    extra = [n for n in cand if n.startswith(("own/", "param/", "grad/")) and n not in ref]
    rows += [TensorResult(f"backward/{n}", n, Verdict.FAIL, Reason.EXTRA, Gate.KEYS, stage="backward", hint="the reference has no such gradient") for n in extra]
    return rows, agreement


def vanishes(floor: dict[str, Any]) -> bool:
    """Whether a gradient is nothing but rounding: its floor is at least a share of what float64 finds."""
    return floor["max_abs"] >= ROUNDING_SHARE * floor["scale"]


def one(name: str, ref: dict, cand: dict, double: dict, about: dict[str, Any], call: str, rounding: bool = False) -> TensorResult:
    """Row of one gradient. `rounding`: this parameter's gradient vanishes in the whole run (a bias that a later BatchNorm takes away). Alone, the call is handed
    gradients whose sum is what float32 left of that zero, so float64 finds rounding where it would find nothing."""
    floor = Floor(**{k: tuple(v) if isinstance(v, list) else v for k, v in about["floors"][name].items()})
    row = compare_tensors(name, ref[name], cand[name], tolerance=tolerance(floor, "backward", rounding=rounding), ref64=double[name], stage="backward", allow_0d_as_1d=True)
    return gradient_row(row, floor)


def scale_free(ref: np.ndarray, cand: np.ndarray, floor: dict[str, Any], row: TensorResult, agreement: dict[str, float]) -> None:
    """Measures that a small gradient cannot slip under; only elements beyond the bound count for the sign."""
    if vanishes(floor) or row.cosine is None:
        return
    a, b = ref.reshape(-1), cand.reshape(-1)
    clear = np.abs(a) > (row.tolerance or 0.0)
    if clear.any():
        agreement["sign_agreement"] = min(agreement["sign_agreement"], float(np.mean(np.sign(a[clear]) == np.sign(b[clear]))))
    agreement["cosine"], agreement["rel_l2"] = min(agreement["cosine"], row.cosine), max(agreement["rel_l2"], row.rel_l2)

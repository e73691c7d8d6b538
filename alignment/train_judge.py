"""Rows of one resynchronised training step: what the candidate made of the reference's state, number by number.

The rows stand in the order in which a fault spreads: statistics of the forward pass, choices, losses, gradients from the heads back to the
stem, clipping, rate, moments, weights, averages, counters. So the first failed row is the first thing that went wrong.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alignment.compare import compare_tensors
from alignment.noise import (FACTOR, RATE_BOUND, ROUNDING_SHARE, WIDEST_BOUND, WIDEST_GRADIENT_BOUND, Floor, Tolerance, sampling_allowance,
                             tolerance_from_floor)
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult, check_row

STAGES = ("statistics", "signs", "assignment", "loss", "backward", "clip", "schedule", "optimizer", "weights", "ema", "counters")
#: Running means of gradients: AdamW's first moment, SGD's momentum.
FIRST_MOMENT = re.compile(r"/(exp_avg|momentum)/")
#: What usually causes a first failure of a stage; the rules of `locate` come on top.
CAUSES = {
    "statistics": "BatchNorm in training mode: another momentum, the biased variance in the running statistics, or a layer before it computes something else",
    "signs": "the layer before this activation computes something else",
    "assignment": "the assigner: IoU, class cost, its weights, truncation of the dynamic k, or the order of ties",
    "loss": "a loss term: its weight, its normaliser, or its targets",
    "backward": "the backward pass of this layer, or of the one that reads its output",
    "clip": "clipping: another norm",
    "schedule": "warm-up or cosine: the counter, or the order of schedule and optimiser",
    "optimizer": "the optimiser's moments: betas, or gradients that were not clipped alike",
    "weights": "the optimiser's update: bias correction, eps, weight decay (on which side of the update, on which parameters)",
    "ema": "the averages: the counter, the decay, or taken before the optimiser's step",
    "counters": "a counter of steps or epochs",
}


@dataclass
class StepJudgement:
    """Rows of one step, the branch points that were explained, and measures that need no bound."""

    rows: list[TensorResult]
    branches: list[dict[str, Any]] = field(default_factory=list)
    signs: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


def judge_step(step: int, ref: dict, cand: dict, double: dict, about: dict[str, Any], signs: dict[str, Any] | None, flips: float) -> StepJudgement:
    """`ref`, `cand`, `double`: the numbers of a step as the runners name them; `about`: their floors and their order; `signs`: the candidate's differing activation signs (None where it was not held to the reference's),
    `flips`: the largest (relative) under harmless changes of the reference."""
    found, floors = StepJudgement([]), about["floors"]
    kinds: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for name in about["order"]:
        stage = stage_of(name)
        if stage:
            kinds[stage].append(name)
    kinds["backward"].sort(key=lambda n: n == "norm/own")
    kinds["backward"] = [*reversed([n for n in kinds["backward"] if n != "norm/own"]), "norm/own"]
    for stage in STAGES:
        if stage == "signs":
            found.rows += [sign_row(step, signs, flips)] if signs is not None else []
        elif stage == "assignment":
            assignment_rows(step, ref, cand, double, floors, found)
        else:
            for name in kinds[stage]:
                found.rows.append(tensor_row(step, stage, name, ref, cand, double, floors, found))
    missing = [n for n in cand if stage_of(n) and n not in ref]
    found.rows += [TensorResult(n, n, Verdict.FAIL, Reason.EXTRA, Gate.KEYS, stage=stage_of(n), step=step, hint="the reference lacks this tensor") for n in missing]
    found.signs = signs or {}
    return found


def stage_of(name: str) -> str | None:
    """The stage a number belongs to; None for what is judged in another way."""
    head, _, rest = name.partition("/")
    if head == "loss":
        return "loss"
    if head == "gradient" or name == "norm/own":
        return "backward"
    if name == "norm/given":
        return "clip"
    if name == "rate":
        return "schedule"
    if head != "after":
        return None
    if rest.startswith("optimizer/"):
        return "optimizer"
    if rest.startswith("ema/"):
        return "ema"
    if rest.startswith("model/"):
        return "statistics" if rest.endswith(("running_mean", "running_var", "num_batches_tracked")) else "weights"
    return "counters"


def tensor_row(step: int, stage: str, name: str, ref: dict, cand: dict, double: dict, floors: dict[str, Any], found: StepJudgement) -> TensorResult:
    if name not in cand:
        return TensorResult(name, None, Verdict.FAIL, Reason.MISSING, Gate.KEYS, stage=stage, step=step, hint="the candidate lacks this tensor")
    if stage in ("schedule", "counters") and ref[name].dtype == np.float64:
        return rate_row(name, ref[name], cand[name], stage, step)
    floor = Floor(**{k: tuple(v) if isinstance(v, list) else v for k, v in floors[name].items()}) if name in floors else None
    bound = tolerance(floor, stage, name) if floor else None
    row = compare_tensors(name, ref[name], cand[name], tolerance=bound, ref64=double.get(name), stage=stage, step=step)
    if stage == "statistics":
        row = replace(row, module_type="BatchNorm2d")
    elif stage == "loss":
        row = replace(row, module_type="loss")
    if stage == "backward" and row.rmse is not None:
        row = gradient_row(row, floor)
        a, b = ref[name].reshape(-1), cand[name].reshape(-1)
        if floor and floor.max_abs < ROUNDING_SHARE * floor.scale and a.shape == b.shape:
            clear = np.abs(a) > bound.bound
            if clear.any():
                agreement = float(np.mean(np.sign(a[clear]) == np.sign(b[clear])))
                found.agreement = {"sign_agreement": min(agreement, found.agreement.get("sign_agreement", 1.0)),
                                   "cosine": min(row.cosine, found.agreement.get("cosine", 1.0)),
                                   "rel_l2": max(row.rel_l2, found.agreement.get("rel_l2", 0.0))}
    return row


def tolerance(floor: Floor, stage: str, name: str = "", *, rounding: bool = False) -> Tolerance:
    """The bound; where it is wide against the tensor, but not against what a gradient may be, it still decides for gradients and their running means.

    A first moment is a sum of gradients that may cancel down to their rounding, as a gradient itself does. After a resynchronised step it differs by what the
    new gradient differs, which is judged in its own row. A gradient that is nothing but rounding keeps to its bound, however small it is; with `rounding` that is known.
    """
    bound = tolerance_from_floor(floor)
    if bound.undecidable is not Reason.FLOOR_TOO_WIDE:
        return bound
    if FIRST_MOMENT.search(name):
        return replace(bound, undecidable=None) if bound.bound <= WIDEST_GRADIENT_BOUND * floor.scale else bound
    if stage != "backward":
        return bound
    if rounding or floor.max_abs >= ROUNDING_SHARE * floor.scale or bound.bound <= WIDEST_GRADIENT_BOUND * floor.scale:
        return replace(bound, undecidable=None)
    return bound


def gradient_row(row: TensorResult, floor: Floor | None) -> TensorResult:
    """The root mean square as well: a factor on a tensor whose elements all stay below the bound of its largest."""
    if row.verdict is not Verdict.PASS or floor is None:
        return row
    limit = FACTOR * sampling_allowance(floor.repeats) * floor.rmse
    if floor.max_abs >= ROUNDING_SHARE * floor.scale:
        return replace(row, hint="zero but for rounding, on both sides")
    if row.rmse > max(limit, np.spacing(np.float32(floor.scale))):
        return replace(row, verdict=Verdict.FAIL, reason=Reason.BEYOND_TOLERANCE, gate=Gate.CHANNEL,
                       hint=f"root mean square difference {row.rmse:.3g}, limit {limit:.3g}, although no element breaks the bound")
    return row


def rate_row(name: str, ref: np.ndarray, cand: np.ndarray, stage: str, step: int | None) -> TensorResult:
    """Learning rates: double precision on both sides, equal to `RATE_BOUND` relative."""
    ref, cand = np.asarray(ref, np.float64).reshape(-1), np.asarray(cand, np.float64).reshape(-1)
    if ref.shape != cand.shape:
        return TensorResult(name, name, Verdict.FAIL, Reason.SHAPE, Gate.SHAPE, stage=stage, step=step, hint=f"{ref.size} and {cand.size} numbers")
    if not np.isfinite(cand).all():
        return TensorResult(name, name, Verdict.FAIL, Reason.NOT_FINITE_CAND, Gate.FINITE, stage=stage, step=step)
    off = np.abs(cand - ref)
    worst = int(np.argmax(off))
    bound = RATE_BOUND * max(float(np.abs(ref).max()), 1e-300)
    ok = bool(off[worst] <= bound)
    return TensorResult(
        name, name, Verdict.PASS if ok else Verdict.FAIL, Reason.OK if ok else Reason.BEYOND_TOLERANCE, Gate.BOUND, stage=stage, step=step, shape=ref.shape,
        dtype="float64", size=ref.size, max_abs=float(off[worst]), index=(worst,), value_ref=float(ref[worst]), value_cand=float(cand[worst]),
        tolerance=bound, tolerance_source="double precision", hint="" if ok else f"{ref[worst]:.12g} and {cand[worst]:.12g}")


def sign_row(step: int, signs: dict[str, Any], flips: float) -> TensorResult:
    """Activations on the other side of 0: each must lie within rounding of 0."""
    ok = signs["worst"] <= WIDEST_BOUND
    hint = (f"{signs['count']} activations lie on the other side of 0, the largest by {signs['worst']:.2g} of its tensor ({signs['path']}); "
            f"harmless changes of the reference: {flips:.2g}") if signs["count"] else ""
    return TensorResult("activation signs", "activation signs", Verdict.PASS if ok else Verdict.FAIL, Reason.OK if ok else Reason.BEYOND_TOLERANCE,
                        Gate.BOUND, stage="signs", step=step, max_abs=float(signs["worst"]), tolerance=WIDEST_BOUND, tolerance_source="widest bound", hint=hint)


def replay(cost: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Box number (V,) that the rule gives for these costs (V, G) and sums of best overlaps (G,): an implementation of its own, to check both."""
    count, boxes = cost.shape
    taken = np.zeros((count, boxes), bool)
    for g in range(boxes):
        k = min(max(int(sums[g]), 1), count)
        taken[np.argsort(cost[:, g], kind="stable")[:k], g] = True
    number = np.zeros(count, np.int64)
    for row in np.flatnonzero(taken.any(axis=1)):
        mine = np.flatnonzero(taken[row])
        number[row] = (mine[0] if len(mine) == 1 else int(np.argmin(cost[row]))) + 1
    return number


def margin(cost: np.ndarray, sums: np.ndarray, row: int, one: int, other: int) -> float:
    """How near the reference's decision for a candidate prior was to the other outcome: the smallest gap among the comparisons behind it."""
    gaps = []
    for g in {one, other} - {0}:
        order = np.sort(cost[:, g - 1])
        k = min(max(int(sums[g - 1]), 1), len(order))
        gaps += [abs(float(sums[g - 1] - round(float(sums[g - 1]))))] if sums[g - 1] > 0.5 else []
        gaps += [abs(float(cost[row, g - 1] - order[i])) for i in (k - 1, k) if 0 <= i < len(order) and order[i] != cost[row, g - 1]]
    if one and other:
        gaps.append(abs(float(cost[row, one - 1] - cost[row, other - 1])))
    return min((g for g in gaps if math.isfinite(g)), default=math.inf)


def assignment_rows(step: int, ref: dict, cand: dict, double: dict, floors: dict[str, Any], found: StepJudgement) -> None:
    """Per image: the evidence within its floor, the decision exactly what the rule gives on the side's own evidence, and then the decisions
    equal, but for branch points: priors whose evidence is equal within the floor and yet decides otherwise."""
    for i in range(len([n for n in ref if n.startswith("assigned/") and n.endswith("/box")])):
        at, rows = f"assigned/{i}", []
        if f"{at}/cost" in ref:
            if f"{at}/cost" not in cand or not np.array_equal(ref[f"{at}/candidates"], cand[f"{at}/candidates"]):
                rows.append(check_row(f"{at}/candidates", False, Reason.NOT_EXACT, "other priors lie in a box", stage="assignment", step=step))
            else:
                rows += [tensor_row(step, "assignment", f"{at}/{part}", ref, cand, double, floors, found) for part in ("overlap", "sum", "fitness")]
                seen = cand[f"{at}/candidates"]
                own = np.maximum(cand[f"{at}/box"][seen], 0)
                rule = replay(cand[f"{at}/cost"], cand[f"{at}/sum"])
                ignored = cand[f"{at}/box"][seen] < 0
                wrong = np.flatnonzero((own != rule) & ~ignored)
                rows.append(check_row(
                    f"{at}/rule", not len(wrong), Reason.NOT_EXACT, "" if not len(wrong) else
                    f"{len(wrong)} priors got another box than the rule gives on the candidate's own costs, first prior {int(seen[wrong[0]])}: "
                    f"{int(own[wrong[0]])} for {int(rule[wrong[0]])}; rounding cannot explain it", stage="assignment", step=step))
        a, b = ref[f"{at}/box"], cand.get(f"{at}/box")
        if b is None or a.shape != b.shape:
            rows.append(check_row(f"{at}/box", False, Reason.SHAPE, "another number of priors", stage="assignment", step=step))
            found.rows += rows
            continue
        differ = np.flatnonzero(a != b)
        explained = f"{at}/cost" in ref and not any(r.verdict is Verdict.FAIL for r in rows) and not ((a[differ] < 0) | (b[differ] < 0)).any()
        hint = ""
        if len(differ):
            points = [point(step, i, int(p), ref, int(a[p]), int(b[p])) for p in differ] if explained else []
            found.branches += points
            hint = (f"{len(differ)} priors decided otherwise on evidence equal within the floor; smallest margin "
                    f"{min(p['margin'] for p in points):.3g}" if points else
                    f"{len(differ)} of {a.size} priors have another box, first prior {int(differ[0])}: {int(a[differ[0]])} and {int(b[differ[0]])}")
        row = TensorResult(f"{at}/box", f"{at}/box", Verdict.PASS, Reason.OK, Gate.EXACT, stage="assignment", step=step, shape=a.shape, dtype=str(a.dtype), size=a.size,
                           beyond=len(differ), tolerance=0.0, tolerance_source="exact", floor=0.0, hint=hint)
        if len(differ):
            row = replace(row, verdict=Verdict.WARN if explained else Verdict.FAIL, reason=Reason.OK if explained else Reason.NOT_EXACT)
        rows.append(row)
        equal = a == b
        if f"{at}/iou" in floors and (a > 0).any():
            bound = tolerance(Floor(**{k: tuple(v) if isinstance(v, list) else v for k, v in floors[f"{at}/iou"].items()}), "assignment")
            rows.append(compare_tensors(f"{at}/iou", np.where(equal, ref[f"{at}/iou"], 0).astype(ref[f"{at}/iou"].dtype),
                                        np.where(equal, cand[f"{at}/iou"], 0).astype(cand[f"{at}/iou"].dtype), tolerance=bound, stage="assignment", step=step))
        found.rows += rows


def point(step: int, image: int, prior: int, ref: dict, one: int, other: int) -> dict[str, Any]:
    at = f"assigned/{image}"
    row = int(np.flatnonzero(ref[f"{at}/candidates"] == prior)[0])
    return {"step": step, "image": image, "prior": prior, "ref": one, "cand": other, "margin": margin(ref[f"{at}/cost"], ref[f"{at}/sum"], row, one, other)}


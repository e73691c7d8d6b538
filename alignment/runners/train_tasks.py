"""One side of ``alignment.train``: a process that takes one training step for every line on its standard input.

The reference steps along its own way and measures, where it is asked to, how far harmless changes move each number of the step. The candidate takes over the
reference's whole state before every step. Where a step has to choose (which box a prior gets, on which side of 0 an activation lies), the
choice is judged on its own, and what follows is computed on the *reference's* choice: otherwise one honest tie would shake every gradient.
The update is computed from the reference's gradients for the same reason: AdamW turns the noise of a vanishing gradient into a full step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from alignment.noise import measure_floor
from alignment.result import write_json
from alignment.runners.tasks import Run, peak_memory_mb, versions
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError

#: Activations with a kink at 0, and their slope left of it (None: the module's own `negative_slope`).
KINKED = {"LeakyReLU": None, "ReLU": 0.0, "ReLU6": 0.0}
#: IoU of a prior without a box (`assigner.UNMATCHED` of both sides).
UNMATCHED = -1e8


class Signs:
    """On which side of 0 each activation's input lies: recorded from one run, then followed by the others.

    Followed means: elements whose sign differs from the record are put through the recorded side's line. They lie within rounding of 0, or
    the row made of `found` fails; the module's own arithmetic decides everything else.
    """

    def __init__(self, backend: Any, recorded: list[np.ndarray] | None = None):
        self.backend, self.recorded, self.bits = backend, recorded, []
        self.calls, self.seen = 0, []

    def __call__(self, path: str, module: Any, inputs: tuple, output: Any) -> Any:
        kind = self.backend.type_name(module)
        if kind not in KINKED:
            return None
        x = inputs[0]
        if self.recorded is None:
            self.bits.append(np.packbits(self.backend.array(x) > 0))
            return None
        slope = module.negative_slope if KINKED[kind] is None else KINKED[kind]
        count = int(np.prod(x.shape))
        if self.calls >= len(self.recorded) or len(self.recorded[self.calls]) != -(-count // 8):
            raise UserError(f"{path} is called on another shape or more often than on the reference: run alignment.structure first")
        mask = self.backend.tensor(np.unpackbits(self.recorded[self.calls], count=count).astype(bool).reshape(tuple(x.shape)))
        self.calls += 1
        differs = (x > 0) != mask
        size = self.backend.where(differs, x.abs(), x * 0).detach()
        self.seen.append((path, self.backend.where(differs, x * 0 + 1, x * 0).detach().sum(), size.max(), x.detach().abs().max()))
        return self.backend.where(differs, self.backend.where(mask, x, x * slope), output)

    def found(self) -> dict[str, Any]:
        """How many signs differ, and the largest of them relative to its tensor."""
        number = lambda t: float(np.asarray(self.backend.array(t)).reshape(-1)[0])
        rows = [(path, number(n), number(top) / max(number(whole), 1e-30)) for path, n, top, whole in self.seen]
        worst = max(rows, key=lambda r: r[2], default=("", 0, 0.0))
        return {"count": int(sum(r[1] for r in rows)), "worst": worst[2], "path": worst[0]}


class Choices:
    """Stands in for an assigner: keeps what it decides, and hands on the reference's decision with the side's own overlaps."""

    def __init__(self, assigner: Any, reference: list[np.ndarray] | None = None):
        self.assigner, self.reference, self.own = assigner, reference, []

    def assign(self, logits, boxes, priors, gt_boxes, gt_labels, ignored=None, evidence=False):
        """One image, as the reference assigns."""
        return self.held(self.assigner.assign(logits, boxes, priors, gt_boxes, gt_labels, ignored, True))

    def assign_batch(self, logits, boxes, priors, gt_boxes, gt_labels, ignored, limit=0.0, evidence=False):
        """A whole batch, as the port assigns."""
        return [self.held(own) for own in self.assigner.assign_batch(logits, boxes, priors, gt_boxes, gt_labels, ignored, limit, True)]

    def held(self, own):
        """Keep `own`; hand on the reference's decision for the same image in its place."""
        self.own.append(own)
        if self.reference is None:
            return own
        index = self.reference[len(self.own) - 1]
        if np.array_equal(index, own.gt_index):
            return own
        iou = np.full_like(own.iou, UNMATCHED)
        seen = own.evidence
        if seen is None:
            raise UserError("the sides do not even agree on which priors lie in a box: run alignment.structure first")
        chosen = index[seen.candidates]
        rows = np.flatnonzero(chosen > 0)
        iou[seen.candidates[rows]] = seen.overlap[rows, chosen[rows] - 1]
        return dataclasses.replace(own, gt_index=index.copy(), iou=iou)


class Stepper:
    """A TrainingStep of one side, with what is needed to hold it to the reference's choices."""

    def __init__(self, backend: Any, model: Any, config: Any):
        self.backend, self.module = backend, backend.training_module()
        with backend.learning():
            self.step = self.module.TrainingStep(model, config)

    def load(self, state: dict[str, np.ndarray]) -> None:
        with self.backend.learning():
            self.module.load_training_state(self.step, state)

    def state(self) -> dict[str, np.ndarray]:
        return {k: np.ascontiguousarray(v) if v.ndim else v for k, v in self.module.training_state(self.step).items()}

    def run(self, batch: dict, *, signs: Signs | None = None, assigned: list[np.ndarray] | None = None, gradients: dict[str, np.ndarray] | None = None,
            observe: bool = True) -> dict[str, np.ndarray]:
        """One step; every number it made, by name. With `gradients` the update starts from these, after the own ones are kept."""
        step, backend = self.step, self.backend
        choices, compute, refed_norm = Choices(step.assigner, assigned), step.compute, []
        kept: dict[str, np.ndarray] = {}

        def watched(batch, keep_gradients=False, evidence=False):
            report, own, norm = compute(batch, True, True)
            kept.update({f"gradient/{k}": np.ascontiguousarray(v) if v.ndim else v for k, v in report.gradients.items()})
            if gradients is not None:
                own = {k: backend.like(gradients[k], v) for k, v in own.items()}
                norm = self.module.global_norm(own.values())
            refed_norm.append(backend.array(norm).reshape(-1).copy())
            return report, own, norm

        kind = np.float64 if any(v.dtype == np.float64 for k, v in self.module.state_arrays(step.model).items()) else np.float32
        model, backend.model = backend.model, step.model
        try:
            step.compute = watched
            if observe:
                step.assigner = choices
            with backend.learning(), backend.intercept(signs) if signs is not None else contextlib.nullcontext():
                report = step.step(batch)
        finally:
            step.compute, step.assigner, backend.model = compute, choices.assigner, model
        found = {f"loss/{k}": np.array([v], kind) for k, v in {**report.terms, "total": report.loss}.items()}
        found.update(kept)
        found["norm/own"], found["norm/given"] = np.array([report.grad_norm], kind), refed_norm[0].astype(kind)
        found["rate"] = np.array([report.lr], np.float64)
        for i, one in enumerate(choices.own if observe else report.assignments):
            found[f"assigned/{i}/box"], found[f"assigned/{i}/iou"] = one.gt_index.astype(np.int32), np.where(one.iou == UNMATCHED, 0, one.iou).astype(kind)
            if one.evidence is not None:
                e = one.evidence
                found.update({f"assigned/{i}/{k}": np.ascontiguousarray(v) for k, v in (
                    ("candidates", e.candidates.astype(np.int64)), ("cost", e.cost), ("overlap", e.overlap), ("sum", e.topk_sum))})
        return found

    def new(self) -> dict[str, np.ndarray]:
        return {f"after/{k}": v for k, v in self.state().items()}


def nudged(array: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Every element but zeros moved to a neighbouring number, up or down by a coin."""
    if array.dtype.kind != "f" or array.dtype == np.float64:
        return array
    towards = np.where(random.rand(*array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
    return np.asarray(np.where(array == 0, array, np.nextafter(array, towards)), array.dtype)


def read_batch(path: str) -> dict[str, Any]:
    """A batch as `alignment.train` wrote it."""
    with np.load(path, allow_pickle=False) as file:
        count = len(file["img"])
        return {"img": file["img"], **{key: [file[f"{key}/{i}"] for i in range(count)] for key in ("gt_bboxes", "gt_labels", "gt_bboxes_ignore")}}


def floors(double: dict, variants: list[dict], names: tuple[str, ...]) -> dict[str, Any]:
    """Floor of every floating tensor of a step that each variant has in the same shape."""
    found = {}
    for name, truth in double.items():
        if truth.dtype.kind != "f" or name == "rate" or truth.size == 0 or any(name not in v or v[name].shape != truth.shape for v in variants):
            continue
        runs = [v[name] for v in variants]
        if all(np.isfinite(a).all() for a in (truth, *runs)) and len({a.dtype for a in runs}) == 1:
            found[name] = dataclasses.asdict(measure_floor(truth, runs, names, channel_axis=None))
    return found


def fitness(found: dict[str, np.ndarray], factor: float) -> None:
    """Add exp(-cost / factor): the cost without its logarithm, which turns the last bit of a vanishing overlap into whole units."""
    for name in [n for n in found if n.startswith("assigned/") and n.endswith("/cost")]:
        found[name.replace("/cost", "/fitness")] = np.exp(-found[name].astype(np.float64) / factor).astype(found[name].dtype)


def only_agreed(found: dict[str, np.ndarray], double: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`found` with the IoU of its assigned boxes where float64 decides alike, as they are compared; a near tie decided otherwise is no rounding of an IoU."""
    changed = dict(found)
    for name in [n for n in double if n.startswith("assigned/") and n.endswith("/iou")]:
        box = name.replace("/iou", "/box")
        changed[name] = np.where(found[box] == double[box], found[name], double[name].astype(found[name].dtype))
    return changed


def serve(side: Any, ready: dict[str, Any], answers: Any) -> None:
    """Say that `side` is ready, then do what each line of standard input asks for, until it ends; one line of JSON to `answers` each time."""
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        started = time.perf_counter()
        answer = getattr(side, command["do"])(command)
        print(json.dumps({**answer, "seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb()}), file=answers, flush=True)


class Side:
    """What both sides answer to: ``step`` and ``epoch``; the reference to ``measure`` as well."""

    def __init__(self, run: Run, task: dict[str, Any]):
        self.run, self.task, self.backend = run, task, run.backend
        self.config = load_config(task["config"])
        self.weights = load_file(task["start"])
        self.factor = self.config.model.arch.head.assigner_cfg.iou_factor
        self.main = self.stepper()

    def stepper(self) -> Stepper:
        self.backend.load(self.config, self.weights, training_branch=True)
        return Stepper(self.backend, self.backend.model, self.config)

    def serve(self) -> None:
        serve(self, {"ready": True, "versions": versions(self.backend)}, sys.stdout)


class Reference(Side):
    """Steps along its own way; beside each step, the floors."""

    def __init__(self, run: Run, task: dict[str, Any]):
        super().__init__(run, task)
        self.twin, self.double = self.stepper(), Stepper(self.backend, self.backend.doubled(self.backend.model), self.config)
        self.state = self.main.state()

    def epoch(self, command: dict) -> dict:
        save_file(self.state, command["before"])
        for _ in range(command["count"]):
            self.main.step.end_epoch()
        self.state = self.main.state()
        return {"lr": self.state["lr"].tolist(), "epoch": int(self.state["epoch"])}

    def step(self, command: dict) -> dict:
        """One step of its own; with ``measure`` (as without a word about it) the floors of its numbers too."""
        batch, before, signs = read_batch(command["batch"]), self.state, Signs(self.backend)
        save_file(before, command["before"])
        found = self.main.run(batch, signs=signs)
        self.state = self.main.state()
        found.update({f"after/{k}": v for k, v in self.state.items()})
        fitness(found, self.factor)
        same = True
        if command["index"] == 0:
            self.twin.load(before)
            plain = self.twin.run(batch, observe=False)
            same = all(np.array_equal(plain[k], found[k]) for k in plain if k.startswith(("loss/", "gradient/")))
        save_file({**found, **{f"signs/{i:04d}": b for i, b in enumerate(signs.bits)}}, command["output"])
        # safetensors sorts by type and name; the order of execution goes with the floors
        answer = {"observer_equal": bool(same), "flips": 0.0, "order": list(found)}
        return {**answer, **(self.spread(command, batch, before, found, signs.bits) if command.get("measure", True) else {})}

    def measure(self, command: dict) -> dict:
        """The floors of a step that was taken without; the reference's own way goes on from where it is."""
        found = load_file(command["output"])
        bits = [found.pop(k) for k in sorted(found) if k.startswith("signs/")]
        before = load_file(command["before"])
        # both in the order of execution again, in which the changes draw their coins
        return self.spread(command, read_batch(command["batch"]), {k: before[k] for k in self.state}, {k: found[k] for k in command["order"]}, bits)

    def spread(self, command: dict, batch: dict, before: dict, found: dict, bits: list[np.ndarray]) -> dict:
        """Write the float64 run of the step `found` (from the state `before`) and the floors of its numbers."""
        random = np.random.RandomState(self.task.get("seed", 0) + command["index"])
        held = {"assigned": [found[f"assigned/{i}/box"] for i in range(len(batch["img"]))],
                "gradients": {k.removeprefix("gradient/"): v for k, v in found.items() if k.startswith("gradient/")}}
        variants, flips = [found], []
        changes = self.backend.training_changes()
        for name, around, moves in changes:
            state = {k: nudged(v, random) for k, v in before.items()} if moves == "weights" else before
            images = nudged(batch["img"], random) if moves == "input" else batch["img"]
            given = {k: nudged(v, random) for k, v in held["gradients"].items()} if moves else held["gradients"]
            self.twin.load(state)
            follow = Signs(self.backend, bits)
            with around():
                variants.append(self.twin.run({**batch, "img": images}, signs=follow, assigned=held["assigned"], gradients=given))
            variants[-1].update(self.twin.new())
            fitness(variants[-1], self.factor)
            flips.append(follow.found()["worst"])
        self.double.load(before)
        double = self.double.run(batch, signs=Signs(self.backend, bits), assigned=held["assigned"], gradients=held["gradients"])
        double.update(self.double.new())
        fitness(double, self.factor)
        variants = [only_agreed(one, double) for one in variants]
        measured = floors(double, variants, ("as is", *(name for name, *_ in changes)))
        save_file({k: v.astype(np.float64) for k, v in double.items() if k in measured}, command["double"])
        write_json(Path(command["floors"]), {"floors": measured, "order": list(found)})
        return {"flips": max(flips, default=0.0)}


class Candidate(Side):
    """Takes over the reference's state before each step; beside it, a free run that never does."""

    def __init__(self, run: Run, task: dict[str, Any]):
        super().__init__(run, task)
        self.free = self.stepper()

    def epoch(self, command: dict) -> dict:
        self.main.load(load_file(command["before"]))
        for one in (self.main, self.free):
            for _ in range(command["count"]):
                one.step.end_epoch()
        state = self.main.state()
        return {"lr": state["lr"].tolist(), "epoch": int(state["epoch"])}

    def step(self, command: dict) -> dict:
        batch, given = read_batch(command["batch"]), load_file(command["reference"])
        bits = [given[k] for k in sorted(given) if k.startswith("signs/")]
        signs = Signs(self.backend, bits)
        self.main.load(load_file(command["before"]))
        found = self.main.run(
            batch, signs=signs, assigned=[given[f"assigned/{i}/box"] for i in range(len(batch["img"]))],
            gradients={k.removeprefix("gradient/"): v for k, v in given.items() if k.startswith("gradient/")})
        found.update(self.main.new())
        fitness(found, self.factor)
        answer = {"signs": signs.found()}
        try:
            free = self.free.run(batch, observe=False)
            found.update({f"free/{k}": v for k, v in free.items() if k.startswith(("loss/", "norm/own", "rate")) or k.endswith("/box")})
            found.update({f"free/{k}": v for k, v in self.free.state().items() if k.startswith("model/")})
        except UserError as error:
            answer["free_stopped"] = str(error)
        save_file(found, command["output"])
        return answer


def shapes(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Name to shape of the whole state dict, for the weights to start from."""
    return {"shapes": {k: list(v) for k, v in run.backend.shapes(load_config(task["config"])).items()}}


def train_reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    Reference(run, task).serve()
    return {}


def train_candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """With `plant` (a module and a function of it), that function is called first: how the tests plant faults."""
    if task.get("plant"):
        import importlib

        module, function = task["plant"].rsplit(".", 1)
        getattr(importlib.import_module(module), function)()
    Candidate(run, task).serve()
    return {}

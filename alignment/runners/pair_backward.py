"""The backward pass of one side of any pair, in training mode with dropout off: gradients of every call's outputs, of the inputs and of every
parameter in the whole run (``run/``), and of each call alone (``own/``) on the reference's inputs and the reference's gradients of its outputs.

All names are the reference's; the candidate translates its own. Harmless changes as in `pair_tasks`, and one more: activations with a kink at 0 whose
input lies within rounding of 0 are put on the other side, because there rounding decides which of two gradients is right.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alignment import pair_file
from alignment.bundle import Bundle, BundleWriter
from alignment.noise import tolerance_from_floor
from alignment.runners import pair_tasks
from alignment.runners.backend import call_name, rebuild
from alignment.runners.backward_tasks import projection
from alignment.runners.tasks import Run, outputs, peak_memory_mb
from jt_nanodet.errors import UserError

#: The whole model's call, whose gradient is the run's own.
MODEL = "(model)"
KINK = "activations within rounding of 0 on the other side"


class Watch(pair_tasks.Recorder):
    """A recorder that keeps each output's gradient as well; `order`: calls as they started; `inside`: the calls within each; `kinks`: the inputs of
    activations with a kink at 0. With `light` no array is kept."""

    def __init__(self, hands: Any, light: bool = False):
        super().__init__(hands)
        self.light, self.order, self.kept = light, [], {}
        self.inside: dict[str, list[str]] = {}
        self.kinks: dict[str, Any] = {}

    def before(self, path: str, module: Any, args: tuple, kwargs: dict) -> None:
        call = call_name(path, self.counts.get(path, 0) + 1)
        for outer in self.started:
            self.inside[outer].append(call)
        self.order.append(call)
        self.inside[call] = []
        if self.hands.is_kinked(module) and args:
            self.kinks[call] = self.hands.snapshot(args[0])
        super().before(path, module, args, kwargs)

    def after(self, path: str, module: Any, output: Any) -> None:
        for name, tensor in outputs(self.started[-1] or MODEL, output, lambda t: t).items():
            if self.hands.is_floating(tensor):
                self.kept[f"run/{name}"] = self.hands.keep(tensor)
        super().after(path, module, output)

    def finish(self) -> None:
        if self.light:
            self.events.clear()
        else:
            super().finish()


def total_of(pair: Any, hands: Any, output: Any, seed: int) -> Any:
    """The pair's loss of the model's output, or the seeded weighted sum of all floating outputs: then no gradient vanishes."""
    if pair.loss:
        total = pair_file.call(pair, "loss", output)
        if not hasattr(total, "shape") or not hands.is_floating(total) or int(np.prod(tuple(total.shape))) != 1:
            raise UserError(f"loss() of {pair.spec} must return one floating number of the framework that made the outputs: mend it")
        return total.sum()
    return sum(hands.weighted(t, projection(tuple(t.shape), seed + i)) for i, t in enumerate(floating(pair, hands, output)))


def floating(pair: Any, hands: Any, output: Any) -> list[Any]:
    """The floating tensors of an output, in order."""
    found = [t for t in outputs(MODEL, output, lambda t: t).values() if hands.is_floating(t) and int(np.prod(tuple(t.shape)))]
    if not found:
        raise UserError(f"no output of {pair.spec} is a floating tensor, so there is nothing to differentiate: return one, or run without --backward")
    return found


def parameters(backend: Any, model: Any) -> dict[str, Any]:
    return {f"{path}.{name}" if path else name: tensor for path, module in backend.modules_of(model) for name, tensor in backend.trained_of(module)}


def whole(run: Run, pair: Any, hands: Any, model: Any, value: Any, side: str, change: Any = None, light: bool = True) -> tuple[Watch, dict[str, np.ndarray]]:
    """(the watched run, ``run/OUTPUT``, ``run/input/N``, ``run/param/KEY`` and ``loss``) of one forward and backward pass."""
    backend, seed, watch, number = run.backend, run.job["tasks"][0].get("seed", 0), Watch(hands, light), iter(range(1 << 30))
    change = change or (lambda t: t)

    def tensor(array: np.ndarray) -> Any:
        made = hands.leaf(array, change)
        if hands.is_floating(made):
            watch.kept[f"run/input/{next(number)}"] = hands.keep(made)
        return hands.passed(made)

    with backend.learning():
        watch.kept.update({f"run/param/{n}": hands.keep(t) for n, t in parameters(backend, model).items()})
        with watch.watching(model):
            output = pair_tasks.call_model(pair, model, value, tensor, f"{side} in training mode")
        total = total_of(pair, hands, output, seed)
        try:
            found = hands.gradients(total, watch.kept)
        except Exception as error:
            raise UserError(f"the loss of the {side} of {pair.spec} has no gradient ({pair_file.one_line(error)}): mend loss() or the model") from error
    precision = max((a.dtype for a in found.values()), default=np.dtype(np.float32))
    return watch, {**found, "loss": hands.array(total).reshape(1).astype(precision)}


def alone(hands: Any, backend: Any, module: Any, described: Any, load: Any, given: dict[str, np.ndarray], call: str, change: Any = None) -> dict[str, np.ndarray]:
    """``input/N`` and ``param/NAME`` (the module's own) of one call, for these inputs and gradients of its outputs."""
    kept: dict[str, Any] = {}
    change = change or (lambda t: t)

    def tensor(name: str) -> Any:
        made = hands.leaf(load(name), change)
        if hands.is_floating(made):
            kept[f"input/{len(kept)}"] = hands.keep(made)
        return hands.passed(made)

    with backend.learning():
        inputs = rebuild(described, tensor)
        params = {f"param/{n}": hands.keep(t) for n, t in backend.trained_of(module)}
        found = outputs(call or MODEL, module(*inputs["args"], **inputs["kwargs"]), lambda t: t)
        total = sum(hands.weighted(t, hands.array(hands.leaf(given[n], change))) for n, t in found.items() if n in given)
        if not kept and not params:
            return {}
        return hands.gradients(total, {**kept, **params})


def given_gradients(watch: Watch, found: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The gradient of each output as the call alone gets it; where nothing comes back to a call, a seeded one in its place, or the call would be tested on zeros."""
    given = {}
    for call, (_, _, made) in watch.calls.items():
        ours = {n: found[f"run/{n}"] for n in made if f"run/{n}" in found and found[f"run/{n}"].size}
        if ours and not any(g.any() for g in ours.values()):
            ours = {n: projection(g.shape, seed + i) for i, (n, g) in enumerate(ours.items())}
        given.update({n: np.array(g, np.float32) for n, g in ours.items()})
    return given


def refed(watch: Watch, given: dict[str, np.ndarray]) -> list[str]:
    """Calls that can be run alone: their inputs can be stored and an output has a gradient. The model itself is not: its own pass is the whole run."""
    return [c for c in watch.order if c and watch.calls[c][1] is not None and any(n in given for n in watch.calls[c][2])]


class Reference:
    """The base pass and its variants."""

    def __init__(self, run: Run, task: dict[str, Any]):
        self.run, self.backend, self.seed = run, run.backend, task.get("seed", 0)
        self.bundle = Bundle.open(task["reference"])
        self.pair, _, self.hands = pair_tasks.begin(run, task, "build_reference")
        self.hands.load(pair_tasks.weights_of(self.bundle))
        self.value = rebuild(self.bundle.header.extra["value"], lambda name: np.array(self.bundle[name]))
        self.model = self.backend.model
        self.models = {"": self.model, "nudged": self.backend.nudged(self.model, self.seed), "double": self.hands.double(self.model)}
        for model in self.models.values():
            self.dropout = self.hands.training(model)
        self.watch, self.found = whole(run, self.pair, self.hands, self.model, self.value, "reference", light=False)
        self.given = given_gradients(self.watch, self.found, self.seed)
        self.order = refed(self.watch, self.given)
        self.kinks = defaultdict(list, {c: [a] for c, a in self.watch.kinks.items()})

    def variant(self, which: str = "", change: Any = None, near: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Whole run and every call alone, of one of the models; with `near` the masked activations lie on the other side."""
        model = self.models[which]
        with self.other_side(model, near, self.watch.order):
            watch, found = whole(self.run, self.pair, self.hands, model, self.value, "reference", change)
        for call, array in watch.kinks.items():
            self.kinks[call].append(array)
        return {**found, **self.each_alone(model, change, near)}

    def each_alone(self, model: Any, change: Any = None, near: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        modules, found = dict(self.backend.modules_of(model)), {}
        for call in self.order:
            path, described, _ = self.watch.calls[call]
            with self.other_side(model, near, [call, *self.watch.inside[call]]):
                one = alone(self.hands, self.backend, modules[path], described, self.watch.read, self.given, call, change)
            found.update({f"own/{call}/{n}": a for n, a in one.items()})
        return found

    @contextlib.contextmanager
    def other_side(self, model: Any, near: dict[str, np.ndarray] | None, calls: list[str]) -> Iterator[None]:
        if near is None:
            yield
            return
        waiting: dict[str, list[str]] = defaultdict(list)
        for call in calls:
            waiting[self.watch.calls[call][0]].append(call)
        with self.hands.other_side(model, lambda path: near.get(waiting[path].pop(0)) if waiting[path] else None):
            yield


def near_zero(kinks: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """For each call of an activation with a kink the elements that rounding may put on either side of 0, where there are any.

    `kinks`: what entered each call as is, under every change, and last in float64.
    """
    masks = {}
    for call, runs in kinks.items():
        measured = pair_tasks.floor(runs[-1], runs[:-1], [str(i) for i in range(len(runs) - 1)])
        if measured is not None:
            measured = {**measured, "channel_axis": None, "channel_rmse": None}
            bound = tolerance_from_floor(pair_tasks.Floor(**measured)).bound
            mask = np.abs(runs[0]) <= bound
            if mask.any():
                masks[call] = mask.reshape(-1)
    return masks


def reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    run.say("backward pass")
    side = Reference(run, task)
    backend, hands = side.backend, side.hands
    runs, names = [{**side.found, **side.each_alone(side.model)}], ["as is"]
    for change in backend.pair_changes(side.seed):
        run.say(f"floors: {change.name}")
        with change.around():
            runs.append(side.variant("nudged" if change.weights else "", change.before))
        names.append(change.name)
    run.say("floors: float64")
    truth = side.variant("double", hands.widened)
    near = near_zero(side.kinks)
    if near:
        runs.append(side.variant("", None, near))
        names.append(KINK)
    floors = {n: pair_tasks.floor(a, [r[n] for r in runs], names, channel_axis=None) for n, a in truth.items() if all(n in r for r in runs)}
    watch = side.watch
    with BundleWriter(task["output"], pair_tasks.header(run, task, side.bundle.header.weights_sha256, side.bundle.header.inputs_sha256, mode="train")) as bundle:
        for name, array in {**runs[0], **{f"given/{n}": a for n, a in side.given.items()}, **watch.arrays}.items():
            bundle.add(name, array)
        for call in side.order:
            for name, array in watch.calls[call][2].items():
                bundle.add(f"out/{name}", array)
        for name, found in floors.items():
            if found:
                bundle.add(f"double/{name}", truth[name])
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra={
            "floors": floors, "order": watch.order, "refed": side.order, "dropout": side.dropout, "near_zero": {c: int(m.sum()) for c, m in near.items()},
            "calls": {c: {"path": p, "inputs": i, "outputs": list(f)} for c, (p, i, f) in watch.calls.items()}, "loss": "loss()" if side.pair.loss else "seeded weighted sum of all floating outputs"})
    return {"calls": len(watch.order)}


def candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    made, backend = pair_tasks.port(run, task, Bundle.open(task["reference"])), run.backend
    ref, hands, model = Bundle.open(task["backward"]), made.hands, backend.model
    hands.training(model)
    run.say("backward pass")
    _, found = whole(run, made.pair, hands, model, made.value, "candidate")
    keys = Keys(made)
    renamed = {f"run/param/{keys.source(n.removeprefix('run/param/'))}" if n.startswith("run/param/") else n: keys.turned(n, a) for n, a in found.items()}
    where, modules, raised, shown = {m.ref: m.cand for m in made.matches if m.ref is not None}, dict(backend.modules()), {}, {}
    given = {n.removeprefix("given/"): np.array(ref[n]) for n in ref if n.startswith("given/")}
    for call, one in ref.header.extra["calls"].items():
        path = where.get(one["path"])
        for name in one["outputs"] if path is not None else ():
            other = (path + call[len(one["path"]):] or MODEL) + name[len(call or MODEL):]
            if f"run/{other}" in found:
                shown[f"run/{name}"] = found[f"run/{other}"]
    shown.update({n: a for n, a in renamed.items() if n.startswith(("run/param/", "run/input/")) or n == "loss"})
    run.say("every call again on the reference's own input and gradient")
    for call in ref.header.extra["refed"]:
        one = ref.header.extra["calls"][call]
        path = where.get(one["path"])
        if path is None:
            continue
        try:
            for name, array in alone(hands, backend, modules[path], one["inputs"], lambda n: np.array(ref[n]), given, call).items():
                if name.startswith("param/"):
                    key = f"{path}.{name.removeprefix('param/')}" if path else name.removeprefix("param/")
                    name, array = f"param/{keys.source(key).removeprefix(one['path'] + '.')}", keys.turned(f"run/param/{key}", array)
                shown[f"own/{call}/{name}"] = array
        except Exception as error:  # the port's own code: what it says belongs into the report, at its place
            raised[call] = f"{type(error).__name__}: {pair_file.one_line(error)}"
    with BundleWriter(task["output"], pair_tasks.header(run, task, ref.header.weights_sha256, ref.header.inputs_sha256, mode="train")) as bundle:
        for name, array in shown.items():
            bundle.add(name, array)
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra={"raised": raised, "account": [vars(r) for r in made.account]})
    return {"calls": len(given)}


class Keys:
    """From the candidate's names of weights to the reference's, and gradients into the reference's layout."""

    def __init__(self, made: pair_tasks.Port):
        self.rows = {r.target: r for r in made.account if r.target is not None}

    def source(self, key: str) -> str:
        return self.rows[key].source if key in self.rows else key

    def turned(self, name: str, gradient: np.ndarray) -> np.ndarray:
        row = self.rows.get(name.removeprefix("run/param/"))
        if row is None or tuple(row.shape) == gradient.shape and row.reason != "transposed":
            return gradient
        return np.ascontiguousarray(gradient.T) if row.reason == "transposed" else gradient.reshape(row.shape)

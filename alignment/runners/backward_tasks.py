"""One backward pass on either side, in training mode: gradients of every leaf call's output and of every parameter, and each call alone.

The loss is a seeded projection of both heads' raw outputs: every output counts, and no target or assignment can hide a difference.
In the whole run, activations follow the reference's signs (`train_tasks.Signs`), so that a kink at 0 does not shake what comes before it.
Alone, a call gets the reference's own inputs and the reference's gradient of its output: what differs then is its own backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from alignment.noise import measure_floor
from alignment.result import write_json
from alignment.runners.backend import call_name
from alignment.runners.tasks import Run
from alignment.runners.train_tasks import Signs, nudged
from jt_nanodet.weight_rules import TRAINING_ONLY

#: A gradient of theirs goes to the largest of several elements: where two lie within one ULP the choice is a matter of luck, and a floor that holds the choice decides nothing.
CHOOSES = ("MaxPool2d",)
#: Inputs of calls whose repeats are in memory at once.
GROUP_BYTES = 32 << 20


def projection(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Weights of an output in the loss; float32 in both precisions, so that both differentiate the same function."""
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def whole(backend: Any, model: Any, images: np.ndarray, seed: int, signs: Signs, auxiliary: bool) -> tuple[dict, dict]:
    """(calls: name to (path, module, inputs, output), gradients: ``grad/CALL`` and ``param/NAME`` to arrays)."""
    calls: dict[str, tuple] = {}
    counts: dict[str, int] = {}

    def seen(path: str, module: Any, inputs: tuple, output: Any) -> Any:
        changed = signs(path, module, inputs, output)
        counts[path] = counts.get(path, 0) + 1
        if path and backend.is_leaf(module) and hasattr(output, "shape") and len(inputs) == 1 and hasattr(inputs[0], "shape"):
            calls[call_name(path, counts[path])] = (path, module, inputs, output if changed is None else changed)
        return changed

    kept, backend.model = backend.model, model
    try:
        with backend.learning(), backend.apart(), backend.intercept(seen):
            total, params = loss(backend, model, images, seed, auxiliary)
            found = backend.gradients(total, [c[3] for c in calls.values()] + list(params.values()))
    finally:
        backend.model = kept
    names = [f"grad/{c}" for c in calls] + [f"param/{p}" for p in params]
    return calls, {n: np.ascontiguousarray(backend.array(g)) for n, g in zip(names, found)}


def loss(backend: Any, model: Any, images: np.ndarray, seed: int, auxiliary: bool) -> tuple[Any, dict[str, Any]]:
    """The projection of one pass in training mode, and the parameters it depends on, by name."""
    model.train()
    x = backend.leaf(images, model)
    outputs = model.forward_aux(x, False) if auxiliary else [model(x)]
    total = sum((t * backend.like(projection(tuple(t.shape), seed + i), t)).sum() for i, t in enumerate(outputs))
    return total, {n: t for n, t in trained(backend, model) if auxiliary or not n.startswith(TRAINING_ONLY)}


def unseen(backend: Any, images: np.ndarray, seed: int, auxiliary: bool) -> dict[str, np.ndarray]:
    """``param/NAME`` of a pass that nobody looks at."""
    with backend.learning():
        total, params = loss(backend, backend.model, images, seed, auxiliary)
        found = backend.gradients(total, list(params.values()))
    return {f"param/{n}": np.ascontiguousarray(backend.array(g)) for n, g in zip(params, found)}


def observer_equal(backend: Any, images: np.ndarray, seed: int, auxiliary: bool, recorded: dict[str, np.ndarray] | None = None) -> bool:
    """Whether recording leaves the gradient of every parameter as it is, bit for bit; `recorded`: of a pass that followed nobody's signs, made here where there is none."""
    bare = unseen(backend, images, seed, auxiliary)
    if recorded is None:
        recorded = whole(backend, backend.model, images, seed, Signs(backend), auxiliary)[1]
    return all(np.array_equal(array, recorded[name]) for name, array in bare.items())


def trained(backend: Any, model: Any) -> list[tuple[str, Any]]:
    """(name, tensor) of every parameter in training mode."""
    return [(f"{path}.{name}" if path else name, tensor) for path, module in backend.modules_of(model) for name, tensor in backend.trained_of(module)]


def alone(backend: Any, module: Any, image: np.ndarray, gradient: np.ndarray, model: Any) -> dict[str, np.ndarray]:
    """Gradients of one call's input (``input``) and of its parameters, for this input and this gradient of the output."""
    with backend.learning():
        x = backend.leaf(image, model)
        params = dict(backend.trained_of(module))
        y = module(x)
        found = backend.gradients((y * backend.like(gradient, y)).sum(), [x, *params.values()])
    return {n: np.ascontiguousarray(backend.array(g)) for n, g in zip(("input", *params), found)}


def moved(kind: str, array: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """An input of a module of this type, every element moved by one ULP; all upwards where the module chooses the largest, so that the order, ties included, stays."""
    return np.nextafter(array, np.array(np.inf, array.dtype)) if kind in CHOOSES else nudged(array, random)


def unmoved(kind: str, array: np.ndarray) -> np.ndarray:
    return array


def all_alone(backend: Any, model: Any, given: dict[str, np.ndarray], order: list[str], move: Callable[[str, np.ndarray], np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Every call alone, by ``own/CALL/PART``; `move` is what is done to its input."""
    move, modules = move or unmoved, dict(backend.modules_of(model))
    found = {}
    for call in order:
        path = call.split("@")[0]
        if path in modules:
            image = move(backend.type_name(modules[path]), given[f"in/{call}"])
            found.update({f"own/{call}/{n}": a for n, a in alone(backend, modules[path], image, given[f"grad/{call}"], model).items()})
    return found


def groups(order: list[str], given: dict[str, np.ndarray]) -> Iterator[tuple[int, list[str]]]:
    """The calls in runs of at most GROUP_BYTES of input, so that memory holds the repeats of a few at once; with how many came before."""
    group: list[str] = []
    size = done = 0
    for call in order:
        if group and size > GROUP_BYTES:
            yield done, group
            done, group, size = done + len(group), [], 0
        group.append(call)
        size += given[f"in/{call}"].nbytes
    if group:
        yield done, group


def reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    run.ready(task)
    backend, images, seed, auxiliary = run.backend, np.load(task["inputs"], allow_pickle=False), task.get("seed", 0), run.auxiliary
    model, double, changes, random = backend.model, backend.doubled(backend.model), backend.training_changes(), np.random.RandomState(seed)
    other, names = moved_model(run, random), ("as is", *(name for name, *_ in changes))
    signs, floors, truth = Signs(backend), {}, {}
    run.say("backward pass")
    calls, found = whole(backend, model, images, seed, signs, auxiliary)
    same = observer_equal(backend, images, seed, auxiliary, found)
    order, types = list(calls), {c: backend.type_name(m) for c, (_, m, _, _) in calls.items()}
    found.update({f"in/{c}": np.ascontiguousarray(backend.array(i[0])) for c, (_, _, i, _) in calls.items()})
    calls.clear()

    def measure(first: dict[str, np.ndarray], again: Callable[[Any, Callable], dict[str, np.ndarray]]) -> None:
        """Floors of the tensors of `first`, from the same pass under every harmless change and in float64."""
        repeats = [first]
        for _, around, moves in changes:
            with around():
                repeats.append(again(other if moves == "weights" else model, functools.partial(moved, random=random) if moves == "input" else unmoved))
        exact = again(double, unmoved)
        truth.update(exact)
        floors.update({n: dict(vars(measure_floor(a, [one[n] for one in repeats], names, channel_axis=None))) for n, a in exact.items() if a.size})

    run.say(f"floors of the whole pass, in float64 and under {len(changes)} harmless changes")
    measure(found, lambda chosen, move: whole(backend, chosen, move("", images), seed, Signs(backend, signs.bits), auxiliary)[1])
    for done, group in groups(order, found):
        run.say(f"floors of each call alone: {done} of {len(order)} calls")
        own = all_alone(backend, model, found, group)
        measure(own, lambda chosen, move, group=group: all_alone(backend, chosen, found, group, move))
        found.update(own)
    run.loaded = None
    save_file({**found, **{f"signs/{i:04d}": b for i, b in enumerate(signs.bits)}}, Path(task["output"]))
    save_file(truth, Path(task["double"]))
    write_json(Path(task["floors"]), {"floors": floors, "order": order, "types": types})
    return {"calls": len(order), "observer_equal": same}


def moved_model(run: Run, random: np.random.RandomState) -> Any:
    """The loaded model with every weight moved by one ULP."""
    backend, model = run.backend, run.backend.model
    weights = {k: nudged(v, random) for k, v in backend.state().items() if run.auxiliary or not k.startswith(TRAINING_ONLY)}
    backend.load(run.loaded[1], weights, training_branch=False)
    other, backend.model = backend.model, model
    return other


def candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    run.ready(task)
    backend, images = run.backend, np.load(task["inputs"], allow_pickle=False)
    given = load_file(task["reference"])
    signs = Signs(backend, [given[k] for k in sorted(given) if k.startswith("signs/")])
    run.say("backward pass")
    calls, found = whole(backend, backend.model, images, task.get("seed", 0), signs, run.auxiliary)
    calls.clear()
    same = observer_equal(backend, images, task.get("seed", 0), run.auxiliary)
    run.say("every call again on the reference's own input and gradient")
    found.update(all_alone(backend, backend.model, given, [n.removeprefix("in/") for n in given if n.startswith("in/")]))
    save_file(found, Path(task["output"]))
    run.loaded = None
    return {"signs": signs.found(), "observer_equal": same}

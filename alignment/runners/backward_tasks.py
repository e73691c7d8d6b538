"""One backward pass on either side, in training mode: gradients of every leaf call's output and of every parameter, and each call alone.

The loss is a seeded projection of both heads' raw outputs: every output counts, and no target or assignment can hide a difference.
In the whole run, activations follow the reference's signs (`train_tasks.Signs`), so that a kink at 0 does not shake what comes before it.
Alone, a call gets the reference's own inputs and the reference's gradient of its output: what differs then is its own backward pass.
"""

from __future__ import annotations

import dataclasses
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

    model.train()
    kept, backend.model = backend.model, model
    try:
        with backend.learning(), backend.intercept(seen):
            x = backend.leaf(images, model)
            outputs = model.forward_aux(x, False) if auxiliary else [model(x)]
            total = sum((t * backend.like(projection(tuple(t.shape), seed + i), t)).sum() for i, t in enumerate(outputs))
            params = {n: t for n, t in trained(backend, model) if auxiliary or not n.startswith(TRAINING_ONLY)}
            found = backend.gradients(total, [c[3] for c in calls.values()] + list(params.values()))
    finally:
        backend.model = kept
    names = [f"grad/{c}" for c in calls] + [f"param/{p}" for p in params]
    return calls, {n: np.ascontiguousarray(backend.array(g)) for n, g in zip(names, found)}


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


def all_alone(backend: Any, model: Any, given: dict[str, np.ndarray], order: list[str], move=lambda a: a) -> dict[str, np.ndarray]:
    modules = dict(backend.modules_of(model))
    found = {}
    for call in order:
        path = call.split("@")[0]
        if path in modules:
            found.update({f"own/{call}/{n}": a for n, a in alone(backend, modules[path], move(given[f"in/{call}"]), given[f"grad/{call}"], model).items()})
    return found


def reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    run.ready(task)
    backend, images, seed = run.backend, np.load(task["inputs"], allow_pickle=False), task.get("seed", 0)
    model, double, kept = backend.model, backend.doubled(backend.model), backend.state()
    signs = Signs(backend)
    run.say("backward pass")
    calls, found = whole(backend, model, images, seed, signs, run.auxiliary)
    order, types = list(calls), {c: backend.type_name(m) for c, (_, m, _, _) in calls.items()}
    found.update({f"in/{c}": np.ascontiguousarray(backend.array(i[0])) for c, (_, _, i, _) in calls.items()})
    calls.clear()
    found.update(all_alone(backend, model, found, order))
    random, variants = np.random.RandomState(seed), [found]
    weights = {k: v for k, v in kept.items() if run.auxiliary or not k.startswith(TRAINING_ONLY)}
    changes = backend.training_changes()
    for name, around, moves in changes:
        run.say(f"floors: {name}")
        backend.load(run.loaded[1], {k: nudged(v, random) for k, v in weights.items()} if moves == "weights" else weights, training_branch=False)
        move = (lambda a: nudged(a, random)) if moves == "input" else (lambda a: a)
        with around():
            one = whole(backend, backend.model, move(images), seed, Signs(backend, signs.bits), run.auxiliary)[1]
            one.update(all_alone(backend, backend.model, found, order, move))
        variants.append(one)
    run.say("floors: float64")
    truth = whole(backend, double, images, seed, Signs(backend, signs.bits), run.auxiliary)[1]
    double.train()
    truth.update(all_alone(backend, double, found, order))
    names = ("as is", *(name for name, *_ in changes))
    floors = {n: dataclasses.asdict(measure_floor(a, [v[n] for v in variants], names, channel_axis=None)) for n, a in truth.items() if a.size}
    run.loaded = None
    save_file({**found, **{f"signs/{i:04d}": b for i, b in enumerate(signs.bits)}}, Path(task["output"]))
    save_file(truth, Path(task["double"]))
    write_json(Path(task["floors"]), {"floors": floors, "order": order, "types": types})
    return {"calls": len(order)}


def candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    run.ready(task)
    backend, images = run.backend, np.load(task["inputs"], allow_pickle=False)
    given = load_file(task["reference"])
    signs = Signs(backend, [given[k] for k in sorted(given) if k.startswith("signs/")])
    run.say("backward pass")
    calls, found = whole(backend, backend.model, images, task.get("seed", 0), signs, run.auxiliary)
    calls.clear()
    run.say("every call again on the reference's own input and gradient")
    found.update(all_alone(backend, backend.model, given, [n.removeprefix("in/") for n in given if n.startswith("in/")]))
    save_file(found, Path(task["output"]))
    run.loaded = None
    return {"signs": signs.found()}

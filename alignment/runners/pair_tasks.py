"""What a runner does with one side of any pair of models, written once for both frameworks (`torch_pair`, `jittor_pair` hold the rest).

Every call of every module is recorded: inputs as they were before the call (a call may overwrite them), outputs as they were after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from alignment import pair_file, pairing
from alignment.bundle import TYPES, Bundle, BundleWriter, Header, array_sha256
from alignment.noise import Floor, measure_floor
from alignment.runners import child
from alignment.runners.backend import call_name, rebuild, tensors_of
from alignment.runners.tasks import Run, multiply_adds, outputs, peak_memory_mb, versions
from jt_nanodet import checkpoint
from jt_nanodet.errors import UserError


class Opaque(Exception):
    """An input that no file can hold."""


def described(value: Any, name: Callable[[Any], str]) -> Any:
    """`value` as JSON with named tensors, as `backend.describe`; raises Opaque for anything that is neither tensor, container nor plain."""
    if isinstance(value, Mapping):
        return {"dict": {str(k): described(v, name) for k, v in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [described(v, name) for v in value]}
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return {"tensor": name(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise Opaque(type(value).__name__)


def storable(name: str, array: np.ndarray) -> np.ndarray:
    """`array`, or UserError when no bundle can hold its type."""
    if array.dtype.name not in TYPES:
        raise UserError(f"{name} is of type {array.dtype}, and tensors that can be stored are of {', '.join(TYPES)}: let the model give and take one of these")
    return array


class Recorder:
    """Calls in order of completion: name to (path, described arguments or None, outputs by name). Arrays of inputs are stored once by content.

    While the model runs only snapshots are taken (`hands.snapshot`); `finish` reads them. Jittor is lazy: reading a value during the run
    would break its fusion, and with it the last bits of what is observed.
    """

    def __init__(self, hands: Any):
        self.hands, self.counts, self.calls, self.started, self.first = hands, {}, {}, [], {}
        self.arrays: dict[str, np.ndarray] = {}
        self.known: dict[str, str] = {}
        self.events: list[tuple] = []

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Record every call of the model's modules within."""
        with self.hands.watch(model, self.before, self.after):
            yield
        self.finish()

    def before(self, path: str, module: Any, args: tuple, kwargs: dict) -> None:
        self.counts[path] = self.counts.get(path, 0) + 1
        self.first.setdefault(path, len(self.first))
        self.started.append(call_name(path, self.counts[path]))
        self.events.append((self.started[-1], path, {"args": mapped(tuple(args), self.hands.snapshot), "kwargs": mapped(kwargs, self.hands.snapshot)}, None))

    def after(self, path: str, module: Any, output: Any) -> None:
        self.events.append((self.started.pop(), path, None, mapped(output, self.hands.snapshot)))

    def read(self, name: str) -> np.ndarray:
        """The array that `described` calls so: ``in/...``, ``input/...`` or ``out/...``."""
        if name in self.arrays:
            return self.arrays[name]
        return next(found[name.removeprefix("out/")] for _, _, found in self.calls.values() if name.removeprefix("out/") in found)

    def store(self, name: str, array: np.ndarray) -> str:
        key = array_sha256(array)
        if key not in self.known:
            self.known[key], self.arrays[name] = name, array
        return self.known[key]

    def finish(self) -> None:
        """Read the snapshots, in the order of the run."""
        given: dict[str, Any] = {}
        read = lambda t: t if isinstance(t, np.ndarray) else self.hands.array(t)  # noqa: E731
        for call, path, inputs, output in self.events:
            if inputs is not None:
                number = iter(range(1 << 30))
                try:
                    given[call] = described(inputs, lambda t: self.store(name := f"in/{call}/{next(number)}", storable(name, read(t))))  # noqa: B023
                except Opaque:
                    given[call] = None
                continue
            found = outputs(call or "(model)", output, read)
            self.calls[call] = (path, given[call], found)
            for name, array in found.items():
                self.known.setdefault(array_sha256(storable(name, array)), f"out/{name}")
        self.events.clear()


def unpacked(value: Any) -> tuple[tuple, dict]:
    return ((), dict(value)) if isinstance(value, Mapping) else (tuple(value), {}) if isinstance(value, (tuple, list)) else ((value,), {})


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every array or tensor changed; named tuples become tuples."""
    if isinstance(value, Mapping):
        return {k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return (list if isinstance(value, list) else tuple)(mapped(v, change) for v in value)
    return change(value) if hasattr(value, "shape") and hasattr(value, "dtype") else value


def call_model(pair: Any, model: Any, value: Any, tensor: Callable[[np.ndarray], Any], side: str) -> Any:
    args, kwargs = unpacked(mapped(value, tensor))
    try:
        return model(*args, **kwargs)
    except Exception as error:
        raise UserError(f"the {side} of {pair.spec} raised {type(error).__name__} on inputs(): {pair_file.one_line(error)}; mend it and run again") from error


def tree(backend: Any, hands: Any, recorder: Recorder) -> list[dict[str, Any]]:
    rows = []
    for path, module in backend.modules():
        leaf = backend.is_leaf(module)
        calls = [found for p, _, found in recorder.calls.values() if p == path]
        adds = sum(multiply_adds(backend, module, array) for found in calls for array in list(found.values())[:1]) if leaf and backend.type_name(module) == "Conv2d" else 0
        rows.append({"path": path, "type": backend.type_name(module), "leaf": leaf, "hyper": hands.hyper(module) if leaf else {},
                     "params": [{"name": n, "shape": list(s), "dtype": d, "trainable": t} for n, s, d, t in backend.parameters(module)],
                     "calls": recorder.counts.get(path, 0), "flops": 2 * adds, "first": recorder.first.get(path)})
    return rows


def begin(run: Run, task: dict[str, Any], build: str) -> tuple[Any, Any, Any]:
    pair, backend = pair_file.load(task["pair"]), run.backend
    hands = backend.hands()
    try:
        with backend.learning():  # else every weight of Jittor's would be born without a gradient
            hands.adopt(pair_file.call(pair, build))
    except TypeError as error:
        raise UserError(f"{error}; mend {task['pair']}") from error
    return pair, backend, hands


def plain_inputs(pair: Any, seed: int) -> Any:
    value = pair_file.call(pair, "inputs", seed)
    bad = [type(t).__module__ for t in tensors_of(value) if not isinstance(t, (np.ndarray, np.generic))]
    if bad or not tensors_of(value):
        raise UserError(f"inputs() of {pair.spec} must return NumPy arrays, alone or in tuples, lists and dicts{f', not what {bad[0]} makes' if bad else ''}: mend it")
    value = mapped(value, np.asarray)
    odd = [t.dtype for t in tensors_of(value) if t.dtype.name not in TYPES]
    if odd:
        raise UserError(f"inputs() of {pair.spec} gives an array of type {odd[0]}, and those that can be stored are {', '.join(TYPES)}: mend it")
    return value


def header(run: Run, task: dict[str, Any], weights: str, inputs: str, mode: str = "eval") -> Header:
    return Header(kind="pair", side=run.backend.side, framework=run.backend.framework, config_sha256=pair_file.sha256(task["pair"]), weights_sha256=weights,
                  inputs_sha256=inputs, code_sha256=child.code_sha256(run.backend.side), seed=task.get("seed", 0), device=task.get("device", "cpu"),
                  threads=task.get("threads") or 0, versions=versions(run.backend), flags={"precision": "float32", "mode": mode})


def floor(truth: np.ndarray, runs: list[np.ndarray], names: list[str], channel_axis: int | None = 1) -> dict[str, Any] | None:
    if truth.size == 0 or not np.issubdtype(runs[0].dtype, np.floating) or any(r.shape != truth.shape or not np.isfinite(r).all() for r in (truth, *runs)):
        return None  # such a tensor is judged without a floor: exactly, or by its NaN
    return dataclasses.asdict(measure_floor(truth, [np.asarray(r, order="C") for r in runs], names, channel_axis=channel_axis if truth.ndim == 4 else None))


def reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """The reference's bundle (`inputs`, weights, every call's inputs and outputs, float64) with tree and floors in its header."""
    started = time.perf_counter()
    pair, backend, hands = begin(run, task, "build_reference")
    seed, model = task.get("seed", 0), backend.model
    value = plain_inputs(pair, seed)
    state = hands.state()
    checkpoint.check_finite({k: v for k, v in state.items()}, f"build_reference() of {pair.spec}")
    recorder = Recorder(hands)
    about, inputs_hash = take_inputs(recorder, value)
    run.say("forward pass with every call recorded")
    with recorder.watching(model):
        call_model(pair, model, value, backend.tensor, "reference")
    bare = outputs("(model)", call_model(pair, model, value, backend.tensor, "reference"), hands.array)
    rows = tree(backend, hands, recorder)
    load = lambda name, change: change(backend.tensor(recorder.read(name)))  # noqa: E731
    by_name = {f"out/{n}": a for _, _, found in recorder.calls.values() for n, a in found.items()}
    run.say(f"floors of {len(recorder.calls)} calls")
    changes = backend.pair_changes(seed)
    names = ["as is", *(c.name for c in changes)]
    own: dict[str, list] = {n: [a] for _, _, found in recorder.calls.values() for n, a in found.items()}
    whole: dict[str, list] = {n: [a] for n, a in ((n, own[n][0]) for n in own)}
    for change in changes:
        changed = backend.nudged(model, seed) if change.weights else model
        with change.around():
            refeed(changed, recorder, load, change.before, hands, own)
            again = Recorder(hands)
            with again.watching(changed):
                call_model(pair, changed, value, lambda a: change.before(backend.tensor(a)), "reference")
            for _, _, found in again.calls.values():
                for n, a in found.items():
                    whole[n].append(a)
    double, own64, run64 = hands.double(model), {n: [] for n in own}, Recorder(hands)
    refeed(double, recorder, load, hands.widened, hands, own64)
    with run64.watching(double):
        call_model(pair, double, value, lambda a: hands.widened(backend.tensor(a)), "reference in float64")
    truth = {n: a for _, _, found in run64.calls.values() for n, a in found.items()}
    floors_own = {n: floor(own64[n][0], own[n], names[:len(own[n])]) if own64[n] else None for n in own}
    floors_whole = {n: floor(truth[n], whole[n], names) if n in truth else None for n in whole}
    weights_hash = checkpoint.weights_sha256(state)
    with BundleWriter(task["output"], header(run, task, weights_hash, inputs_hash)) as bundle:
        for name, array in {**recorder.arrays, **by_name, **{f"weight/{k}": v for k, v in state.items()}}.items():
            bundle.add(name, array)
        for name in own:
            if floors_own[name]:
                bundle.add(f"own64/{name}", own64[name][0])
            if floors_whole[name]:
                bundle.add(f"run64/{name}", truth[name])
        extra = {"value": about, "modules": rows, "calls": {c: {"path": p, "inputs": i, "outputs": list(f)} for c, (p, i, f) in recorder.calls.items()},
                 "floors_own": floors_own, "floors_whole": floors_whole, "observer_moved": moved(recorder, bare)}
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra=extra)
    return {"calls": len(recorder.calls)}


def take_inputs(recorder: Recorder, value: Any) -> tuple[Any, str]:
    """Put the pair's inputs into the recorder: (their description, their hash)."""
    number = iter(range(1 << 30))
    about = described(value, lambda a: recorder.store(f"input/{next(number)}", np.array(a)))
    return about, array_sha256(np.frombuffer("".join([json.dumps(about), *map(array_sha256, recorder.arrays.values())]).encode(), np.uint8))


def alone(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """The candidate with its own weights, without a reference: a bundle of `inputs`, weights and every call's outputs, to stand against dumped tensors."""
    started = time.perf_counter()
    pair, backend, hands = begin(run, task, "build_candidate")
    value, recorder = plain_inputs(pair, task.get("seed", 0)), Recorder(hands)
    about, inputs_hash = take_inputs(recorder, value)
    inputs, state = dict(recorder.arrays), hands.state()
    run.say("forward pass with every call recorded")
    with recorder.watching(backend.model):
        call_model(pair, backend.model, value, backend.tensor, "candidate")
    bare = outputs("(model)", call_model(pair, backend.model, value, backend.tensor, "candidate"), hands.array)
    found = {f"out/{n}": a for _, _, made in recorder.calls.values() for n, a in made.items()}
    with BundleWriter(task["output"], header(run, task, checkpoint.weights_sha256(state), inputs_hash)) as bundle:
        for name, array in {**inputs, **found, **{f"weight/{k}": v for k, v in state.items()}}.items():
            bundle.add(name, array)
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra={
            "value": about, "calls": {c: {"path": p, "outputs": list(f)} for c, (p, _, f) in recorder.calls.items()}, "observer_moved": moved(recorder, bare)})
    return {"calls": len(recorder.calls)}


def refeed(model: Any, recorder: Recorder, load: Callable, change: Callable, hands: Any, into: dict[str, list]) -> None:
    """Every call again, alone, on its own recorded inputs."""
    modules = dict(hands.backend.modules_of(model))
    for call, (path, about, _) in recorder.calls.items():
        if about is None:
            continue
        given = rebuild(about, lambda name: load(name, change))
        for name, array in outputs(call or "(model)", modules[path](*given["args"], **given["kwargs"]), hands.array).items():
            into[name].append(array)


def moved(recorder: Recorder, bare: dict[str, np.ndarray]) -> dict[str, float]:
    """Output name to the largest difference between the recorded run and one without recording, where any bit differs; infinite where shapes do."""
    seen, found = recorder.calls[""][2], {}
    for name in dict.fromkeys([*seen, *bare]):
        one, other = seen.get(name), bare.get(name)
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            found[name] = float("inf")
        elif not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
            found[name] = float("inf") if np.isnan(apart).any() else float(apart.max())
    return found


@dataclasses.dataclass(frozen=True)
class Port:
    """The candidate, paired with the reference and with the reference's weights."""

    pair: Any
    hands: Any
    value: Any
    matches: list[pairing.Match]
    account: list[Any]
    unfilled: list[str]


def weights_of(ref: Bundle) -> dict[str, np.ndarray]:
    return {n.removeprefix("weight/"): np.array(ref[n]) for n in ref if n.startswith("weight/")}


def port(run: Run, task: dict[str, Any], ref: Bundle) -> Port:
    """Build the candidate, pair its modules with those of the reference's bundle, take over the reference's weights."""
    pair, backend, hands = begin(run, task, "build_candidate")
    value = rebuild(ref.header.extra["value"], lambda name: np.array(ref[name]))
    first = Recorder(hands)
    run.say("forward pass for the order of execution")
    with first.watching(backend.model):
        call_model(pair, backend.model, value, backend.tensor, "candidate")
    rename = (lambda key: pair_file.call(pair, "rename", key)) if pair.rename else None
    matches = pairing.pair_modules(ref.header.extra["modules"], tree(backend, hands, first), task.get("layer_map"), rename)
    state, account, unfilled = pairing.transfer(weights_of(ref), hands.state(), matches, rename)
    hands.load(state)
    return Port(pair, hands, value, matches, account, unfilled)


def loaded(made: Port) -> dict[str, str]:
    """The reference's name of every weight that the candidate took over, to the hash of what it now holds, in the reference's layout."""
    state, found = made.hands.state(), {}
    for row in made.account:
        if row.target is not None:
            held = state[row.target].T if row.reason == "transposed" else state[row.target].reshape(row.shape)
            found[row.source] = array_sha256(np.ascontiguousarray(held.astype(np.int64) if held.dtype == np.int32 else held).reshape(row.shape))
    return found


def candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Pair the modules, take over the reference's weights, run, and run every paired call on the reference's inputs."""
    started = time.perf_counter()
    ref = Bundle.open(task["reference"])
    made, backend = port(run, task, ref), run.backend
    pair, hands, value, matches = made.pair, made.hands, made.value, made.matches
    extra, model = ref.header.extra, backend.model
    recorder = Recorder(hands)
    run.say("forward pass with every call recorded")
    with recorder.watching(model):
        call_model(pair, model, value, backend.tensor, "candidate")
    bare = outputs("(model)", call_model(pair, model, value, backend.tensor, "candidate"), hands.array)
    rows, held = tree(backend, hands, recorder), loaded(made)
    where, modules, raised = {m.ref: m.cand for m in matches if m.ref is not None}, dict(backend.modules()), {}
    run.say("every call again on the reference's own input")
    with BundleWriter(task["output"], header(run, task, ref.header.weights_sha256, ref.header.inputs_sha256)) as bundle:
        for _, _, found in recorder.calls.values():
            for name, array in found.items():
                bundle.add(f"out/{name}", array)
        for call, one in extra["calls"].items():
            path = where.get(one["path"])
            if path is None or one["inputs"] is None:
                continue
            try:
                given = rebuild(one["inputs"], lambda name: backend.tensor(np.array(ref[name])))
                for name, array in outputs(call or "(model)", modules[path](*given["args"], **given["kwargs"]), hands.array).items():
                    bundle.add(f"own/{name}", array)
            except Exception as error:  # the port's own code: what it says belongs into the report, at its place
                raised[call] = f"{type(error).__name__}: {pair_file.one_line(error)}"
        bundle.close(durations={"total": time.perf_counter() - started}, peak_memory_mb=peak_memory_mb(), extra={
            "modules": rows, "matches": [dataclasses.asdict(m) for m in matches], "account": [dataclasses.asdict(r) for r in made.account], "unfilled": made.unfilled,
            "calls": {c: {"path": p, "outputs": list(f)} for c, (p, _, f) in recorder.calls.items()}, "raised": raised, "observer_moved": moved(recorder, bare), "loaded": held})
    return {"calls": len(recorder.calls)}

"""One side of ``alignment.train --pair``: a process that takes one training step for every line on its standard input, as `train_tasks` for the built-in pair.

Step k trains on ``inputs(seed + k)``, in training mode with dropout off. All names are the reference's. The candidate takes over the reference's whole state
before every step, and both sides update from the reference's gradients: AdamW turns the noise of a vanishing gradient into a full step.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from alignment import pair_file, pairing
from alignment.bundle import Bundle, BundleWriter
from alignment.result import write_json
from alignment.runners import pair_backward, pair_tasks
from alignment.runners.backend import call_name, rebuild
from alignment.runners.backward_tasks import projection
from alignment.runners.tasks import Run, versions
from alignment.runners.train_tasks import floors, nudged, serve
from jt_nanodet import checkpoint
from jt_nanodet.config import OptimizerConfig
from jt_nanodet.errors import UserError

MODEL, OPTIMIZER, GRADIENT = "model/", "optimizer/", "gradient/"
#: Kept with a step and not judged: constants, and counters that one framework keeps and the other does not.
UNJUDGED = ("rate", "norm/own", "norm/given", f"after/{OPTIMIZER}steps")


class Named:
    """Trained tensors under names of our choice, as the optimisers of both packages ask a model for them."""

    def __init__(self, tensors: dict[str, Any]):
        self.tensors = tensors

    def named_parameters(self) -> Any:
        return self.tensors.items()

    def state_dict(self) -> dict[str, Any]:
        return self.tensors

    def named_modules(self) -> tuple:
        return ()


def trained(backend: Any, model: Any, preferred: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Name to tensor of what is trained, each tensor once: a tied weight under the first of its names, or under one of `preferred`."""
    found: dict[int, tuple[str, Any]] = {}
    for name, tensor in pair_backward.parameters(backend, model).items():
        if id(tensor) not in found or (name in preferred and found[id(tensor)][0] not in preferred):
            found[id(tensor)] = name, tensor
    return dict(found.values())


class Stepper:
    """A model in training mode with its optimiser: from a state, one step on given inputs; the model's own names."""

    def __init__(self, side: "Side", model: Any, preferred: frozenset[str] = frozenset()):
        self.side, self.backend, self.hands, self.model = side, side.backend, side.hands, model
        self.params = trained(self.backend, model, preferred)
        if not self.params:
            raise UserError(f"the {side.name} of {side.pair.spec} has no weight that is trained: leave one trainable")
        with self.backend.learning():
            self.optimizer = self.backend.training_module().build_optimizer(Named(self.params), side.config)

    @contextlib.contextmanager
    def in_hand(self) -> Iterator[None]:
        kept, self.backend.model = self.backend.model, self.model
        try:
            yield
        finally:
            self.backend.model = kept

    def load(self, state: dict[str, np.ndarray]) -> None:
        """From ``model/KEY``, ``optimizer/KIND/KEY`` and ``optimizer/steps``; moments that are not given are zeros."""
        part = {k.removeprefix(OPTIMIZER): v for k, v in state.items() if k.startswith(OPTIMIZER)}
        zeros = {f"{kind}/{k}": np.zeros(tuple(v.shape), np.float32) for kind, moments in self.optimizer.moments.items() for k, v in moments.items()}
        with self.in_hand(), self.backend.learning():  # Jittor: what is born without a gradient would take the weight's away
            self.optimizer.load_state({**zeros, **part})
            self.hands.load({k.removeprefix(MODEL): v for k, v in state.items() if k.startswith(MODEL)})

    def loss(self, output: Any) -> Any:
        """The pair's own, or the mean squared distance of every floating output to seeded numbers: bounded below, so that training goes somewhere."""
        pair, hands, seed = self.side.pair, self.hands, self.side.seed
        if pair.loss:
            return pair_backward.total_of(pair, hands, output, seed)
        found, total = pair_backward.floating(pair, hands, output), 0.0
        for number, tensor in enumerate(found):
            goal = projection(tuple(tensor.shape), seed + number)
            share = np.float32(1 / goal.size)
            total = total + hands.weighted(tensor * tensor, np.full(goal.shape, share)) - hands.weighted(tensor, 2 * share * goal) + float(np.square(goal, dtype=np.float64).mean())
        return total

    def state(self) -> dict[str, np.ndarray]:
        with self.in_hand():
            model = self.hands.state()
        return {f"{MODEL}{k}": v for k, v in model.items()} | {f"{OPTIMIZER}{k}": v for k, v in self.optimizer.state().items()}

    def run(self, value: Any, gradients: dict[str, np.ndarray] | None = None, change: Callable[[Any], Any] = lambda t: t) -> dict[str, np.ndarray]:
        """One step on the changed inputs: ``loss/total``, ``gradient/KEY`` as they are, and, after an update from `gradients` where given, ``after/...``."""
        def tensor(array: np.ndarray) -> Any:
            return change(self.backend.tensor(array))

        with self.backend.learning():
            kept = {name: self.hands.keep(t) for name, t in self.params.items()}
            output = pair_tasks.call_model(self.side.pair, self.model, value, tensor, f"{self.side.name} in training mode")
            total = self.loss(output)
            try:
                own = self.hands.gradients(total, kept)
            except Exception as error:
                raise UserError(f"the loss of the {self.side.name} of {self.side.pair.spec} has no gradient ({pair_file.one_line(error)}): mend loss() or the model") from error
            kind = next(iter(own.values())).dtype
            found = {"loss/total": self.hands.array(total).reshape(1).astype(kind), **{f"{GRADIENT}{k}": v for k, v in own.items()}}
            given = {k: (gradients or {}).get(k, v) for k, v in own.items()}
            self.optimizer.step({k: self.backend.like(v, self.params[k]) for k, v in given.items()})
        found.update({name: norm(g.values()).astype(kind) for name, g in (("norm/own", own), ("norm/given", given))})
        return {**found, "rate": np.array([self.side.config.lr], np.float64), **{f"after/{k}": v for k, v in self.state().items()}}


def norm(gradients: Any) -> np.ndarray:
    return np.sqrt([sum(float(np.square(g.astype(np.float64)).sum()) for g in gradients)])


class Side:
    """What both sides know of the run."""

    name = ""

    def __init__(self, run: Run, task: dict[str, Any]):
        self.run, self.task, self.backend, self.seed = run, task, run.backend, task.get("seed", 0)
        self.config = OptimizerConfig(**task["optimizer"])
        self.pair: Any = None
        self.hands: Any = None

    def ready(self) -> dict[str, Any]:
        return {"ready": True, "versions": versions(self.backend)}

    def value(self, batch: str) -> Any:
        """The inputs of a step, as the reference's process wrote them."""
        with np.load(batch, allow_pickle=False) as file:
            return rebuild(json.loads(str(file["about"])), lambda name: file[name])


class Reference(Side):
    """Steps along its own way; beside a step, where asked, the floors of its numbers."""

    name = "reference"

    def __init__(self, run: Run, task: dict[str, Any]):
        super().__init__(run, task)
        self.pair, backend, self.hands = pair_tasks.begin(run, task, "build_reference")
        model, value, state = backend.model, pair_tasks.plain_inputs(self.pair, self.seed), self.hands.state()
        checkpoint.check_finite(state, f"build_reference() of {self.pair.spec}")
        recorder = pair_tasks.Recorder(self.hands)
        about, inputs_hash = pair_tasks.take_inputs(recorder, value)
        given = dict(recorder.arrays)
        with recorder.watching(model):
            pair_tasks.call_model(self.pair, model, value, backend.tensor, self.name)
        rows = pair_tasks.tree(backend, self.hands, recorder)
        self.ended = {path: at for at, (path, _, _) in enumerate(recorder.calls.values())}
        wide = self.hands.double(model)
        self.dropout = [self.hands.training(m) for m in (model, wide)][0]
        self.main, self.wide = Stepper(self, model), Stepper(self, wide)
        with BundleWriter(task["start"], pair_tasks.header(run, task, checkpoint.weights_sha256(state), inputs_hash, mode="train")) as bundle:
            for name, array in {**given, **{f"weight/{k}": v for k, v in state.items()}}.items():
                bundle.add(name, array)
            bundle.close(extra={"value": about, "modules": rows, "trained": list(self.main.params), "dropout": self.dropout})
        self.state = self.main.state()

    def order(self, found: dict[str, np.ndarray]) -> list[str]:
        """What is judged, parameters in the order of execution; the judge turns the gradients round."""
        judged = [n for n in found if n not in UNJUDGED and n.rpartition(".")[2] not in pairing.COUNTERS]
        return sorted(judged, key=lambda n: self.ended.get(split(n)[1].rpartition(".")[0], -1))

    def write_inputs(self, command: dict) -> Any:
        recorder = pair_tasks.Recorder(self.hands)
        about, _ = pair_tasks.take_inputs(recorder, pair_tasks.plain_inputs(self.pair, self.seed + command["index"]))
        np.savez(command["batch"], about=np.array(json.dumps(about)), **recorder.arrays)
        return self.value(command["batch"])

    def step(self, command: dict) -> dict:
        value, before = self.write_inputs(command), self.state
        save_file(contiguous(before), command["before"])
        self.main.load(before)
        found = self.main.run(value)
        self.state = {k.removeprefix("after/"): v for k, v in found.items() if k.startswith("after/")}
        save_file(contiguous(found), command["output"])
        answer = {"observer_equal": True, "flips": 0.0, "order": self.order(found)}
        return {**answer, **(self.spread(command, value, before, found) if command.get("measure", True) else {})}

    def measure(self, command: dict) -> dict:
        """The floors of a step that was taken without; the reference's own way goes on from where it is."""
        return self.spread(command, self.value(command["batch"]), load_file(command["before"]), load_file(command["output"]))

    def spread(self, command: dict, value: Any, before: dict, found: dict) -> dict:
        """Write the float64 run of a step, and the floors of its numbers: under every harmless change, and with activations near a kink on its other side.
        A `found` read back from its file is sorted by name: then `command` brings the order of execution."""
        random = np.random.RandomState(self.seed + command["index"])
        held = {k.removeprefix(GRADIENT): v for k, v in found.items() if k.startswith(GRADIENT)}
        kinks: dict[str, list[np.ndarray]] = defaultdict(list)
        runs, names = [found], ["as is"]
        watched = self.one(self.main, before, value, held, kinks)
        for change in self.backend.pair_changes(self.seed + command["index"]):
            state = {k: nudged(v, random) for k, v in before.items()} if change.weights else before
            given = {k: nudged(v, random) for k, v in held.items()} if "ULP" in change.name else held
            with change.around():
                runs.append(self.one(self.main, state, value, given, kinks, change=change.before))
            names.append(change.name)
        double = self.one(self.wide, before, value, held, kinks, change=self.hands.widened)
        near = pair_backward.near_zero(kinks)
        if near:
            runs.append(self.one(self.main, before, value, held, None, near))
            names.append(pair_backward.KINK)
        measured = floors(double, runs, tuple(names))
        save_file({k: np.ascontiguousarray(v, np.float64) for k, v in double.items() if k in measured}, command["double"])
        write_json(Path(command["floors"]), {"floors": measured, "order": command.get("order") or self.order(found)})
        return {"observer_equal": all(np.array_equal(watched[k], found[k], equal_nan=True) for k in watched if k == "loss/total" or k.startswith(GRADIENT))}

    def one(self, stepper: Stepper, state: dict, value: Any, given: dict, kinks: dict | None, near: dict | None = None, change: Callable[[Any], Any] = lambda t: t) -> dict[str, np.ndarray]:
        """A step of `stepper` from `state`; `kinks` collects what enters activations with a kink, `near` puts some of their elements on the other side."""
        stepper.load(state)
        counts: dict[str, int] = defaultdict(int)

        def call(path: str) -> str:
            counts[path] += 1
            return call_name(path, counts[path])

        def before(path: str, module: Any, args: tuple, kwargs: dict) -> None:
            if self.hands.is_kinked(module) and args:
                kinks[call(path)].append(self.hands.snapshot(args[0]))

        watch = self.hands.watch(stepper.model, before, lambda *_: None) if near is None else self.hands.other_side(stepper.model, lambda path: near.get(call(path)))
        with watch:
            return stepper.run(value, given, change)


class Candidate(Side):
    """Takes over the reference's state before each step; beside it a free run that never does."""

    name = "candidate"

    def __init__(self, run: Run, task: dict[str, Any]):
        super().__init__(run, task)
        ref = Bundle.open(task["start"])
        self.made = pair_tasks.port(run, task, ref)
        self.pair, self.hands, self.names = self.made.pair, self.made.hands, Names(self.made)
        self.dropout = self.hands.training(self.backend.model)
        known = frozenset(ref.header.extra["trained"])
        self.main = Stepper(self, self.backend.model, frozenset(t for t, r in self.names.rows.items() if r.source in known))
        self.free: dict[str, np.ndarray] | None = None

    def ready(self) -> dict[str, Any]:
        return {**super().ready(), "matches": [vars(m) for m in self.made.matches], "account": [vars(r) for r in self.made.account], "unfilled": self.made.unfilled,
                "dropout": self.dropout}

    def step(self, command: dict) -> dict:
        value, given = self.value(command["batch"]), load_file(command["reference"])
        start = self.names.to_port(load_file(command["before"]))
        self.main.load(start)
        gradients = self.names.to_port({k: v for k, v in given.items() if k.startswith(GRADIENT)})
        found = self.names.to_reference(self.main.run(value, {k.removeprefix(GRADIENT): v for k, v in gradients.items()}))
        self.main.load(start if self.free is None else self.free)
        free = self.main.run(value)
        self.free = {k.removeprefix("after/"): v for k, v in free.items() if k.startswith("after/")}
        free = self.names.to_reference(free)
        found.update({f"free/{k}": v for k, v in free.items() if k in ("loss/total", "norm/own", "rate")})
        found.update({f"free/{k.removeprefix('after/')}": v for k, v in free.items() if k.startswith(f"after/{MODEL}") and k in given})
        save_file(contiguous(found), command["output"])
        return {"signs": None}


class Names(pair_backward.Keys):
    """Whole dictionaries of ``PREFIX/KEY`` between the reference's names and layout and the candidate's."""

    def __init__(self, made: pair_tasks.Port):
        super().__init__(made)
        self.shapes = {k: v.shape for k, v in made.hands.state().items()}
        self.targets = {r.source: r for r in self.rows.values()}

    def to_port(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the candidate has a place for."""
        turned = {}
        for name, array in found.items():
            prefix, key = split(name)
            if not key:
                turned[name] = array
            elif key in self.targets:
                row = self.targets[key]
                turned[prefix + row.target] = np.ascontiguousarray(array.T if row.reason == "transposed" else array.reshape(self.shapes[row.target]))
        return turned

    def to_reference(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What has a partner, and gradients and moments that have none."""
        turned = {}
        for name, array in found.items():
            prefix, key = split(name)
            if not key:
                turned[name] = array
            elif key in self.rows or not prefix.endswith(MODEL):
                shown = self.source(key) if key in self.rows else f"{key} (of the candidate)"
                turned[prefix + shown] = self.turned(key, array.astype(np.int64) if array.dtype == np.int32 else array)
        return turned


def split(name: str) -> tuple[str, str]:
    """(prefix, key) of a number: the prefix is ``gradient/``, ``model/`` or ``optimizer/KIND/``, perhaps behind ``after/``; of any other (name, "")."""
    depth = 1 + name.startswith("after/") + name.removeprefix("after/").startswith(OPTIMIZER)
    parts = name.split("/", depth)
    return ("".join(f"{p}/" for p in parts[:-1]), parts[-1]) if len(parts) > depth and not name.startswith(("loss/", "norm/")) else (name, "")


def contiguous(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: np.ascontiguousarray(v) if v.ndim else v for k, v in arrays.items()}


def start(run: Run, task: dict[str, Any], side: type[Side]) -> dict[str, Any]:
    """Serve until standard input ends; what the pair's own code prints goes to standard error, away from the answers."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        serve(made := side(run, task), made.ready(), answers)
    return {}


def reference(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    return start(run, task, Reference)


def candidate(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    return start(run, task, Candidate)

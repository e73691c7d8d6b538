"""What a detector uses: `forward` and `detect` of a model through the engine, with its plans by input size."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict

import jittor as jt
import numpy as np

from jt_nanodet.engine import operation
from jt_nanodet.engine.build import Unsupported, build
from jt_nanodet.engine.pack import pack
from jt_nanodet.engine.plan import Plan

#: Plans of one model that are kept, by input size.
KEPT = 4
_numbers = itertools.count()
_engines: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class Prepared:
    """One plan, packed: `identity` is what the operation knows it by."""

    def __init__(self, plan: Plan, number: int, version: int):
        self.plan, self.identity = plan, (number, version)
        self.program, self.weights = operation.as_vars(*pack(plan))


class Engine:
    """Runs one model. Made by `engine_of`; raises Unsupported, with a sentence, for what it has no kernel for.

    A change of the weights is seen by the identity of the model's Vars, which every update of Jittor's replaces (optimiser, `load_state`, `update`,
    `assign`). Writing into the memory of a Var (`v.data[...] = x`) leaves it as it is: call `forget()` after that.
    """

    def __init__(self, model, flags: str = ""):
        # the model owns its engine through _engines; a reference back would keep both for ever
        self._model, self.flags, self._plans, self._state = weakref.ref(model), flags, OrderedDict(), []
        self._version = 0
        #: (attributes of a module, name) of everything that is folded: walking the modules anew would take longer than the network
        held = [(vars(m), name) for part in (model.backbone, model.fpn, model.head) for m in part.modules()
                for name, v in vars(m).items() if isinstance(v, jt.Var) and name != "num_batches_tracked"]
        self._holders, self._names = [list(part) for part in zip(*held)]

    def state(self) -> list[int]:
        return [holder[name].id for holder, name in zip(self._holders, self._names)]

    def forget(self) -> None:
        """Read the weights again at the next call."""
        self._state = []

    def prepared(self, height: int, width: int) -> Prepared:
        """The plan for inputs of this size, with the weights of now."""
        state = self.state()
        if state != self._state:
            self._plans.clear()
            self._state, self._version = state, self._version + 1
        if (height, width) not in self._plans:
            self._plans[height, width] = Prepared(build(self._model(), height, width), next(_numbers), self._version)
            if len(self._plans) > KEPT:
                self._plans.popitem(last=False)
        self._plans.move_to_end((height, width))
        return self._plans[height, width]

    def __call__(self, images: np.ndarray, wanted: int) -> np.ndarray:
        batch, channels, height, width = images.shape
        one = self.prepared(height, width)
        plan = one.plan
        if channels != plan.channels or images.dtype != "float32":
            raise Unsupported(f"the input has {channels} channels of {images.dtype}, the engine takes {plan.channels} of float32")
        shape = {operation.RAW: (batch, plan.priors, plan.outputs), operation.DECODED: (batch, plan.priors, 4 + plan.classes),
                 operation.SECONDS: (1, 1, len(plan.steps))}[wanted]
        return operation.run(one.program, one.weights, images, shape, wanted, one.identity, self.flags)


def engine_of(model) -> Engine:
    """The model's engine, one a model."""
    if model not in _engines:
        _engines[model] = Engine(model)
    return _engines[model]


def forward(model, images: np.ndarray) -> np.ndarray:
    """Raw predictions (B, P, C + 4·R) of images (B, 3, H, W) float32. Raises Unsupported."""
    return engine_of(model)(images, operation.RAW)


def detect(model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decoded boxes (B, P, 4) and scores (B, P, C) of images (B, 3, H, W) float32. Raises Unsupported."""
    rows = engine_of(model)(images, operation.DECODED)
    return rows[..., :4], rows[..., 4:]


def step_seconds(model, images: np.ndarray, rounds: int) -> np.ndarray:
    """(steps,) the least seconds of each step over `rounds` runs of one image by the whole team."""
    found = [engine_of(model)(images[:1], operation.SECONDS).reshape(-1) for _ in range(rounds)]
    return np.min(found, axis=0)

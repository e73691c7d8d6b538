"""The engine where it can be used; else None, after one sentence on standard error that says why the ordinary graph is computed."""

from __future__ import annotations

import sys
import weakref

import jittor as jt
import numpy as np

from jt_nanodet.engine.build import Unsupported
from jt_nanodet.engine.engine import detect

#: Why a model was not computed by the engine, for those where it was not.
_refused: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def objection(model) -> str | None:
    """Why the engine is not for this model now; None where it may be. Its layers are looked at when a plan is built."""
    if jt.flags.use_cuda:
        return "the engine is for the CPU"
    if model.is_training():
        return "the engine is for inference, and the model is in training mode"
    return None


def attempt(model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Boxes (B, P, 4) and scores (B, P, C) by the engine, or None where the ordinary graph has to do it."""
    reason = objection(model)
    if reason is None:
        try:
            found = detect(model, images)
            _refused.pop(model, None)
            return found
        except Unsupported as error:
            reason = str(error)
            if _refused.get(model) != reason:
                print(f"The ordinary graph is computed, not the CPU engine: {reason}.", file=sys.stderr)
    _refused[model] = reason
    return None


def path_taken(model, plain: bool) -> str:
    """How the last `attempt` with this model ended, as a sentence."""
    if plain:
        return "computed by the ordinary graph, as asked"
    if model in _refused:
        return f"computed by the ordinary graph: {_refused[model]}"
    return "computed by the CPU engine"

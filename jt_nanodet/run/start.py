"""The weights a training starts from: drawn from the seed, or a file's, with what the file lacks named."""

from __future__ import annotations

import numpy as np

from jt_nanodet.checkpoint import check_finite
from jt_nanodet.errors import UserError
from jt_nanodet.weight_rules import TRAINING_ONLY, initial_weights


def starting_weights(shapes: dict, seed: int, given: dict | None, num_classes: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """(weights of every name in ``shapes``, sentences about what did not come from the file).

    A file must hold every name with its shape, but for four things that are made anew and said: the last layers of both heads where
    the number of classes differs, the auxiliary branch where a released file has none (its pyramid copies the file's), the
    counters of BatchNorm, and all but the backbone where a file holds nothing else. Raises UserError for anything else that is missing, unexpected or of another shape.
    """
    weights = initial_weights(shapes, seed)
    if given is None:
        return weights, []
    check_finite(given, "the weights to start from")
    remarks, wrong = [], [f"{k} is unexpected" for k in given if k not in shapes]
    alone = bool(given) and all(k.startswith("backbone.") for k in given)
    lacks = {
        "branch": not alone and not any(k.startswith(TRAINING_ONLY) for k in given),
        "counters": not any(k.endswith("num_batches_tracked") for k in given),
    }
    remade = []
    for name, shape in shapes.items():
        if alone and not name.startswith("backbone."):
            continue
        source = name
        if name.startswith(TRAINING_ONLY) and lacks["branch"]:
            source = name.replace("aux_fpn.", "fpn.", 1) if name.startswith("aux_fpn.") else None
        if source is None or (lacks["counters"] and name.endswith("num_batches_tracked")):
            continue
        if source not in given:
            wrong.append(f"{name} is missing")
        elif tuple(given[source].shape) == tuple(shape):
            weights[name] = given[source].astype(weights[name].dtype)
        elif "gfl_cls" in name and given[source].shape[1:] == tuple(shape)[1:]:
            remade.append(name)
        else:
            wrong.append(f"{name} is {tuple(given[source].shape)}, not {tuple(shape)}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"the weights to start from do not fit the model: {wrong[0]}{more}; use the configuration they were made for")
    if remade:
        old = given[remade[0]].shape[0] - shapes[remade[0]][0] + num_classes
        remarks.append(f"The weights are for {old} classes, the model for {num_classes}: {len(remade)} arrays start anew ({', '.join(remade)})")
    if alone:
        remarks.append("The weights are a backbone alone: neck and heads start from the seed")
    if lacks["branch"]:
        remarks.append("The weights have no auxiliary branch: aux_fpn starts as a copy of fpn, aux_head from the seed")
    if lacks["counters"]:
        remarks.append("The weights count no batches: num_batches_tracked starts at 0")
    return weights, remarks

"""What the weights of a NanoDet-Plus must look like: which keys, which shapes, which values to start from. No framework here.

Both sides draw their initial weights from (seed, name, shape) alone, so two trainings begin bit-equal without exchanging a file.
"""
import math
import zlib

import numpy as np

from .errors import UserError

TRAINING_ONLY = ("aux_fpn.", "aux_head.")  # the auxiliary branch: inference never runs it
CLASS_PRIOR_BIAS = -4.595  # log-odds of a score of 0.01


def check_fit(shapes, weights, training_branch=True):
    """Raise UserError unless `weights` (name to array) has exactly the names and shapes of `shapes` (name to tuple), all finite.

    training_branch=False also accepts weights without a single key of the auxiliary branch. The message names what is missing,
    unexpected, of another shape or not finite.
    """
    expected = dict(shapes)
    if not training_branch and not any(k.startswith(TRAINING_ONLY) for k in weights):
        expected = {k: v for k, v in expected.items() if not k.startswith(TRAINING_ONLY)}
    problems = {
        "missing": [k for k in expected if k not in weights],
        "unexpected": [k for k in weights if k not in expected],
        "of another shape": [
            f"{k} is {tuple(weights[k].shape)}, not {tuple(expected[k])}"
            for k in expected if k in weights and tuple(weights[k].shape) != tuple(expected[k])
        ],
        "not finite": [k for k, v in weights.items() if v.dtype.kind == "f" and not np.isfinite(v).all()],
    }
    found = [f"{len(names)} {what} (first: {names[0]})" for what, names in problems.items() if names]
    if found:
        raise UserError("the weights do not fit the model: " + "; ".join(found)
                        + "; give the configuration they were made for with --config")


def initial_weights(shapes, seed):
    """Upstream's initial distributions for every key of `shapes` (name to tuple), drawn from (seed, name, shape) alone.

    Sources: `_initialize_weights` of shufflenetv2.py, `init_weights` of conv.py, nanodet_plus_head.py and simple_conv_head.py;
    ghost convolutions keep the framework's default (Kaiming uniform with a = sqrt(5)). `aux_fpn` starts as a copy of `fpn`.
    """
    return {name: _initial(name, tuple(shape), seed) for name, shape in shapes.items()}


def _initial(name, shape, seed):
    if name.startswith("aux_fpn."):
        name = name[len("aux_"):]
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("distribution_project.project"):
        return np.arange(shape[0], dtype=np.float32)
    if name.endswith(("running_var", ".scale")):
        return np.ones(shape, np.float32)
    if name.endswith(("running_mean", ".bias")):
        return np.full(shape, _initial_bias(name), np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    random = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()) & 0xFFFFFFFF)
    receptive = shape[2] * shape[3]
    if name.startswith("backbone."):
        values = random.normal(0, 1 / shape[1], shape)
    elif name.startswith(("head.", "aux_head.")):
        values = random.normal(0, 0.01, shape)
    elif name.endswith(("conv.weight", "depthwise.weight", "pointwise.weight")):
        values = random.normal(0, math.sqrt(2 / (shape[0] * receptive)), shape)
    else:
        bound = 1 / math.sqrt(shape[1] * receptive)
        values = random.uniform(-bound, bound, shape)
    return values.astype(np.float32)


def _initial_bias(name):
    if name.endswith("running_mean"):
        return 0.0
    if "gfl_cls" in name:
        return CLASS_PRIOR_BIAS
    # every backbone bias belongs to a BatchNorm: its convolutions have none
    return 0.0001 if name.startswith("backbone.") else 0.0

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

    training_branch=False, for inference, also accepts weights without a single key of the auxiliary branch, and without a single
    batch counter: released files lack both. The message names what is missing, unexpected, of another shape or not finite.
    """
    expected = dict(shapes)
    if not training_branch:
        for idle in (lambda k: k.startswith(TRAINING_ONLY), lambda k: k.endswith("num_batches_tracked")):
            if not any(idle(k) for k in weights):
                expected = {k: v for k, v in expected.items() if not idle(k)}
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


def lively_weights(shapes, seed):
    """Weights no training made, under which every output varies: scores above and below the threshold, statistics away from 0 and 1.

    For comparisons without a checkpoint; on `initial_weights` all scores are alike and even a wrong port agrees.
    """
    weights = initial_weights(shapes, seed)
    for name, value in weights.items():
        random = np.random.RandomState(zlib.crc32(f"{seed}:lively:{name}".encode()) & 0xFFFFFFFF)
        if name.endswith("running_mean"):
            value[...] = 0.1 * random.randn(*value.shape)
        elif value.ndim == 4:
            # three times the usual spread where the scores are made, so that they neither saturate nor vanish
            spread = 3.0 if "gfl_" in name else 1.0
            value[...] = spread * random.randn(*value.shape) / math.sqrt(value[0].size)
        elif value.dtype.kind == "f" and name.endswith((".weight", "running_var", ".scale")):
            value[...] = 0.8 + 0.4 * random.rand(*value.shape)
        elif name.endswith(".bias"):
            value += (0.1 * random.randn(*value.shape)).astype(np.float32)
    return weights

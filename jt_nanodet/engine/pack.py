"""Plan and weights as two flat arrays, the form `native/net.h` reads.

program int32: `HEADER` whole numbers for the plan (steps, arena floats, channels, height, width, priors, outputs, classes, bins), then for each step
`HEADER` numbers (kind, height, width, kernel, stride, first prior, activation on, slope, cap, weight, bias, inputs, outputs, residuals) and the offsets of
its planes. Floats are stored by their bits.
"""

from __future__ import annotations

import numpy as np

from jt_nanodet.engine.memory import place, plane_floats
from jt_nanodet.engine.plan import KINDS, Plan, Step

HEADER = 16
BLOCK = 6  # output channels of a 1×1 tile (PW_CHANNELS)
LINE = 16  # weights begin at whole cache lines; the head's outputs are padded to it


def bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


def blocked(weight: np.ndarray) -> np.ndarray:
    """(O, n) to (ceil(O / BLOCK), n, BLOCK), padded with zeros."""
    count = -(-len(weight) // BLOCK)
    padded = np.zeros((count * BLOCK, weight.shape[1]), np.float32)
    padded[:len(weight)] = weight
    return padded.reshape(count, BLOCK, -1).transpose(0, 2, 1)


def packed(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a step in the order its kernel reads them, flat."""
    flat = step.weight.reshape(len(step.weight), -1)
    if step.kind in ("pointwise", "stem"):
        return blocked(flat).ravel(), blocked(step.bias[:, None]).ravel()
    if step.kind == "depthwise":
        return flat.ravel(), step.bias
    padded = -(-len(flat) // LINE) * LINE
    weight, bias = np.zeros((flat.shape[1], padded), np.float32), np.zeros(padded, np.float32)
    weight[:, :len(flat)], bias[:len(flat)] = flat.T, step.bias
    return weight.ravel(), bias


def pack(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """(program int32, weights float32)."""
    buffers, arena = place(plan)
    chunks, used = [], 0

    def keep(array: np.ndarray) -> int:
        nonlocal used
        begin, size = used, -(-array.size // LINE) * LINE
        chunks.append(np.concatenate((array.ravel(), np.zeros(size - array.size, np.float32))))
        used += size
        return begin

    def offsets(planes: tuple) -> list[int]:
        return [buffers[p.buffer] + p.index * plane_floats(plan.buffers[p.buffer]) for p in planes]

    program = [len(plan.steps), arena, plan.channels, plan.height, plan.width, plan.priors, plan.outputs, plan.classes, plan.bins] + [0] * (HEADER - 9)
    for step in plan.steps:
        weight, bias = (0, 0) if step.weight is None else map(keep, packed(step))
        act = step.activation
        program += [KINDS.index(step.kind), step.height, step.width, step.kernel, step.stride, step.first_prior, int(act is not None),
                    bits(act.slope if act else 1), bits(act.cap if act else 0), weight, bias, len(step.inputs), len(step.outputs), len(step.residual), 0, 0]
        program += offsets(step.inputs) + offsets(step.outputs) + offsets(step.residual)
    return np.array(program, np.int64).astype(np.int32), np.concatenate(chunks)

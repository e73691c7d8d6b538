"""Where each buffer of a plan lies in one arena: a buffer's place is free again after the last step that reads it."""

from __future__ import annotations

from jt_nanodet.engine.plan import Buffer, Plan

#: Planes end at a multiple of so many floats, so that every width of vector may compute past the last pixel.
ALIGNMENT = 16
#: Planes a power of two apart would fall into the same cache sets.
ALIASING = 256


def plane_floats(buffer: Buffer) -> int:
    """Floats from one plane of a buffer to the next."""
    floats = -(-buffer.height * buffer.width // ALIGNMENT) * ALIGNMENT
    return floats + ALIGNMENT if floats % ALIASING == 0 else floats


def place(plan: Plan) -> tuple[list[int], int]:
    """The offset in floats of every buffer, and the arena's size. First fit by order of execution, freed neighbours merged."""
    last_use = {}
    for at, step in enumerate(plan.steps):
        for plane in step.inputs + step.residual + step.outputs:
            last_use[plane.buffer] = at
    offsets, free, top = [-1] * len(plan.buffers), [], 0
    for at, step in enumerate(plan.steps):
        for number in sorted({p.buffer for p in step.outputs}):
            if offsets[number] >= 0:
                continue
            need = plan.buffers[number].channels * plane_floats(plan.buffers[number])
            # the smallest gap that fits: large ones are kept for large buffers
            gap = min((g for g in free if g[1] >= need), key=lambda g: g[1], default=None)
            if gap is None:
                offsets[number], top = top, top + need
            else:
                free.remove(gap)
                offsets[number] = gap[0]
                if gap[1] > need:
                    free.append((gap[0] + need, gap[1] - need))
        for number, last in last_use.items():
            if last == at:
                free.append((offsets[number], plan.buffers[number].channels * plane_floats(plan.buffers[number])))
        free = merged(free)
    return offsets, top


def merged(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(offset, size) gaps in order, touching ones joined."""
    found: list[tuple[int, int]] = []
    for offset, size in sorted(gaps):
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + size)
        else:
            found.append((offset, size))
    return found

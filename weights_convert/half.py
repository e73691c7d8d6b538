"""Weights as float16: half the bytes, each number rounded to the nearest one that 16 bits can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from jt_nanodet.errors import UserError
from weights_convert.account import Row

REASON = "rounded to float16"


def halved(weights: Mapping[str, np.ndarray], rows: Iterable[Row], source: object) -> tuple[dict[str, np.ndarray], list[Row], list[str]]:
    """(weights with every float as float16, their rows, notes); whole numbers stay as they are.

    Raises UserError naming the first array with a finite number beyond float16's largest, 65504: it would become infinite.
    """
    result, exact, vanished, worst = {}, 0, 0, 0.0
    for name, array in weights.items():
        if array.dtype.kind != "f" or array.dtype.itemsize <= 2:
            result[name] = array
            continue
        with np.errstate(over="ignore"):
            small = array.astype(np.float16)
        beyond = np.isinf(small) & np.isfinite(array)
        if beyond.any():
            largest = float(np.abs(array[beyond]).max())
            raise UserError(f"'{name}' in '{source}' holds {largest:g}, and float16 ends at 65504; convert it without --fp16")
        result[name] = small
        back = small.astype(array.dtype)
        exact += array.size - int(np.count_nonzero(back != array))
        vanished += int(np.count_nonzero((small == 0) & (array != 0)))
        ordinary = np.abs(array) >= np.finfo(np.float16).tiny
        if ordinary.any():
            worst = max(worst, float((np.abs(back - array)[ordinary] / np.abs(array)[ordinary]).max()))
    changed = {name for name in result if result[name].dtype != weights[name].dtype}
    out = []
    for row in rows:
        if row.target in changed:
            before = [] if row.status == "consistent" else [row.reason]
            row = replace(row, status="value_converted", reason="; ".join([*before, REASON]))
        out.append(row)
    total = sum(weights[name].size for name in changed)
    notes = [f"float16: {exact} of {total} numbers kept exactly, {vanished} became zero, largest relative change {worst:.1e} (of those that float16 holds in full)"]
    return result, out, notes

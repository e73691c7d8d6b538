"""What comparing one very large dumped tensor costs: ``python -m alignment.cost --dumps --output reports/results/dumps.json``.

A tensor of `ELEMENTS` float32 numbers on either side, with a float64 run and one repeat for the floor, in each kind of file; the candidate differs by
rounding. The comparison runs as a user would type it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from alignment.cli import say
from alignment.cost_meter import outcome

ELEMENTS = 10**8
#: Seconds and MB that the comparison may take.
LIMITS = (180, 2000)
KINDS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "safetensors": lambda folder, array: save_file({"a": array}, folder / "t.safetensors"),
    "npz": lambda folder, array: np.savez(folder / "t.npz", a=array),
    "npz, compressed": lambda folder, array: np.savez_compressed(folder / "t.npz", a=array),
}


def write(folder: Path, kind: str, elements: int) -> int:
    """Reference with float64 and one repeat, and candidate; returns how many bytes the four tensors hold."""
    shape, total = (1, 10, elements // 1000, 100), 0
    base = (np.arange(elements, dtype=np.float32) % 4096 + 1).reshape(shape)  # repeats, so that it compresses in seconds
    for place, make in (("ref", lambda: base), ("ref/float64", lambda: base.astype(np.float64)), ("ref/repeat1", lambda: np.nextafter(base, np.float32(0))),
                        ("cand", lambda: np.nextafter(base, np.float32(9999)))):
        (folder / place).mkdir(parents=True)
        array = make()
        KINDS[kind](folder / place, array)
        total += array.nbytes
    return total


def rows(scratch: Path, measure: Callable[[str, list[str]], dict[str, Any]], elements: int = ELEMENTS) -> list[dict[str, Any]]:
    """One row a kind of file, as `alignment.cost_meter.measure` makes them, with the size of what was compared."""
    found = []
    for kind in KINDS:
        folder = scratch / "dumps"
        say(f"writing {elements} elements as {kind}")
        size = write(folder, kind, elements)
        command = [sys.executable, "-m", "alignment.layers", "--ref", str(folder / "ref"), "--cand", str(folder / "cand"), "--output", str(scratch / "out")]
        measured = measure(f"{elements:.0e} elements, {kind}".replace("e+0", "e"), command)
        found.append({**measured, **outcome(scratch / "out" / "result.json"), "elements": elements, "tensors_mb": size / 2**20})
        shutil.rmtree(folder)
    return found

"""A failed row on its own, for whoever does not have this package: the arrays as npz, and a few lines of NumPy that show the difference."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from alignment.result import TensorResult

#: Elements kept of each array; larger ones are cut to those around the worst element.
LARGEST = 1 << 20

SCRIPT = '''"""{about}{name}: {reason}. {hint}

Needs NumPy alone. ref and cand are the two sides' results{inputs}.
"""
import os
import numpy as np

a = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), {file!r}))
ref, cand = a["ref"].astype(np.float64), a["cand"].astype(np.float64)
off = np.abs(cand - ref)
worst = np.unravel_index(np.argmax(off), off.shape)
print({name!r}, "largest difference", off[worst], "at", [int(i) for i in worst], ":", ref[worst], "and", cand[worst])
print("bound", {tolerance!r}, "relative L2", np.linalg.norm(off) / max(np.linalg.norm(ref), 1e-300))
'''


def file_name(name: str) -> str:
    """A tensor's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def text_of(row: TensorResult) -> tuple[str, str]:
    """(reason, hint) that may stand in a docstring."""
    return str(row.reason), row.hint.replace('"""', "").replace("\\", "/")


def write(folder: Path, stem: str, row: TensorResult, arrays: dict[str, np.ndarray], *, more: str = "") -> Path:
    """``folder/STEM.py`` and ``folder/STEM.npz`` with `ref`, `cand` and whatever else; `more` is appended to the script. Returns the script."""
    if any(array.size > LARGEST for array in arrays.values()):
        arrays = {k: around(v, row.index) for k, v in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{stem}.npz", **arrays)
    beside = [k for k in arrays if k not in ("ref", "cand")]
    reason, hint = text_of(row)
    script = SCRIPT.format(about=f"Step {row.step}, " if row.step is not None else "", name=row.name_ref, reason=reason, hint=hint,
                           inputs="; beside them " + ", ".join(beside) if beside else "", file=f"{stem}.npz", tolerance=row.tolerance)
    path = folder / f"{stem}.py"
    path.write_text(script + more, encoding="utf-8")
    return path


def around(array: np.ndarray, index: tuple[int, ...] | None) -> np.ndarray:
    """The slice of the first axis that holds the worst element."""
    if array.ndim == 0 or index is None or not index or index[0] >= len(array):
        return array
    return array[index[0]:index[0] + 1]

"""A small file that shows one failed row again, without this package: the arrays as npz and a few lines of NumPy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from alignment.result import TensorResult
from jt_nanodet.config import Config

#: Elements kept of each array; larger ones are cut to those around the worst element.
LARGEST = 1 << 20

SCRIPT = '''"""Step {step}, {name}: {reason}. {hint}

Needs NumPy alone. The arrays are those of the step: ref and cand are the two sides' results{inputs}.
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

ADAMW = '''
# AdamW in float64 from the same weights, moments and clipped gradient: which side does it agree with?
w, m, v, g = (a[k].astype(np.float64) for k in ("weight", "exp_avg", "exp_avg_sq", "gradient"))
m, v = m + (g - m) * (1 - {beta1!r}), v * {beta2!r} + g * g * (1 - {beta2!r})
w = w * (1 - {lr!r} * {decay!r}) - {lr!r} / (1 - {beta1!r} ** {steps}) * m / (np.sqrt(v) / np.sqrt(1 - {beta2!r} ** {steps}) + {eps!r})
want = {{"exp_avg": m, "exp_avg_sq": v, "weight": w}}[{which!r}]
print("from the formula: reference off by", np.abs(ref - want).max(), "candidate off by", np.abs(cand - want).max())
'''


def write(folder: Path, row: TensorResult, ref: dict, cand: dict, before: dict, config: Config) -> Path | None:
    """``folder/stepNNNN_NAME.py`` and its npz; None where the row is no pair of arrays."""
    names = [row.name_ref]
    if row.name_ref.endswith(("/rule", "/candidates", "/box")):
        at = row.name_ref.rsplit("/", 1)[0]
        names = [f"{at}/box"]
    if names[0] not in ref or names[0] not in cand:
        return None
    arrays = {"ref": ref[names[0]], "cand": cand[names[0]]}
    if row.stage == "assignment":
        at = row.name_ref.rsplit("/", 1)[0]
        arrays.update({f"{side}_{k}": part[f"{at}/{k}"] for side, part in (("ref", ref), ("cand", cand)) for k in ("candidates", "cost", "overlap", "sum")
                       if f"{at}/{k}" in part})
    extra, adamw = update_inputs(row, ref, before, config)
    arrays.update(extra)
    if any(array.size > LARGEST for array in arrays.values()):
        arrays = {k: around(v, row.index) for k, v in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"step{row.step:04d}_" + re.sub(r"[^A-Za-z0-9]+", "_", row.name_ref)
    np.savez_compressed(folder / f"{stem}.npz", **arrays)
    inputs = "; beside them " + ", ".join(k for k in arrays if k not in ("ref", "cand")) if len(arrays) > 2 else ""
    script = SCRIPT.format(step=row.step, name=row.name_ref, reason=row.reason, hint=row.hint.replace('"""', ""), inputs=inputs, file=f"{stem}.npz", tolerance=row.tolerance)
    path = folder / f"{stem}.py"
    path.write_text(script + adamw, encoding="utf-8")
    return path


def update_inputs(row: TensorResult, ref: dict, before: dict, config: Config) -> tuple[dict[str, np.ndarray], str]:
    """What AdamW's formula needs, for a failed moment or weight."""
    optimizer = config.schedule.optimizer
    if row.stage not in ("optimizer", "weights") or optimizer.name != "AdamW" or optimizer.param_level_cfg or optimizer.no_norm_decay or optimizer.no_bias_decay:
        return {}, ""
    which = "weight" if row.stage == "weights" else row.name_ref.split("/")[2]
    name = row.name_ref.split("/", 2)[2] if row.stage == "weights" else row.name_ref.split("/", 3)[3]
    if f"gradient/{name}" not in ref or which not in ("weight", "exp_avg", "exp_avg_sq"):
        return {}, ""
    norm, limit = float(ref["norm/given"][0]), config.grad_clip
    clip = min(1.0, limit / (norm + 1e-6)) if limit > 0 else 1.0
    arrays = {"weight": before[f"model/{name}"], "exp_avg": before[f"optimizer/exp_avg/{name}"], "exp_avg_sq": before[f"optimizer/exp_avg_sq/{name}"],
              "gradient": ref[f"gradient/{name}"] * np.float32(clip)}
    (beta1, beta2), steps = optimizer.betas, int(before["optimizer/steps"]) + 1
    return arrays, ADAMW.format(beta1=beta1, beta2=beta2, lr=float(ref["rate"][0]), decay=optimizer.decay, steps=steps, eps=optimizer.eps, which=which)


def around(array: np.ndarray, index: tuple[int, ...] | None) -> np.ndarray:
    """The slice of the first axis that holds the worst element."""
    if array.ndim == 0 or index is None or not index or index[0] >= len(array):
        return array
    return array[index[0]:index[0] + 1]

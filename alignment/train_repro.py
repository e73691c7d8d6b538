"""A small file that shows one failed row again, without this package: the arrays as npz and a few lines of NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignment import repro
from alignment.result import TensorResult
from jt_nanodet.config import Config

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
    return repro.write(folder, f"step{row.step:04d}_{repro.file_name(row.name_ref)}", row, arrays, more=adamw)


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


"""A small log in upstream's form, for tests that must run without ``../shared``."""

from __future__ import annotations

import math

import numpy as np

NAMES = ("loss_qfl", "loss_bbox", "loss_dfl", "aux_loss_qfl", "aux_loss_bbox", "aux_loss_dfl")


def upstream_log(seed: int = 0, epochs: int = 40, per_epoch: int = 100, interval: int = 5, factor: float = 1.0, score: float = 0.0) -> str:
    """Text with `epochs` * `per_epoch` / `interval` Train lines, and every fifth epoch 4 Val lines and a metric line."""
    rng = np.random.default_rng(seed)
    lines = [f"[NanoDet][07-22 10:00:00]INFO: Set random seed to {seed}"]
    clock = 0

    def line(kind: str, epoch: int, iteration: int, inner: str, values) -> str:
        rate = 5e-4 * min(1.0, iteration / 200) if iteration < 200 else 1e-5 + 4.9e-4 * (1 + math.cos(math.pi * (epoch - 1) / epochs)) / 2
        stamp = f"07-22 {10 + clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
        losses = "".join(f"{name}:{value:.4f}| " for name, value in zip(NAMES, values))
        return f"[NanoDet][{stamp}]INFO: {kind}|Epoch{epoch}/{epochs}|Iter{iteration}({inner})| mem:4.84G| lr:{rate:.2e}| {losses}"

    last = 1
    for iteration in range(0, epochs * per_epoch, interval):
        epoch = iteration // per_epoch + 1
        if epoch != last and last % 5 == 0:
            lines += _validation(rng, last, last * per_epoch, line, score)
        last = epoch
        level = factor * (0.3 + 1.2 * math.exp(-iteration / 800)) * np.array([1.0, 1.5, 0.8, 0.9, 1.2, 0.6])
        clock += 4
        lines.append(line("Train", epoch, iteration, f"{iteration % per_epoch + 1}/{per_epoch}", level * (1 + 0.1 * rng.standard_normal(6))))
    lines += _validation(rng, epochs, epochs * per_epoch, line, score)
    return "\n".join(lines) + "\n"


def _validation(rng, epoch: int, iteration: int, line, score: float) -> list[str]:
    out = [line("Val", epoch, iteration, f"{inner}/83", 0.5 * (1 + 0.1 * rng.standard_normal(6))) for inner in (1, 26, 51, 76)]
    value = 0.55 - 0.3 * math.exp(-epoch / 8) + score + 0.0007 * rng.standard_normal()
    out.append(f"[NanoDet][07-22 12:00:00]INFO: Val_metrics: {{'mAP': {value!r}, 'AP_50': {value + 0.3!r}}}")
    return out

"""BatchNorm in evaluation mode folded into the convolution before it."""

from __future__ import annotations

import numpy as np


def fold(weight: np.ndarray, bias: np.ndarray | None, norm: dict[str, np.ndarray] | None, eps: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Weight (O, I, K, K) and bias (O,) float32 of the convolution that equals convolution and normalisation together.

    norm: weight, bias, running_mean, running_var, each (O,), or None. Computed in float64 and rounded once.
    """
    weight = weight.astype(np.float64)
    shift = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    if norm is not None:
        gamma, beta, mean, var = (norm[k].astype(np.float64) for k in ("weight", "bias", "running_mean", "running_var"))
        scale = gamma / np.sqrt(var + eps)
        weight = weight * scale.reshape(-1, 1, 1, 1)
        shift = beta + (shift - mean) * scale
    return weight.astype(np.float32), shift.astype(np.float32)

"""NumPy twin of update.py, float64: clipping, AdamW (arXiv:1711.05101) and moving average of one tensor."""
import numpy as np


def norm(gradients):
    """Root of the summed squares of all gradients."""
    return np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))


def update(p, g, m, v, e, *, clip, lr, decay, betas, eps, steps, share):
    """New (parameter, moments, average): `clip` the factor on the gradient, `steps` counted from 1, `share` of the new value in the average."""
    g = g.astype(np.float64) * clip
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g * g
    p = p * (1 - lr * decay) - lr * (m / (1 - betas[0] ** steps)) / (np.sqrt(v / (1 - betas[1] ** steps)) + eps)
    return p, m, v, e * (1 - share) + p * share

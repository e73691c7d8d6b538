"""NumPy twin of norm.py, float64: the formulas, over whole arrays."""
import numpy as np


def sets(x, groups):
    """x (B, C, H, W) as (set, element), and the way back."""
    b, c = x.shape[:2]
    if groups:
        return x.reshape(b * groups, -1), lambda a: a.reshape(x.shape)
    turned = x.transpose(1, 0, 2, 3)
    return turned.reshape(c, -1), lambda a: a.reshape(turned.shape).transpose(1, 0, 2, 3)


def forward(x, weight, bias, groups, eps, slope):
    """(output, before the activation, normalised input, inverse deviation of every set), all shaped like x but the last."""
    flat, back = sets(x.astype(np.float64), groups)
    inverse = 1 / np.sqrt(flat.var(axis=1, keepdims=True) + eps)
    h = back((flat - flat.mean(axis=1, keepdims=True)) * inverse)
    z = h * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
    return np.where(z > 0, z, slope * z), z, h, inverse


def backward(x, weight, bias, gy, groups, eps, slope):
    """Gradients of x, weight and bias."""
    _, z, h, inverse = forward(x, weight, bias, groups, eps, slope)
    d = np.where(z > 0, gy, slope * gy)
    dh, back = sets(d * weight.reshape(1, -1, 1, 1), groups)
    hs, _ = sets(h, groups)
    gx = back(inverse * (dh - dh.mean(axis=1, keepdims=True) - hs * (dh * hs).mean(axis=1, keepdims=True)))
    return gx, (d * h).sum(axis=(0, 2, 3)), d.sum(axis=(0, 2, 3))


def running(x, mean, var, momentum):
    """Running mean and variance of BatchNorm after one batch."""
    flat, _ = sets(x.astype(np.float64), 0)
    return mean * (1 - momentum) + flat.mean(axis=1) * momentum, var * (1 - momentum) + flat.var(axis=1, ddof=min(1, flat.shape[1] - 1)) * momentum

"""What the tests of the operators share: errors against a float64 twin, and finite differences of the twin itself."""
import numpy as np


def rms(found, truth):
    """Root-mean-square error, relative to the root mean square of the truth."""
    truth = np.asarray(truth, np.float64)
    return float(np.sqrt(((np.asarray(found, np.float64) - truth) ** 2).mean()) / (np.sqrt((truth ** 2).mean()) + 1e-300))


def check_gradient(function, gradient, arrays, gy, random, steps=1e-6):
    """The twin's own gradients against central differences along random directions, float64."""
    for array, g in zip(arrays, gradient):
        direction = random.randn(*array.shape)
        up, down = ([a + sign * steps * direction if a is array else a for a in arrays] for sign in (1, -1))
        numeric = ((function(*up) - function(*down)) * gy).sum() / (2 * steps)
        assert numeric == np.float64(numeric) and abs(numeric - (g * direction).sum()) <= 1e-6 * (np.abs(g * direction).sum() + 1e-9)


def no_worse(ours, theirs, truths, names):
    """Every result of ours errs at most 1.5 times as much as PyTorch's, or less than one rounding."""
    for name, a, b, truth in zip(names, ours, theirs, truths):
        assert np.shape(a) == np.shape(truth), name
        assert rms(a, truth) <= max(1.5 * rms(b, truth), np.finfo(np.float32).eps), f"{name}: {rms(a, truth):.2e}, PyTorch {rms(b, truth):.2e}"

"""NumPy twin of window.py, float64: one loop over the taps of the window."""
import numpy as np


def views(x, kernel, stride, padding, fill):
    """Padded copy of x (B, C, H, W), and for every tap the part of it (a view) that the outputs meet."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in x.shape[2:])
    return padded, [padded[:, :, i:i + stride * rows:stride, j:j + stride * columns:stride][:, :, :rows, :columns]
                    for i in range(kernel) for j in range(kernel)]


def inner(padded, padding, shape):
    return padded[:, :, padding:padding + shape[2], padding:padding + shape[3]]


def depthwise(x, weight, stride, padding):
    """x (B, C, H, W) with weight (C, 1, K, K)."""
    _, taps = views(x, weight.shape[2], stride, padding, 0)
    return sum(tap * w[None, :, None, None] for tap, w in zip(taps, weight.astype(np.float64).reshape(len(weight), -1).T))


def depthwise_backward(x, weight, gy, stride, padding):
    """Gradients of x and weight."""
    _, taps = views(x, weight.shape[2], stride, padding, 0)
    gw = np.stack([(tap * gy).sum(axis=(0, 2, 3)) for tap in taps], axis=1).reshape(weight.shape)
    padded, places = views(np.zeros(x.shape), weight.shape[2], stride, padding, 0)
    for place, w in zip(places, weight.astype(np.float64).reshape(len(weight), -1).T):
        place += gy * w[None, :, None, None]
    return inner(padded, padding, x.shape), gw


def max_pool(x, kernel, stride, padding):
    """(output, number of the chosen tap): of equal values the first."""
    _, taps = views(x, kernel, stride, padding, -np.inf)
    stacked = np.stack(taps)
    return stacked.max(axis=0), stacked.argmax(axis=0)


def max_pool_backward(x, gy, kernel, stride, padding):
    """Gradient of x."""
    chosen = max_pool(x, kernel, stride, padding)[1]
    padded, places = views(np.zeros(x.shape), kernel, stride, padding, 0)
    for number, place in enumerate(places):
        place += np.where(chosen == number, gy, 0)
    return inner(padded, padding, x.shape)

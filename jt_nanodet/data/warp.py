"""Warp matrices: one 3x3 product moves pixels and boxes from the picture to the network's input and back.

All matrices are float64 (3, 3) and act on column vectors (x, y, 1) in pixels. The order of the products and of the
divisions is upstream's (``nanodet/data/transform/warp.py``), because a detection near a threshold feels the last bit.
"""

from __future__ import annotations

import math

import cv2
import numpy as np


def centre(width: int, height: int) -> np.ndarray:
    """Move the middle of a picture to the origin."""
    m = np.eye(3)
    m[0, 2] = -width / 2
    m[1, 2] = -height / 2
    return m


def perspective_matrix(amount: float, rng) -> np.ndarray:
    """Two draws from [-amount, amount], for x and then y."""
    m = np.eye(3)
    m[2, 0] = rng.uniform(-amount, amount)
    m[2, 1] = rng.uniform(-amount, amount)
    return m


def scale_matrix(limits: tuple[float, float], rng) -> np.ndarray:
    """One draw, the same factor for both axes."""
    factor = rng.uniform(*limits)
    return np.diag([factor, factor, 1.0])


def stretch_matrix(limits: tuple[tuple[float, float], tuple[float, float]], rng) -> np.ndarray:
    """Two draws: factor of the width, factor of the height."""
    x = rng.uniform(*limits[0])
    y = rng.uniform(*limits[1])
    return np.diag([x, y, 1.0])


def rotation_matrix(degrees: float, rng) -> np.ndarray:
    """One draw from [-degrees, degrees], about the origin; OpenCV's own sine and cosine."""
    m = np.eye(3)
    m[:2] = cv2.getRotationMatrix2D(center=(0, 0), angle=rng.uniform(-degrees, degrees), scale=1)
    return m


def shear_matrix(degrees: float, rng) -> np.ndarray:
    """Two draws from [-degrees, degrees]: along x, along y."""
    m = np.eye(3)
    m[0, 1] = math.tan(rng.uniform(-degrees, degrees) * math.pi / 180)
    m[1, 0] = math.tan(rng.uniform(-degrees, degrees) * math.pi / 180)
    return m


def flip_matrix(probability: float, rng) -> np.ndarray:
    """One draw; mirrors left and right when it falls below the probability."""
    m = np.eye(3)
    if rng.random() < probability:
        m[0, 0] = -1
    return m


def translate_matrix(amount: float, width: int, height: int, rng) -> np.ndarray:
    """Two draws from [0.5 - amount, 0.5 + amount]; 0.5 puts the origin back into the middle."""
    m = np.eye(3)
    m[0, 2] = rng.uniform(0.5 - amount, 0.5 + amount) * width
    m[1, 2] = rng.uniform(0.5 - amount, 0.5 + amount) * height
    return m


def fit_ratio(source: tuple[int, int], target: tuple[int, int]) -> float:
    """Largest factor at which a (w, h) picture fits into a (w, h) frame."""
    (w, h), (tw, th) = source, target
    return th / h if w / h < tw / th else tw / w


def fitted_size(source: tuple[int, int], target: tuple[int, int], divisible: int = 0) -> tuple[int, int]:
    """(w, h) of the picture once it fits the frame, rounded up to a multiple of ``divisible`` when that is not 0."""
    ratio = fit_ratio(source, target)
    size = [int(ratio * source[0]), int(ratio * source[1])]
    if divisible > 0:
        size = [max(divisible, (s + divisible - 1) // divisible * divisible) for s in size]
    return size[0], size[1]


def resize_matrix(source: tuple[int, int], target: tuple[int, int], keep_ratio: bool) -> np.ndarray:
    """Matrix from a (w, h) picture to a (w, h) frame: stretched, or fitted and centred with ``keep_ratio``."""
    if not keep_ratio:
        m = np.eye(3)
        m[0, 0] *= target[0] / source[0]
        m[1, 1] *= target[1] / source[1]
        return m
    ratio = fit_ratio(source, target)
    back = np.eye(3)
    back[0, 2] = 0.5 * target[0]
    back[1, 2] = 0.5 * target[1]
    return back @ np.diag([ratio, ratio, 1.0]) @ centre(*source)


def warp_boxes(boxes: np.ndarray, matrix: np.ndarray, width: float, height: float) -> np.ndarray:
    """Corners of (n, 4) xyxy boxes moved by ``matrix``, their upright hull clipped to the frame; float32 (n, 4).

    Pass the inverse matrix and the picture's size to bring detections back to picture coordinates.
    """
    n = len(boxes)
    if not n:
        return np.asarray(boxes, np.float32).reshape(0, 4)
    corners = np.ones((n * 4, 3))
    corners[:, :2] = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(n * 4, 2)
    corners = corners @ matrix.T
    corners = (corners[:, :2] / corners[:, 2:3]).reshape(n, 4, 2)
    low, high = corners.min(1), corners.max(1)
    out = np.concatenate([low, high], axis=1)
    out[:, 0::2] = out[:, 0::2].clip(0, width)
    out[:, 1::2] = out[:, 1::2].clip(0, height)
    return out.astype(np.float32)


def unwarp_boxes(boxes: np.ndarray, matrix: np.ndarray, width: float, height: float) -> np.ndarray:
    """(n, 4) boxes of the network's input in coordinates of the (width, height) picture; float32."""
    return warp_boxes(boxes, np.linalg.inv(matrix), width, height)

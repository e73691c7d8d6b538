"""Upstream's training transforms, with the random source passed in.

``rng`` is a ``random.Random``: ``Random(s)`` draws what upstream draws after ``random.seed(s)``, because order and
number of draws are the same (``nanodet/data/transform/{warp,color,pipeline}.py``). At test time the same
code runs on factors that leave the picture alone, so both paths round alike.
"""

from __future__ import annotations

import random

import cv2
import numpy as np

from jt_nanodet.config import PipelineConfig
from jt_nanodet.data import warp


def draw_matrix(pipeline: PipelineConfig, size: tuple[int, int], rng) -> np.ndarray:
    """(3, 3) float64 matrix of the drawn perspective, scale, stretch, rotation, shear, flip and shift, in that order.

    ``size`` is the picture's (w, h). Ten or more numbers are drawn whatever the limits are.
    """
    width, height = size
    m = warp.centre(width, height)
    m = warp.perspective_matrix(pipeline.perspective, rng) @ m
    m = warp.scale_matrix(pipeline.scale, rng) @ m
    m = warp.stretch_matrix(pipeline.stretch, rng) @ m
    m = warp.rotation_matrix(pipeline.rotation, rng) @ m
    m = warp.shear_matrix(pipeline.shear, rng) @ m
    m = warp.flip_matrix(pipeline.flip, rng) @ m
    return warp.translate_matrix(pipeline.translate, width, height, rng) @ m


def shape_transform(
    image: np.ndarray, pipeline: PipelineConfig, frame: tuple[int, int], keep_ratio: bool, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Warp a BGR picture into a (w, h) frame; returns (pixels (h', w', 3) uint8, matrix).

    With ``keep_ratio`` the frame shrinks to the fitted picture, so h' and w' may be smaller than asked.
    """
    size = (image.shape[1], image.shape[0])
    m = draw_matrix(pipeline, size, rng)
    if keep_ratio:
        frame = warp.fitted_size(size, frame, pipeline.divisible)
    m = warp.resize_matrix(size, frame, keep_ratio) @ m
    return cv2.warpPerspective(image, m, dsize=tuple(frame)), m


def colour_transform(image: np.ndarray, pipeline: PipelineConfig, rng) -> np.ndarray:
    """Brightness, contrast and saturation, each with probability one half; float32 (h, w, 3) from uint8, 1.0 is white.

    A coin is tossed only for keys that the configuration sets, as upstream.
    """
    image = np.divide(image, np.float32(255), dtype=np.float32)
    if pipeline.brightness is not None and rng.randint(0, 1):
        image += rng.uniform(-pipeline.brightness, pipeline.brightness)
    if pipeline.contrast is not None and rng.randint(0, 1):
        image *= rng.uniform(*pipeline.contrast)
    if pipeline.saturation is not None and rng.randint(0, 1):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] *= rng.uniform(*pipeline.saturation)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return image


def normalise_planes(image: np.ndarray, normalize) -> np.ndarray:
    """(3, h, w) float32 planes of an (h, w, 3) picture: less the mean, divided by the deviation, both in float32 "
    "parts of 255."""
    mean, std = (np.array(v, np.float32) / 255 for v in normalize)
    planes = np.empty((3, *image.shape[:2]), np.float32)
    for c in range(3):  # straight into the plane: the same roundings as upstream's, without two more copies
        np.subtract(image[..., c], mean[c], out=planes[c])
        planes[c] /= std[c]
    return planes


def apply_pipeline(
    image: np.ndarray, pipeline: PipelineConfig, frame: tuple[int, int], keep_ratio: bool, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Shape, colour, normalise; returns (input (3, h', w') float32 contiguous, matrix (3, 3) float64)."""
    pixels, matrix = shape_transform(image, pipeline, frame, keep_ratio, rng)
    return normalise_planes(colour_transform(pixels, pipeline, rng), pipeline.normalize), matrix


def draw_frame(multi_scale: tuple[float, float] | None, frame: tuple[int, int], rng) -> tuple[int, int]:
    """The (w, h) frame of one sample: as configured, or times one drawn factor (drawn before anything else)."""
    if not multi_scale:
        return frame
    factor = rng.uniform(*multi_scale)
    return int(frame[0] * factor), int(frame[1] * factor)


def preprocess_image(
    image: np.ndarray, input_size: tuple[int, int], keep_ratio: bool, normalize
) -> tuple[np.ndarray, np.ndarray]:
    """Upstream's test-time preprocessing of one BGR uint8 picture.

    ``input_size`` is (w, h), ``normalize`` (mean, std) in grey levels, BGR. Returns (input (3, h, w) float32,
    matrix (3, 3) from picture to input). With ``keep_ratio`` h and w are those of the fitted picture.
    """
    pipeline = PipelineConfig(normalize=tuple(tuple(float(x) for x in v) for v in normalize))
    return apply_pipeline(image, pipeline, tuple(input_size), keep_ratio, random.Random(0))

"""Raw head output to boxes and scores (`get_bboxes` of `nanodet/model/head/nanodet_plus_head.py`)."""
import math

import numpy as np
import torch

from .boxes import distance_to_xyxy


def center_priors(input_hw, strides):
    """(P, 4) float32 NumPy array of x, y, stride, stride, level by level, row by row.

    The width in cells is ceil(W) / stride, a fraction where the stride does not divide W: upstream's misplaced parenthesis,
    kept because it decides the number of priors. Raises nothing; input_hw is (height, width) in pixels.
    """
    height, width = input_hw
    levels = []
    for stride in strides:
        xs = np.arange(math.ceil(width) / stride, dtype=np.float32) * np.float32(stride)
        ys = np.arange(math.ceil(height / stride), dtype=np.float32) * np.float32(stride)
        y, x = np.meshgrid(ys, xs, indexing="ij")
        s = np.full(x.size, stride, np.float32)
        levels.append(np.stack((x.reshape(-1), y.reshape(-1), s, s), axis=1))
    return np.concatenate(levels)


def decode(raw, integral, cfg, input_hw):
    """raw (B, P, C + 4·R) to boxes (B, P, 4), xyxy clipped to the input, and scores (B, P, C) after the sigmoid.

    integral: the head's `distribution_project`; cfg: HeadConfig; input_hw: (height, width) in pixels.
    """
    priors = torch.from_numpy(center_priors(input_hw, cfg.strides)).to(raw.device)
    distance = integral(raw[..., cfg.num_classes:]) * priors[:, 2:3]
    boxes = distance_to_xyxy(priors[:, :2], distance, input_hw)
    return boxes, raw[..., :cfg.num_classes].sigmoid()

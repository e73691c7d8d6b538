"""Samples to batches: stacked, padded with zeros at the right and bottom to a common size (upstream "
"``batch_process.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

LISTED = ("img_info", "warp_matrix", "gt_bboxes", "gt_labels", "gt_bboxes_ignore")


def padded_size(shapes: Sequence[tuple[int, ...]], divisible: int = 32) -> tuple[int, int]:
    """(h, w) that holds every (3, h, w) shape, each rounded up to a multiple of ``divisible``."""
    h, w = max(s[-2] for s in shapes), max(s[-1] for s in shapes)
    return -(-h // divisible) * divisible, -(-w // divisible) * divisible


def stack_images(images: Sequence[np.ndarray], divisible: int = 32) -> np.ndarray:
    """(3, h, w) float32 images as one contiguous (B, 3, H, W)."""
    if not images:
        raise ValueError("a batch needs at least one image")
    h, w = padded_size([i.shape for i in images], divisible)
    if all(i.shape == (3, h, w) for i in images):
        return np.stack(images)
    out = np.zeros((len(images), 3, h, w), np.float32)
    for slot, image in zip(out, images):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return out


def make_batch(samples: Sequence[dict], indices: Sequence[int], divisible: int = 32) -> dict:
    """``img`` (B, 3, H, W), ``index`` list, and a list for every other key of a sample."""
    batch = {"img": stack_images([s["img"] for s in samples], divisible), "index": list(indices)}
    batch.update({key: [s[key] for s in samples] for key in LISTED})
    return batch


def batches(dataset, indices: Sequence[int] | None = None, batch_size: int = 1, divisible: int = 32) -> Iterator[dict]:
    """Batches in the given order, read in this process; an unreadable picture is a UserError that names it."""
    indices = range(len(dataset)) if indices is None else indices
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        yield make_batch([dataset[i] for i in part], part, divisible)

"""Boxes and scores on which every rule of the post-processing decides something, through one side's own code.

``python -m tests.sabotage.crafted FILE.json`` writes the reference's answer in a process of its own; the port's is made by `document`
in the process that planted the fault. Both get the same bits, so the floor of the comparison is 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alignment.result import write_json
from jt_nanodet.data.warp import resize_matrix

CLASSES = 3
#: Width and height of the picture and of the network's input; not one scale for both axes.
PICTURE, INPUT = (400, 300), (320, 320)


def case(*rows: tuple, iou: float = 0.6) -> dict[str, Any]:
    """rows: (x1, y1, x2, y2, class, score)."""
    scores = np.zeros((len(rows), CLASSES), np.float32)
    for k, (*_, label, score) in enumerate(rows):
        scores[k, label] = score
    return {"boxes": np.array([row[:4] for row in rows], np.float32), "scores": scores, "iou": iou}


#: What it is about -> input. All numbers that decide are exact in float32.
CASES = {
    "overlap at the threshold": case((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 5, 0, 0.8), iou=0.5),
    "overlap below the threshold, above it with + 1": case((20, 20, 30, 30, 0, 0.9), (20, 20, 30, 25.75, 0, 0.8)),
    "one box in two classes": case((50, 50, 90, 90, 0, 0.9), (50, 50, 90, 90, 1, 0.7)),
    "a score at the threshold": case((100, 100, 140, 140, 2, 0.05), (200, 100, 240, 140, 2, 0.5)),
    "a crowd before a single box": case(*((50, 50, 90, 90, 0, 0.9 - k / 1024) for k in range(120)), (200, 200, 240, 240, 0, 0.25)),
    "more than a hundred": case(*((k % 15 * 20, k // 15 * 20, k % 15 * 20 + 10, k // 15 * 20 + 10, 0, 0.9 - k / 1024) for k in range(130))),
    "a box beyond the picture": case((-20, -10, 360, 340, 1, 0.75)),
    "equal scores": case((100, 100, 140, 140, 0, 0.5), (100, 100, 140, 136, 0, 0.5)),
}


def document(tester: Any, tensor: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """What `tester.run` would have returned, as the judge of `alignment.infer` reads it; one picture a case."""
    matrix, detections, images = resize_matrix(PICTURE, INPUT, False), [], []
    for number, (about, given) in enumerate(CASES.items(), 1):
        dets, labels, _ = tester.multiclass_nms(tensor(given["boxes"]), tensor(given["scores"]), iou_threshold=given["iou"])
        info = {"id": number, "file_name": about, "width": PICTURE[0], "height": PICTURE[1], "input_width": INPUT[0], "input_height": INPUT[1]}
        detections += tester.detections_to_coco(np.asarray(dets), np.asarray(labels), info, matrix, range(CLASSES))
        images.append(info)
    return {"detections": detections, "candidates": [], "images": images, "metrics": None, "cat_ids": list(range(CLASSES)),
            "class_names": [f"class {k}" for k in range(CLASSES)], "source": "crafted", "versions": {}, "seconds": 0.0, "peak_memory_mb": 0.0,
            "config_sha256": "crafted", "weights_sha256": "crafted", "code_sha256": "crafted"}


if __name__ == "__main__":
    import torch

    from torch_ref import tester as reference

    write_json(Path(sys.argv[1]), document(reference, torch.from_numpy))

"""VOC's average precision at IoU 0.5, by the rules of 2007 and of 2010 to 2012 (the devkit's VOCevaldet.m).

A detection belongs to the object of its class and picture that it overlaps most. At IoU 0.5 or more it is right the first time and wrong after that; on
a difficult object it counts as neither, and difficult objects are not asked for. 2007 averages the best precision at recalls 0, 0.1, … 1; from 2010 on it
is the area below the curve made falling. Boxes are COCO's; for VOC's annotations as this project converts them (docs/voc.md) their plain IoU is the
devkit's, which adds 1 to every side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

RULES = ("2007", "2012")
MIN_OVERLAP = 0.5


def voc_metrics(truth: dict, detections: Sequence[dict], rule: str) -> dict:
    """``mAP`` over the classes that have an object to be found, and ``per_class`` (None where there is none).

    ``truth``: a COCO dictionary; objects with ``difficult``, ``ignore`` or ``iscrowd`` are difficult. ``detections``: COCO result entries.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: use one of {RULES}")
    objects: dict[int, dict[int, list[tuple[list[float], bool]]]] = defaultdict(lambda: defaultdict(list))
    for entry in truth["annotations"]:
        hard = bool(entry.get("difficult") or entry.get("ignore") or entry.get("iscrowd"))
        objects[entry["category_id"]][entry["image_id"]].append((entry["bbox"], hard))
    found: dict[int, list[dict]] = defaultdict(list)
    for entry in detections:
        found[entry["category_id"]].append(entry)
    per_class = {c["name"]: average_precision(objects[c["id"]], found[c["id"]], rule) for c in truth["categories"]}
    known = [value for value in per_class.values() if value is not None]
    return {"mAP": float(np.mean(known)) if known else None, "per_class": per_class}


def average_precision(objects: dict[int, list[tuple[list[float], bool]]], found: Sequence[dict], rule: str) -> float | None:
    """AP of one class; None when no object is asked for. ``objects``: picture -> [(box, difficult)]."""
    positives = sum(not hard for members in objects.values() for _, hard in members)
    if positives == 0:
        return None
    taken: set[tuple[int, int]] = set()
    right, wrong = [], []
    for entry in sorted(found, key=lambda e: -e["score"]):  # stable: equal scores keep their order
        members = objects.get(entry["image_id"], [])
        overlaps = [iou(entry["bbox"], box) for box, _ in members]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = best >= 0 and overlaps[best] >= MIN_OVERLAP
        if hit and members[best][1]:
            continue
        good = hit and (entry["image_id"], best) not in taken
        if good:
            taken.add((entry["image_id"], best))
        right.append(good)
        wrong.append(not good)
    hits, misses = np.cumsum(right, dtype=np.float64), np.cumsum(wrong, dtype=np.float64)
    recall, precision = hits / positives, hits / np.maximum(hits + misses, 1e-12)
    return eleven_points(recall, precision) if rule == "2007" else area(recall, precision)


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean of the best precision at recall 0, 0.1, … 1 or more."""
    # the recalls are compared as tenths of a count, so that 0.3 of a curve is not missed by a rounding of 0.1 * 3
    return float(np.mean([max(precision[recall >= t / 10 - 1e-12], default=0.0) for t in range(11)]))


def area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area below the curve whose precision at each recall is the best at that recall or more."""
    steps = np.concatenate([[0.0], recall, [1.0]])
    best = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    change = np.flatnonzero(steps[1:] != steps[:-1])
    return float(((steps[change + 1] - steps[change]) * best[change + 1]).sum())


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two COCO boxes over their union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)

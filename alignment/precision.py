"""Precision over recall, and every class's AP by size and overlap, of both sides: what the report draws beside COCO's twelve numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from jt_nanodet.data.evaluator import CocoEvaluator

#: Number -> (which overlaps of the ten, which of the four area ranges) of pycocotools' precision array.
NUMBERS = {"AP": (slice(None), 0), "AP_50": (slice(0, 1), 0), "AP_75": (slice(5, 6), 0), "AP_small": (slice(None), 1), "AP_m": (slice(None), 2), "AP_l": (slice(None), 3)}
#: The numbers whose curves are drawn; they cover all sizes.
CURVES = ("AP_50", "AP_75", "AP")
#: Decimals kept: a hundredth of what two sides may differ in any number.
DIGITS = 6


def curves(truth: Any, ref: list[dict[str, Any]], cand: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The ``precision`` part of result.json: `recalls` (101), for each side the mean precision over classes at these recalls, and a table of classes by
    numbers; null where a class has no such object. `truth` is what `CocoEvaluator` takes. None when a side found nothing: then there is no curve."""
    if not ref or not cand:
        return None
    evaluator = CocoEvaluator(truth)
    found: dict[str, Any] = {"numbers": list(NUMBERS), "classes": evaluator.class_names}
    for side, detections in (("pytorch", ref), ("jittor", cand)):
        run = evaluator.accumulated(detections)
        precision = run.eval["precision"][..., -1]  # (overlaps, recalls, classes, area ranges)
        found["recalls"] = np.round(run.params.recThrs, DIGITS).tolist()
        found[side] = {"curves": {name: _plain(_mean(precision[NUMBERS[name][0], :, :, 0], (0, 2))) for name in CURVES},
                       "classes": [_plain(np.stack([_mean(precision[overlaps, :, k, area], (0, 1)) for overlaps, area in NUMBERS.values()]))
                                   for k in range(len(evaluator.class_names))]}
    return found


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over `axes` without pycocotools' -1; NaN where nothing is left."""
    known = values > -1
    count = known.sum(axes)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axes) / np.maximum(count, 1), np.nan)


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), DIGITS) for value in values]

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


def of_run(run: Any) -> dict[str, Any]:
    """One side's `curves` (mean precision over classes at the recalls) and `classes` (rows of `NUMBERS`), from an accumulated evaluation of pycocotools."""
    precision = run.eval["precision"][..., -1]  # (overlaps, recalls, classes, area ranges)
    return {"curves": {name: _plain(_mean(precision[NUMBERS[name][0], :, :, 0], (0, 2))) for name in CURVES},
            "classes": [_plain(np.stack([_mean(precision[overlaps, :, k, area], (0, 1)) for overlaps, area in NUMBERS.values()])) for k in range(precision.shape[2])]}


def joined(evaluator: CocoEvaluator, ref: dict[str, Any], cand: dict[str, Any]) -> dict[str, Any]:
    """The ``precision`` part of result.json from both sides' `of_run`; null where a class has no such object."""
    from pycocotools.cocoeval import Params

    return {"numbers": list(NUMBERS), "classes": evaluator.class_names, "recalls": np.round(Params("bbox").recThrs, DIGITS).tolist(), "pytorch": ref, "jittor": cand}


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean over `axes` without pycocotools' -1; NaN where nothing is left."""
    known = values > -1
    count = known.sum(axes)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axes) / np.maximum(count, 1), np.nan)


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), DIGITS) for value in values]

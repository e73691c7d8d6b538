"""The bootstrap's numbers are pycocotools' own, on the images as they are and on a drawn set of them."""

from __future__ import annotations

import numpy as np
import pytest

from alignment import bootstrap
from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.data.cocofile import as_coco
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.errors import UserError

CATEGORIES = [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)]


def scene(images: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Annotations with crowds and all sizes, and detections of which some hit, some miss and some are doubled."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 5)):
            w, h = np.exp(rng.normal(4, 0.9, 2))
            x, y, category = *rng.uniform(0, 300, 2), int(rng.integers(1, 4))
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(rng.random() < 0.1)})
            for _ in range(rng.integers(0, 3)):
                e = rng.normal(0, 0.1, 4)
                found.append({"image_id": image, "category_id": category, "bbox": [x + e[0] * w, y + e[1] * h, w * np.exp(e[2]), h * np.exp(e[3])],
                              "score": float(rng.uniform(0.2, 1))})
        for _ in range(8):
            found.append({"image_id": image, "category_id": int(rng.integers(1, 4)), "bbox": [*rng.uniform(0, 300, 2), *rng.uniform(5, 200, 2)],
                          "score": float(rng.uniform(0.05, 0.6))})
    return truths, found


def coco(truths: list[dict], images: int) -> object:
    return as_coco({"images": [{"id": k, "width": 600, "height": 600} for k in range(1, images + 1)], "annotations": truths, "categories": CATEGORIES})


def test_weights_of_one_are_the_metric_itself() -> None:
    truths, found = scene(25)
    evaluator = CocoEvaluator(coco(truths, 25))
    known = evaluator.evaluate(found)
    mine = bootstrap.numbers(bootstrap.records(evaluator, found), np.ones((25, 1), np.int32))
    assert max(abs(mine[name][0] - known[name]) for name in METRIC_NAMES) < 1e-12
    assert max(abs(mine[f"AP {name}"][0] - value) for name, value in known["per_class"].items()) < 1e-12


def test_a_drawn_set_of_images_gives_what_pycocotools_gives_on_it() -> None:
    truths, found = scene(25)
    weights = bootstrap.draw(25, 2, 7)
    assert (weights.sum(0) == 25).all() and weights.max() > 1
    mine = bootstrap.numbers(bootstrap.records(CocoEvaluator(coco(truths, 25)), found), weights)
    for draw in range(2):
        originals = [image for image in range(1, 26) for _ in range(weights[image - 1, draw])]
        again = [{**one, "image_id": new} for new, old in enumerate(originals, 1) for one in truths if one["image_id"] == old]
        again = [{**one, "id": number} for number, one in enumerate(again, 1)]
        seen = [{**one, "image_id": new} for new, old in enumerate(originals, 1) for one in found if one["image_id"] == old]
        known = CocoEvaluator(coco(again, 25)).evaluate(seen)
        assert max(abs(mine[name][draw] - known[name]) for name in METRIC_NAMES) < 1e-12


def test_a_difference_is_decided_only_where_there_is_one() -> None:
    truths, found = scene(40)
    same = bootstrap.paired(coco(truths, 40), found, found, resamples=50, jobs=1)["metrics"]["mAP"]
    assert (same["delta"], same["low"], same["high"], same["decided"], same["images_needed"]) == (0, 0, 0, False, None)
    worse = [{**one, "bbox": [one["bbox"][0] + 0.25 * one["bbox"][2], *one["bbox"][1:]]} for one in found]
    row = bootstrap.paired(coco(truths, 40), found, worse, resamples=50, jobs=1)["metrics"]["mAP"]
    assert row["delta"] < 0 and row["low"] <= row["delta"] <= row["high"] and row["decided"] and row["images_needed"] < 40


def test_the_images_needed_grow_with_the_square_of_the_noise() -> None:
    deltas = np.random.default_rng(0).normal(0.01, 0.01, 500)
    one, two = (bootstrap.judged(0.5, 0.51, scale * (deltas - 0.01) + 0.01, 100)["images_needed"] for scale in (1, 2))
    assert two == pytest.approx(4 * one, rel=0.02)


def test_nothing_to_resample() -> None:
    with pytest.raises(UserError, match="empty"):
        bootstrap.records(CocoEvaluator(coco(scene(3)[0], 3)), [])

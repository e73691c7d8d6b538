"""The curves' areas are COCO's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.bootstrap import evaluate_sides
from alignment.precision import CURVES, NUMBERS
from jt_nanodet.data.cocofile import as_coco
from jt_nanodet.data.evaluator import CocoEvaluator


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    truth, found = [], []
    for image in range(1, 13):
        for n in range(4):
            x, y, w, h = (float(v) for v in rng.uniform((0, 0, 10, 10), (300, 300, 150, 150)))
            truth.append({"id": len(truth) + 1, "image_id": image, "category_id": 1 + n % 2, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
            found.append({"image_id": image, "category_id": 1 + n % 2, "bbox": [x + float(rng.uniform(-9, 9)), y, w, h], "score": float(rng.uniform(0.1, 1))})
    document = {"images": [{"id": i, "width": 500, "height": 500, "file_name": f"{i}.png"} for i in range(1, 13)], "annotations": truth,
                "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "never"}]}
    return as_coco(document), found


def test_areas_are_the_evaluator_s_numbers(case) -> None:
    coco, found = case
    fewer = found[::2]
    both, wanted = evaluate_sides(coco, found, fewer, resamples=0, jobs=1), [CocoEvaluator(coco).evaluate(side) for side in (found, fewer)]
    assert both["metrics"] == wanted and both["bootstrap"] is None
    result = both["precision"]
    for side, metrics in zip(("pytorch", "jittor"), wanted):
        for name, key in zip(CURVES, ("AP_50", "AP_75", "mAP")):
            assert np.mean(result[side]["curves"][name]) == pytest.approx(metrics[key], abs=1e-6)
        rows = dict(zip(result["classes"], result[side]["classes"]))
        assert rows["never"] == [None] * len(NUMBERS) and rows["a"][0] == pytest.approx(metrics["per_class"]["a"], abs=1e-6)
        sizes = [row[list(NUMBERS).index("AP_m")] for row in rows.values() if row[0] is not None]
        assert np.mean([v for v in sizes if v is not None]) == pytest.approx(metrics["AP_m"], abs=1e-6)


def test_a_side_without_detections_has_no_curve(case) -> None:
    both = evaluate_sides(case[0], case[1], [], resamples=5, jobs=1)
    assert both["precision"] is None and both["bootstrap"] is None and both["metrics"][1]["mAP"] == 0 < both["metrics"][0]["mAP"]

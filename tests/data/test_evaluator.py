"""jt_nanodet.data.evaluator: COCO's numbers on cases one can check by hand, upstream's numbers on real pictures."""

import copy
import json

import numpy as np
import pytest

from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.data.cocofile import as_coco
from jt_nanodet.data.evaluator import CocoEvaluator, detections_to_coco
from jt_nanodet.errors import UserError

#: Allowed between the recorded numbers and ours; the recorded boxes are rounded to 1e-4 px.
METRIC_BOUND = 1e-4
TRUTH = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 200, "height": 200} for n in (1, 2)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 100, 100], "area": 10000},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400},
        {"id": 3, "image_id": 2, "category_id": 5, "bbox": [50, 50, 40, 40], "area": 1600},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 5, "name": "cat"}, {"id": 9, "name": "cow"}],
}


def evaluator():
    return CocoEvaluator(as_coco(copy.deepcopy(TRUTH)))


def perfect():
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": list(map(float, a["bbox"])), "score": 0.9}
        for a in TRUTH["annotations"]
    ]


def test_perfect_detections():
    found = perfect()
    before = copy.deepcopy(found)
    metrics = evaluator().evaluate(found)
    assert found == before
    assert set(METRIC_NAMES) | {"per_class", "per_class_AP_50"} == set(metrics)
    assert all(metrics[n] == pytest.approx(1.0) for n in METRIC_NAMES)
    assert metrics["per_class"] == {"dog": pytest.approx(1.0), "cat": pytest.approx(1.0), "cow": None}


def test_a_missing_class_halves_the_mean():
    metrics = evaluator().evaluate([d for d in perfect() if d["category_id"] == 3])
    assert metrics["mAP"] == pytest.approx(0.5) and metrics["per_class"] == {
        "dog": pytest.approx(1.0),
        "cat": 0.0,
        "cow": None,
    }
    assert metrics["AP_m"] == pytest.approx(0.0) and metrics["AP_l"] == pytest.approx(1.0)


def test_a_moved_box_counts_up_to_its_overlap():
    found = perfect()
    found[0]["bbox"] = [10.0, 10.0, 100.0, 72.0]  # IoU 0.72: right at 0.50 … 0.70, wrong at 0.75 … 0.95
    metrics = evaluator().evaluate([found[0], found[2]])
    assert metrics["AP_l"] == pytest.approx(0.5)
    assert metrics["AP_50"] > metrics["AP_75"]


def test_no_detections_give_zeros_and_a_note():
    metrics = evaluator().evaluate([])
    assert all(metrics[n] == 0 for n in METRIC_NAMES) and metrics["per_class"] == {"dog": 0.0, "cat": 0.0, "cow": 0.0}
    assert metrics["note"] == "no detections: every number is 0"


def test_evaluating_twice_gives_the_same():
    e = evaluator()
    assert e.evaluate(perfect()[:2]) == e.evaluate(perfect()[:2])


@pytest.mark.parametrize(
    "change,words",
    [
        (
            {"image_id": 77},
            "image 77, which the annotations do not list; use the annotation file made for these images",
        ),
        ({"category_id": 4}, "category 4"),
        ({"score": float("nan")}, "check the weights for NaN"),
        ({"bbox": [0.0, 0.0, float("inf"), 1.0]}, "not finite"),
    ],
)
def test_refusals(change, words):
    with pytest.raises(UserError, match=words):
        evaluator().evaluate(perfect()[:2] + [{**perfect()[2], **change}])


def test_detections_come_back_to_the_picture():
    dets = np.array([[8, 16, 24, 48, 0.5], [0, 0, 64, 64, 0.9], [-5, -5, 80, 80, 0.1]], np.float32)
    matrix = np.diag([64 / 80, 64 / 40, 1.0])
    entries = detections_to_coco(dets, np.array([1, 0, 1]), {"id": 5, "width": 80, "height": 40}, matrix, [3, 7])
    assert [e["category_id"] for e in entries] == [3, 7, 7] and {e["image_id"] for e in entries} == {5}
    assert [e["bbox"] for e in entries] == [[0, 0, 80, 40], [10, 10, 20, 20], [0, 0, 80, 40]]
    assert [e["score"] for e in entries] == [float(np.float32(s)) for s in (0.9, 0.5, 0.1)]
    json.dumps(entries)
    assert detections_to_coco(np.zeros((0, 5)), np.zeros(0), {"id": 5, "width": 80, "height": 40}, matrix, [3]) == []
    with pytest.raises(UserError, match="class number 1 but the annotations name 1"):
        detections_to_coco(dets, np.array([1, 0, 1]), {"id": 5, "width": 80, "height": 40}, matrix, [3])


@pytest.mark.golden
@pytest.mark.parametrize("pixels", [320, pytest.param(416, marks=pytest.mark.slow)])
def test_recorded_detections_give_the_recorded_numbers(shared, golden_dir, pixels):
    recorded = json.loads((golden_dir / f"upstream_val206_m_{pixels}.json").read_text())
    entries = [{"image_id": d[0], "category_id": d[1], "bbox": d[2:6], "score": d[6]} for d in recorded["detections"]]
    metrics = CocoEvaluator(shared / "data/coco/annotations" / recorded["ann"]).evaluate(entries)
    for name, value in recorded["metrics"].items():
        assert abs(metrics[name] - value) < METRIC_BOUND, name
    assert len(metrics["per_class"]) == 80

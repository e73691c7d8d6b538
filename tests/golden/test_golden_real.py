"""Upstream's own evaluation on the 206 real images, repeated by both sides with the real weights, which our own reader takes from the ncnn files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.noise import METRIC_BOUND
from weights_convert import convert

ROOT = Path(__file__).resolve().parents[2]
#: What the golden files round their boxes and scores to, and the share of detections that must be found again.
SCORE, IOU, SHARE = 1e-4, 0.999, 0.999


def overlap(a, b):
    """IoU of two COCO boxes."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def found_again(golden, detections):
    """How many golden detections have a partner of their own, of the same image and class, at IOU with a score within SCORE."""
    places = {}
    for one in detections:
        places.setdefault((one["image_id"], one["category_id"]), []).append(one)
    found = 0
    for image, category, *box, score in golden:
        rest = places.get((image, category), [])
        for k, one in enumerate(rest):
            if abs(one["score"] - score) <= SCORE and overlap(box, one["bbox"]) >= IOU:
                del rest[k]
                found += 1
                break
    return found


def detections_equal_golden(golden, metrics, detections):
    assert {k: abs(metrics[k] - v) < METRIC_BOUND for k, v in golden["metrics"].items()} == dict.fromkeys(golden["metrics"], True)
    assert found_again(golden["detections"], detections) >= SHARE * len(golden["detections"])


def arguments(shared, size, folder):
    coco, weights = shared / "data" / "coco", folder / f"m_{size}.npz"
    convert(shared / "data" / "weights" / "ncnn" / f"nanodet-plus-m_{size}.param", weights, config=ROOT / "configs" / f"nanodet-plus-m_{size}.yml")
    return weights, coco / "val2017", coco / "annotations" / "instances_val206.json"


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
def test_both_sides_give_upstreams_detections_at_320(shared, golden_dir, tmp_path):
    golden = json.loads((golden_dir / "upstream_val206_m_320.json").read_text())
    weights, images, annotations = arguments(shared, 320, tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "alignment.infer", "--config", "configs/nanodet-plus-m_320.yml", "--pytorch-model", str(weights), "--test-images", str(images),
         "--annotations", str(annotations), "--rounds", "0", "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["detections"]["unexplained"] == 0 and result["detections"]["matched"] > 0
    for side in ("pytorch", "jittor"):
        detections_equal_golden(golden, result["metrics"][side], json.loads((tmp_path / f"{side}.coco.json").read_text()))


@pytest.mark.slow
@pytest.mark.torch
def test_reference_gives_upstreams_detections_at_416(shared, golden_dir, tmp_path):
    from jt_nanodet.data.evaluator import CocoEvaluator

    golden = json.loads((golden_dir / "upstream_val206_m_416.json").read_text())
    weights, images, annotations = arguments(shared, 416, tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "torch_ref", "test", "configs/nanodet-plus-m_416.yml", "--checkpoint", str(weights), "--images", str(images),
         "--annotations", str(annotations), "--save-results", str(tmp_path / "out.json")], cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    detections = json.loads((tmp_path / "out.json").read_text())
    detections_equal_golden(golden, CocoEvaluator(annotations).evaluate(detections), detections)


def test_a_moved_class_is_not_found_again():
    golden = [[1, 1, 0.0, 0.0, 10.0, 10.0, 0.5]]
    detection = {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0], "score": 0.5}
    assert found_again(golden, [detection]) == 1
    assert found_again(golden, [{**detection, "category_id": 2}]) == 0
    assert found_again(golden * 2, [detection]) == 1

"""The judge on made-up files of both sides: pixels, the twin of rounded weights, and what it does not excuse."""

from __future__ import annotations

import json

import pytest

from alignment.infer_judge import TWIN, judge
from alignment.reasons import Reason, Verdict

FOUND = [{"image_id": 1, "category_id": 1, "bbox": [10.0, 10.0, 100.0, 100.0], "score": 0.9}, {"image_id": 1, "category_id": 1, "bbox": [200.0, 50.0, 50.0, 80.0], "score": 0.5}]
MOVED = [{**FOUND[0], "bbox": [12.0, 10.0, 100.0, 100.0], "score": 0.89}, FOUND[1]]


def side(found, weights="w", pixels="p", mean=0.0):
    info = {"id": 1, "file_name": "a.png", "width": 400, "height": 300, "input_width": 320, "input_height": 320, "input_sha256": pixels, "input_mean": mean}
    return {"detections": found, "candidates": found, "images": [info], "metrics": None, "cat_ids": [1], "class_names": ["one"], "source": "made up", "versions": {},
            "seconds": 0.0, "peak_memory_mb": 0.0, "config_sha256": "c", "weights_sha256": weights, "code_sha256": "x"}


@pytest.fixture
def judged(tmp_path):
    def run(ref, cand, twin=None):
        for name, document in (("pytorch.detections.json", ref), ("jittor.detections.json", cand), *([(TWIN, twin)] if twin else [])):
            (tmp_path / name).write_text(json.dumps(document))
        return judge(tmp_path, {"device": "cpu", "seed": 0}, bool(twin))
    return run


def test_equal_sides_pass(judged):
    result = judged(side(FOUND), side(FOUND))
    assert result.verdict is Verdict.PASS and [row.name_ref for row in result.rows()] == ["network input of every image", "detections"]


def test_other_pixels_fail_by_their_own_name_and_explain_the_boxes(judged):
    result = judged(side(FOUND), side(MOVED, pixels="q", mean=0.25))
    assert result.verdict is Verdict.FAIL and result.reason is Reason.INPUTS_DIFFER
    assert result.parts["detections"]["causes"] == {"different_pixels": 1} and result.parts["detections"]["differences"][0]["margin"] == 0.25


def test_a_difference_that_the_rounded_weights_make_on_both_sides_is_theirs(judged):
    result = judged(side(FOUND), side(MOVED, "half"), side(MOVED, "half"))
    assert result.verdict is Verdict.PASS and result.parts["detections"]["unexplained"] == 0
    assert result.parts["weights_change"]["unexplained"] == 0 and result.parts["weights_equal"] is False


def test_rounded_weights_excuse_no_difference_of_the_port(judged):
    result = judged(side(FOUND), side(MOVED, "half"), side(FOUND, "half"))
    assert result.verdict is Verdict.FAIL and result.first_failure.name_ref == "detections" and result.parts["weights_change"]["unexplained"] == 1


def test_a_twin_with_other_weights_is_not_comparable(judged):
    assert judged(side(FOUND), side(FOUND, "half"), side(FOUND, "other")).verdict is Verdict.NOT_COMPARABLE

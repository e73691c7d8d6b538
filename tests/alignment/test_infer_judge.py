"""The judge on made-up files of both sides: pixels, the twin of rounded weights, and what it does not excuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import weights_convert
from alignment.infer_judge import TWIN, judge
from alignment.reasons import Reason, Verdict
from jt_nanodet.checkpoint import write_weights

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


def test_other_weights_than_the_reference_s_rounded_ones_fail(judged):
    result = judged(side(FOUND), side(FOUND, "half"), side(FOUND, "other"))
    assert result.verdict is Verdict.FAIL and result.reason is Reason.WEIGHTS_DIFFER


def crowd(scale=1.0, shift=0.0):
    """Sixty boxes apart from each other, with scores down to the threshold; `scale`: of all scores, as of a head whose last layer is off."""
    every = [{"image_id": 1, "category_id": 1, "bbox": [60.0 * (i % 10) + shift, 60.0 * (i // 10), 50.0, 50.0], "score": scale * (0.0502 + 0.015 * i)} for i in range(60)]
    return [one for one in every if one["score"] > 0.05]


def test_one_percent_of_the_head_s_scale_is_not_swallowed_by_what_the_weights_move(judged):
    # The weights move everything by a pixel, which is more than a floor may be wide; the port then loses one percent of every score, and with it the last box.
    honest = judged(side(crowd()), side(crowd(shift=1.0), "half"), side(crowd(shift=1.0), "half"))
    assert honest.verdict is Verdict.PASS and honest.parts["weights_change"]["causes"] == {"different_weights": 60}
    faulty = judged(side(crowd()), side(crowd(0.99, shift=1.0), "half"), side(crowd(shift=1.0), "half"))
    assert faulty.verdict is Verdict.FAIL and faulty.reason is Reason.UNEXPLAINED_DETECTIONS
    assert faulty.parts["detections"]["unexplained"] == 60 and faulty.parts["weights_change"]["causes"] == {"unexplained": 60}


@pytest.mark.slow
@pytest.mark.jittor
def test_a_head_off_by_one_percent_fails_among_rounded_weights(repository: Path, tmp_path: Path, jittor: object):
    # The same with both programs: the fault lies in the port's file of weights, which is rounded like the reference's.
    source = repository / "configs" / "shapes_weights.npz"
    weights = weights_convert.load(source).weights
    weights.update({name: value * np.float32(1.01) for name, value in weights.items() if ".gfl_cls." in name and name.startswith("head.")})
    write_weights(tmp_path / "planted.npz", weights)
    command = [sys.executable, "-m", "alignment.infer", "--config", "configs/shapes.yml", "--pytorch-model", str(source), "--jittor-model", str(tmp_path / "planted.npz"),
               "--round-weights", "float16", "--rounds", "0", "--resamples", "0", "--limit", "8", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["first_failure"] == "the port's rounded weights are the reference's"
    assert result["detections"]["unexplained"] > 0 and result["weights_change"]["unexplained"] == len(result["weights_change"]["differences"]) > 0

"""The command around the comparison: regimes, start, batches, messages, and one real run with the port."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from alignment import train
from alignment.reasons import Verdict
from alignment.train_judge import StepJudgement, assignment_rows, rate_row, replay
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError
from tests.alignment_train.harness import ROOT, small_config

CONFIG = ROOT / "configs" / "shapes.yml"


@pytest.mark.parametrize(("epoch", "steps", "want"), [(None, 5, [(0, 3), (4, 2)]), (2, 5, [(2, 5)]), (None, 1, [(0, 1)]), (0, 3, [(0, 3)])])
def test_both_regimes_of_the_auxiliary_branch(epoch, steps, want):
    assert train.regimes(load_config(CONFIG), epoch, steps) == want


def test_batches_are_those_of_the_trainers(tmp_path):
    from jt_nanodet.data import build_dataset
    from jt_nanodet.data.loader import DataLoader

    config = load_config(small_config(tmp_path))
    paths = train.write_batches(config, tmp_path, 3, [0, 4], 7, 2)
    assert len(paths) == 3
    with DataLoader(build_dataset(config.data.train, "train"), 2, seed=7) as loader:
        first = next(iter(loader.epoch(0)))
    with np.load(paths[0]) as file:
        assert np.array_equal(file["img"], first["img"])
        assert np.array_equal(file["gt_bboxes/1"], first["gt_bboxes"][1]) and file["gt_labels/0"].dtype == np.int64


def test_too_few_images_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="--batch-size 16"):
        train.write_batches(load_config(small_config(tmp_path)), tmp_path, 1, [0], 0, 17)


@pytest.mark.parametrize(("off", "verdict"), [(0.0, Verdict.PASS), (1e-14, Verdict.PASS), (1e-9, Verdict.FAIL)])
def test_rates_are_compared_in_double_precision(off, verdict):
    rate = np.array([0.001])
    assert rate_row("rate", rate, rate * (1 + off), "schedule", 0).verdict is verdict


def test_replay_gives_a_contested_prior_to_the_cheaper_box_and_ties_to_the_lower():
    cost = np.array([[1.0, 0.5], [1.0, 2.0], [3.0, 4.0]], np.float32)
    assert replay(cost, np.array([1.9, 1.0])).tolist() == [2, 0, 0]
    assert replay(np.array([[2.0], [2.0], [2.0]], np.float32), np.array([2.0])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--train-images", "there"], ["--weights", "nowhere.pth", "--steps", "1"]])
def test_wrong_arguments_are_one_sentence(arguments, tmp_path):
    done = subprocess.run([sys.executable, "-m", "alignment.train", "--config", str(CONFIG), "--output", str(tmp_path), *arguments], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
@pytest.mark.jittor
@pytest.mark.parametrize(("plant", "code", "stage"), [(None, 0, None), ("tests.alignment_train.plants.ema_ahead", 1, "ema")])
def test_the_port(tmp_path, jittor, plant, code, stage):
    given = ["--plant", plant] if plant else []
    done = subprocess.run([sys.executable, "-m", "alignment.train", "--config", str(small_config(tmp_path)), "--output", str(tmp_path), "--steps", "2",
                           "--batch-size", "2", *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [s["epoch"] for s in result["train"]["steps"]] == [0, 4]
    if stage:
        assert result["first_divergence"]["stage"] == stage and result["first_divergence"]["step"] == 0
        repro = tmp_path / result["train"]["repro"]
        assert subprocess.run([sys.executable, str(repro)], check=False).returncode == 0
    assert not (tmp_path / "steps").exists()


def evidence(cost: list[float], box: list[int]) -> dict[str, np.ndarray]:
    """One image of six priors, four of them in its only box, which takes two."""
    cost = np.array(cost, np.float32)[:, None]
    return {"assigned/0/candidates": np.array([1, 2, 3, 4]), "assigned/0/cost": cost, "assigned/0/fitness": np.exp(-cost.astype(np.float64) / 3).astype(np.float32),
            "assigned/0/overlap": np.full((4, 1), 0.5, np.float32), "assigned/0/sum": np.array([2.25], np.float32), "assigned/0/box": np.array(box, np.int32)}


@pytest.mark.parametrize(("cost", "box", "verdict"), [
    ([1.0, 2.0, 2.0000002, 3.0], [0, 1, 1, 0, 0, 0], Verdict.PASS),  # the same decision
    ([1.0, 2.0000002, 2.0, 3.0], [0, 1, 0, 1, 0, 0], Verdict.WARN),  # equal within the floor, decided otherwise: a branch point
    ([1.0, 2.5, 2.0, 3.0], [0, 1, 0, 1, 0, 0], Verdict.FAIL),  # other costs
    ([1.0, 2.0, 2.0000002, 3.0], [0, 1, 0, 1, 0, 0], Verdict.FAIL),  # not what the rule gives on its own costs
])
def test_a_branch_point_is_no_failure_and_a_rule_is(cost, box, verdict):
    ref, cand = evidence([1.0, 2.0, 2.0000002, 3.0], [0, 1, 1, 0, 0, 0]), evidence(cost, box)
    floors = {"assigned/0/fitness": {"max_abs": 1e-6, "rmse": 1e-7, "scale": 1.0, "size": 4, "dtype": "float32", "repeats": 4}}
    found = StepJudgement([])
    assignment_rows(0, ref, cand, {}, floors, found)
    (row,) = [row for row in found.rows if row.name_ref == "assigned/0/box"]
    assert row.verdict is verdict
    assert bool(found.branches) == (verdict is Verdict.WARN)
    if found.branches:
        assert [p["prior"] for p in found.branches] == [2, 3] and max(p["margin"] for p in found.branches) < 1e-6

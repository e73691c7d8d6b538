"""The swap test's own arithmetic; the whole way, with both frameworks, is in the slow test at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alignment import swap
from alignment.reasons import Reason, Verdict
from alignment.runners.swap_tasks import MAKES, TAKES, planted
from jt_nanodet.errors import UserError


def test_every_stage_takes_what_an_earlier_one_makes() -> None:
    made: set[str] = set()
    for stage in MAKES:
        assert set(TAKES[stage]) <= made
        made |= set(MAKES[stage])
    assert (*MAKES, "metric") == swap.STAGES


@pytest.mark.parametrize(("text", "found"), [(None, None), ("network=1.01", ["network", 1.01]), ("metric=0.5", ["metric", 0.5])])
def test_plants(text: str | None, found: object) -> None:
    assert swap.plant_of(text) == found


@pytest.mark.parametrize("text", ["network", "network=", "nowhere=1.01", "network=3", "network=nan"])
def test_plants_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="network=1.01"):
        swap.plant_of(text)


def test_a_planted_error_changes_its_stage_alone_and_no_score() -> None:
    dets = np.array([[10, 20, 30, 40, 0.5]], np.float32)
    made = planted("nms", {"dets": dets, "labels": np.array([3])}, 1.01)
    assert np.allclose(made["dets"][0, :4], dets[0, :4] * 1.01) and made["dets"][0, 4] == dets[0, 4] and made["dets"].dtype == np.float32
    pixels = np.full((4, 4, 3), 200, np.uint8)
    assert planted("decode", {"pixels": pixels, "size": np.array([4, 4])}, 1.5)["pixels"].max() == 255


def pipelines(**losses: float) -> tuple[swap.Pipelines, dict]:
    """Metrics in which the stages named lose so much."""
    done = swap.Pipelines()
    done.image_ids = [1, 2]
    def numbers(value: float) -> dict[str, float]:
        return dict.fromkeys(swap.METRIC_NAMES, value)
    total = sum(losses.values())
    metrics: dict = {"pytorch": numbers(0.3), "jittor": numbers(0.3 - total)}
    for stage in swap.STAGES:
        metrics["pytorch", stage] = numbers(0.3 - losses.get(stage, 0.0))
        metrics["jittor", stage] = numbers(0.3 - total + losses.get(stage, 0.0))
    return done, metrics


COMMON = {"device": "cpu", "seed": 0}


def test_the_stage_that_loses_is_named() -> None:
    result = swap.judge(*pipelines(warp=0.02, nms=0.00002), COMMON, None, 0)
    assert result.parts["swap"]["carrier"] == "warp" and result.verdict is Verdict.FAIL and result.reason is Reason.METRIC_DIFFERS
    assert [row.name_ref for row in result.rows() if row.failed] == ["stage warp"] and "warp" in swap.text(result)


def test_no_loss_no_name() -> None:
    result = swap.judge(*pipelines(), COMMON, None, 0)
    assert result.parts["swap"]["carrier"] is None and result.verdict is Verdict.PASS and result.compared == len(swap.STAGES)


def test_a_map_of_zero_decides_nothing() -> None:
    done, metrics = pipelines()
    result = swap.judge(done, {key: dict.fromkeys(value, 0.0) for key, value in metrics.items()}, COMMON, None, 0)
    assert result.verdict is Verdict.NOT_COMPARABLE


@pytest.mark.slow
@pytest.mark.jittor
def test_a_planted_error_is_named_on_real_pictures(shared: Path, tmp_path: Path, jittor: object) -> None:
    weights, coco = shared / "data" / "weights" / "nanodet-plus-m_320_bnfolded_state.npz", shared / "data" / "coco"
    command = [sys.executable, "-m", "alignment.swap", "--config", "configs/nanodet-plus-m_320.yml", "--pytorch-model", str(weights), "--test-images",
               str(coco / "val2017"), "--annotations", str(coco / "annotations" / "instances_val206.json"), "--limit", "8", "--resamples", "0",
               "--plant", "unwarp=1.01", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(swap.__file__).parents[1], capture_output=True, text=True, check=False)
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["swap"]
    assert done.returncode == 1 and found["carrier"] == "unwarp", done.stderr
    assert all(abs(one["into_reference"]) < 1e-4 for one in found["stages"] if one["stage"] != "unwarp")

"""The same on real weights and a few real pictures of ../shared; `tests/golden/test_golden_real.py` does all of them."""

from __future__ import annotations

import json
import shutil

import pytest

from alignment.noise import METRIC_BOUND
from jt_nanodet.config import METRIC_NAMES
from tests.parity.conftest import PARTS, ROOT, command

pytestmark = [pytest.mark.torch, pytest.mark.jittor, pytest.mark.slow]
PICTURES = 8


@pytest.fixture(scope="module")
def few(shared, tmp_path_factory):
    """(folder of pictures, annotation file): the first pictures that hold objects."""
    coco, folder = shared / "data" / "coco", tmp_path_factory.mktemp("few")
    document = json.loads((coco / "annotations" / "instances_val206.json").read_text())
    seen = {one["image_id"] for one in document["annotations"]}
    chosen = [one for one in document["images"] if one["id"] in seen][:PICTURES]
    ids = {one["id"] for one in chosen}
    (folder / "images").mkdir()
    for one in chosen:
        shutil.copy(coco / "val2017" / one["file_name"], folder / "images")
    document.update(images=chosen, annotations=[one for one in document["annotations"] if one["image_id"] in ids])
    (folder / "few.json").write_text(json.dumps(document))
    return folder / "images", folder / "few.json"


@pytest.fixture(scope="module")
def ran(shared, few, tmp_path_factory):
    weights = shared / "data" / "weights" / "nanodet-plus-m_320_bnfolded_state.npz"
    return command(tmp_path_factory.mktemp("real") / "out", "alignment.report", "--config", ROOT / "configs" / "nanodet-plus-m_320.yml", "--pytorch-model", weights,
                   "--test-images", few[0], "--annotations", few[1], "--rounds", "1")


def test_the_port_is_the_reference(ran):
    assert ran.code == 0, ran.out + ran.err
    assert ran.last_line.startswith("PASSED | ")
    for part in PARTS:
        assert ran.result(part)["verdict"] == "pass" and ran.result(part)["compared"] > 0


def test_detections_and_metric(ran):
    result = ran.result("infer")
    assert result["images"] == PICTURES and result["detections"]["matched"] > PICTURES and result["detections"]["unexplained"] == 0
    assert result["metrics"]["pytorch"]["mAP"] > 0.1, "real weights on real pictures find something"
    assert all(abs(result["metrics"]["delta"][name]) < METRIC_BOUND for name in METRIC_NAMES)


def test_weights_for_inference_leave_the_auxiliary_branch_out(ran):
    for part in ("weights", "layers"):
        assert "auxiliary branch" in [entry["name"] for entry in ran.result(part)["not_run"]]


def test_every_leaf_is_within_its_floor(ran):
    rows = [row for row in ran.result("layers")["tensors"] if row["refed"]]
    assert len(rows) > 300 and all(row["verdict"] == "pass" and row["own"] <= row["tolerance"] for row in rows)

"""reports.record of a single run: what is kept, and tables that fit the pages."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.errors import UserError
from reports import record
from tests.reports.made_up import put

TOP = {"schema_version": 1, "command": "infer", "verdict": "pass", "compared": 2, "failed": 0, "skipped": 0, "first_failure": None, "images": 7}


def test_an_infer_run_keeps_causes_and_intervals_but_no_single_detection(tmp_path):
    row = {"pytorch": 0.3, "jittor": 0.31, "delta": 0.01, "standard_error": 0.004, "low": 0.002, "high": 0.018, "decided": True, "draws": 9, "images_needed": 11}
    found = {"total_ref": 5, "total_cand": 5, "matched": 3, "unexplained": 0, "differences": [{"kind": "missing", "cause": "near_tie", "margin": -2e-6}, {"kind": "moved", "cause": "near_tie", "margin": 1e-6}]}
    put(tmp_path / "result.json", {**TOP, "detections": found, "metrics": None, "bootstrap": {"images": 7, "resamples": 9, "seed": 0, "metrics": {"mAP": row}, "per_class": {}}})
    kept = record.record(tmp_path)
    assert kept["tables"]["detections"]["rows"] == [["near_tie", 1, 1, 2e-6]] and "differences" not in kept["detections"]
    assert kept["tables"]["bootstrap"]["rows"] == [["mAP", "0.30000", "0.31000", "+0.01000", "+0.00200 to +0.01800", 11]]


def test_a_swap_run(tmp_path):
    stages = [{"stage": "warp", "into_reference": -0.01, "into_port": 0.01, "pictures_with_other_bits": 7, "interval": [-0.02, -0.003]},
              {"stage": "metric", "into_reference": 0.0, "into_port": 0.0, "pictures_with_other_bits": None, "interval": None}]
    swap = {"stages": stages, "carrier": "warp", "mAP": {"pytorch": 0.3, "jittor": 0.29}, "plant": ["warp", 1.01]}
    put(tmp_path / "result.json", {**TOP, "command": "swap", "swap": swap, "metrics": {}})
    table = record.record(tmp_path)["tables"]["swap"]
    assert [row[0] for row in table["rows"]] == ["warp", "metric"] and "carried by: warp" in table["note"] and "warp x 1.01" in table["note"]
    json.dumps(table)


def test_no_place_of_this_machine_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "home" / "project" / "reports" / "results")
    given = {"command_line": ["python", "-m", "alignment.train", str(tmp_path / "home" / "data" / "w.npz"), str(tmp_path / "far" / "photos"), "--output", "out/x"], "n": 3, "text": "1/2"}
    assert record.placeless(given) == {"command_line": ["python", "-m", "alignment.train", "../data/w.npz", "photos", "--output", "out/x"], "n": 3, "text": "1/2"}


def test_swap_runs_with_several_plants(tmp_path):
    for name, plant, loss in (("a", ["warp", 1.01], -0.01), ("b", None, 0.0)):
        stages = [{"stage": stage, "into_reference": loss if stage == "warp" else 1e-6, "into_port": 0.0, "pictures_with_other_bits": 7, "interval": None} for stage in ("warp", "nms")]
        swap = {"stages": stages, "carrier": "warp" if plant else None, "mAP": {"pytorch": 0.3, "jittor": 0.3 + loss}, "plant": plant, "difference": loss}
        (tmp_path / name).mkdir()
        put(tmp_path / name / "result.json", {**TOP, "command": "swap", "device": "cpu", "seeds": {}, "versions": {}, "hashes": {}, "durations": {}, "swap": swap})
    rows = record.record_plants([tmp_path / "a", tmp_path / "b"])["tables"]["plants"]["rows"]
    assert rows == [["warp x 1.01", "warp", "pass", "-0.01000", "-0.01000", "0.00000"], ["nothing", "no stage", "pass", "+0.00000", "–", "0.00000"]]
    put(tmp_path / "b" / "result.json", {**TOP, "detections": {}})
    with pytest.raises(UserError, match="several of alignment.swap"):
        record.record_plants([tmp_path / "a", tmp_path / "b"])


def test_a_train_run_has_every_step_and_a_row_for_each_regime(tmp_path):
    def step(number, epoch, floors, ratio):
        return {"step": number, "epoch": epoch, "rows": 10, "failed": 0, "floors": floors, "floors_why": "its turn" if floors == "measured" else "",
                "loss": {"total": {"ref": 1.0, "cand": 1.0, "free": 1.0}}, "branch_points": 1, "free": {"weights_rel_l2": 1e-6}, "seconds": {},
                "worst": {"loss": {"of_bound": ratio, "name": "loss/x"}, "ema": {"of_bound": 0.01, "name": "y"}}}
    steps = [step(0, 0, "measured", 0.5), step(1, 0, "inherited", 0.25), step(2, 10, "measured", 0.125)]
    train = {"steps": steps, "regimes": [{"epoch": 0, "auxiliary": "attached"}, {"epoch": 10, "auxiliary": "detached"}], "rows_compared": 30, "floors_every": 10,
             "floors_measured": [0, 2], "floors_inherited": [1], "branch_points": [{}, {}, {}]}
    put(tmp_path / "result.json", {**TOP, "command": "train", "durations": {"total": 90.0}, "train": train})
    kept = record.record(tmp_path)
    assert kept["tables"]["steps"]["rows"] == [["attached", 2, 20, 0, 2, 1, 0.5], ["detached", 1, 10, 0, 1, 1, 0.125]] and "3 steps in 1.5 minutes" in kept["tables"]["steps"]["note"]
    assert [(s["stage"], s["name"]) for s in kept["train"]["steps"]] == [("loss", "loss/x")] * 3 and kept["train"]["branch_points"] == 3


def test_runs_against_the_original_with_other_weights(tmp_path):
    for name, weights, equal in (("a", "m.npz", 9), ("b", "seeded weights of seed 0", 8)):
        (tmp_path / name).mkdir()
        more = {"config": "m.yml", "weights": weights, "groups": [{"group": "state", "what": "state dict", "compared": 9, "equal": equal}], "device": "cpu", "seeds": {}, "hashes": {},
                "versions": {"torch": "2"}, "not_run": [], "upstream": {"commit": "be9b4a9001d7f9b6", "state": "clean"}, "failed": 9 - equal, "compared": 9}
        put(tmp_path / name / "result.json", {**TOP, "command": "upstream", **more})
    table = record.record_upstream([tmp_path / "a", tmp_path / "b"])["tables"]["upstream"]
    assert table["rows"] == [["m.npz", "state dict", 9, 9], ["seeded weights of seed 0", "state dict", 9, 8]] and "18 tensors and modules, 1 that differ" in table["note"]
    assert record.record(tmp_path / "a")["tables"]["upstream"]["rows"] == table["rows"][:1] and record.is_upstream(tmp_path / "b") and not record.is_upstream(tmp_path)
    put(tmp_path / "b" / "result.json", {**TOP, "command": "swap"})
    with pytest.raises(UserError, match="that command alone"):
        record.record_upstream([tmp_path / "a", tmp_path / "b"])


def test_another_result_is_refused(tmp_path):
    put(tmp_path / "result.json", TOP)
    with pytest.raises(UserError, match="alignment.swap"):
        record.record(tmp_path)

"""Training logs become one compact file; runs that do not belong together are refused."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.errors import UserError
from reports import training


def log(folder, side, seed=0, epochs=2, last=None):
    folder.mkdir()
    rows = [{"time": 100.0, "type": "header", "side": side, "config": "c.yml", "config_sha256": "ab", "seed": seed, "device": "cpu", "total_epochs": 2, "threads": 2}]
    for e in range(1, epochs + 1):
        rows.append({"time": 100.0 + 10 * e, "type": "epoch", "epoch": e, "loss": 4.0 / e})
        rows.append({"time": 101.0 + 10 * e, "type": "val", "epoch": e, "mAP": 0.3 * (last if e == 2 and last else e)})
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_both_sides_side_by_side(tmp_path):
    kept = training.record([log(tmp_path / "a", "pytorch"), log(tmp_path / "b", "jittor", last=0.5)])
    assert kept["runs"]["pytorch"]["loss"] == {1: 4.0, 2: 2.0} and kept["runs"]["pytorch"]["finished"]
    assert kept["tables"]["training"]["rows"] == [["PyTorch", 2, 2.0, 0.6, 2, 21.0], ["Jittor", 2, 2.0, 0.3, 1, 21.0]]


def test_an_unfinished_run_says_so(tmp_path):
    assert not training.run(log(tmp_path / "a", "pytorch", epochs=1))["finished"]


@pytest.mark.parametrize(("other", "message"), [({"side": "jittor", "seed": 1}, "differ in seed"), ({"side": "pytorch"}, "one folder for each side"),
                                                ({"side": "jittor", "epochs": 0}, "no finished epoch")])
def test_runs_that_do_not_belong_together(tmp_path, other, message):
    with pytest.raises(UserError, match=message):
        training.record([log(tmp_path / "a", "pytorch"), log(tmp_path / "b", **other)])


def test_no_log(tmp_path):
    with pytest.raises(UserError, match="holds no log.jsonl"):
        training.record([tmp_path])

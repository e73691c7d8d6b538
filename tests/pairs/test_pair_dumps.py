"""A folder of dumped tensors against a model that is run: the port against --ref, the reference against --cand."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignment import layers, pair_dumps
from alignment.noise import Tolerance
from alignment.reasons import Reason, Verdict
from jt_nanodet.errors import UserError

PAIR = '''
import numpy as np

def build_reference():
    import torch
    class Twice(torch.nn.Module):
        def forward(self, x):
            return x * 2
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Twice(), Twice()
        def forward(self, x, n):
            return {"x": self.second(self.first(x)), "n": n + 1, "none": x[:0]}
    return Model()

def build_candidate():
    from jittor import nn
    class Twice(nn.Module):
        def execute(self, x):
            return x * 2
    class Model(nn.Module):
        def __init__(self):
            self.first, self.second = Twice(), Twice()
        def execute(self, x, n):
            return {"x": self.second(self.first(x)), "n": n + 1, "none": x[:0]}
    return Model()

def inputs(seed):
    return np.random.RandomState(7).randn(2, 300).astype(np.float32), np.arange(3)
'''
X = np.random.RandomState(7).randn(2, 300).astype(np.float32)
#: What an honest dump holds, with the shorter integers of another framework.
GOOD = {"input/0": X, "input/1": np.arange(3, dtype=np.int32), "first": 2 * X, "second": 4 * X, "(model)/0": 4 * X, "(model)/1": np.arange(1, 4, dtype=np.int32)}


def dump(folder, tensors):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "t.safetensors")


def with_floor(folder, tensors):
    dump(folder, tensors)
    floats = {name: array for name, array in tensors.items() if array.dtype.kind == "f" and not name.startswith("input")}
    dump(folder / "float64", {name: array.astype(np.float64) for name, array in floats.items()})
    dump(folder / "repeat1", {name: np.nextafter(array, np.float32(9)) for name, array in floats.items()})


def compared(tmp_path, flag, *more, out="out"):
    (tmp_path / "p.py").write_text(PAIR)
    code = layers.main(["--pair", str(tmp_path / "p.py"), flag, str(tmp_path / "dumps"), "--output", str(tmp_path / out), "--threads", "1", "-q", *more])
    return code, json.loads((tmp_path / out / "result.json").read_text(encoding="utf-8"))


def once(monkeypatch, tmp_path, side):
    """The model has been run by the first comparison; later ones take its bundle."""
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "out" / "bundles" / side, kept)

    def run(side_asked, tasks, *_, **__):
        assert side_asked == side
        shutil.copytree(kept, tasks[0]["output"], dirs_exist_ok=True)

    monkeypatch.setattr("alignment.runners.child.run", run)


def reasons(result):
    return {row["name_ref"]: row["reason"] for row in result["tensors"] if row["verdict"] != "pass"}


def check(tmp_path, monkeypatch, flag, side, floor):
    """The same for both flags; `floor` puts a floor beside the dump where the run does not measure its own."""
    (dump if flag == "--cand" else with_floor)(tmp_path / "dumps", GOOD)
    code, result = compared(tmp_path, flag)
    assert (code, reasons(result)) == (0, {}) and result["compared"] == 5  # four outputs, and that recording changed nothing
    assert {one["name"]: one["reason"] for one in result["not_run"]} == {"outputs": f"1 outputs of the run are not in {tmp_path / 'dumps'}, the first is (model)/2"}
    once(monkeypatch, tmp_path, side)

    floor(tmp_path / "dumps", {**GOOD, "second": np.float32(4.01) * X, "(model)/0": np.float32(4.01) * X})
    code, result = compared(tmp_path, flag)
    assert (code, result["first_failure"], reasons(result)) == (1, "second", {"second": "constant_scale", "(model)/0": "constant_scale"})
    assert result["first_divergence"]["name"] == "second" and result["first_divergence"]["kind"] == "whole"

    floor(tmp_path / "dumps", {**GOOD, "third": X})
    code, result = compared(tmp_path, flag)
    assert (code, reasons(result)) == (1, {"third": "missing" if flag == "--ref" else "extra"})

    floor(tmp_path / "dumps", {"input/0": X + 1, "input/7": X, "first": 2 * X})
    code, result = compared(tmp_path, flag)
    assert (code, result["verdict"], result["reason"], len(result["objections"]), result["tensors"]) == (3, "not_comparable", "inputs_differ", 2, [])

    floor(tmp_path / "dumps", {"premier": 2 * X, "(model)/2": X[:0]})
    (tmp_path / "map.yaml").write_text("premier: first\n" if flag == "--ref" else "first: premier\n")
    code, result = compared(tmp_path, flag, "--layer-map", str(tmp_path / "map.yaml"))
    row = next(row for row in result["tensors"] if "premier" in (row["name_ref"], row["name_cand"]))
    assert code == 0 and (row["match_method"], row["name_ref"], row["name_cand"]) == ("override", *(("premier", "first") if flag == "--ref" else ("first", "premier")))
    assert {"inputs", "(model)/2"} <= {one["name"] for one in result["not_run"]}

    for text, said in (("nowhere: first", "nowhere"), ("first: nowhere", "nowhere")):
        (tmp_path / "map.yaml").write_text(text)
        with pytest.raises(UserError, match=f"{said}.*write"):
            compared(tmp_path, flag, "--layer-map", str(tmp_path / "map.yaml"))


@pytest.mark.jittor
def test_the_port_against_a_folder(tmp_path, monkeypatch):
    check(tmp_path, monkeypatch, "--ref", "jittor", with_floor)
    dump(tmp_path / "dumps", {"first": np.nextafter(2 * X, np.float32(9))})
    code, result = compared(tmp_path, "--ref")
    assert code == 3 and reasons(result) == {"first": "no_tolerance"} and "floor" in {one["name"] for one in result["not_run"]}


@pytest.mark.torch
def test_the_reference_against_a_folder(tmp_path, monkeypatch):
    check(tmp_path, monkeypatch, "--cand", "pytorch", dump)


@pytest.mark.parametrize("words, said", [(["--ref", "a", "--cand", "b"], "one of --ref"), (["--ref", "a", "--backward"], "--backward"), (["--ref", "none"], "holds no")])
def test_what_cannot_be_asked_is_refused(tmp_path, words, said):
    (tmp_path / "p.py").write_text(PAIR)
    with pytest.raises(UserError, match=said):
        layers.main(["--pair", str(tmp_path / "p.py"), *words, "--output", str(tmp_path / "out")])


def test_recording_that_changes_the_run_is_judged_by_the_floor():
    bounds = {"a": Tolerance(bound=1e-6, source="", floor=5e-7)}
    assert pair_dumps.observer("jittor", {}, {}).verdict is Verdict.PASS
    for moved, verdict in (({"a": 1e-6}, Verdict.WARN), ({"a": 1.1e-6}, Verdict.FAIL), ({"b": 1e-9}, Verdict.INCONCLUSIVE), ({"b": float("inf")}, Verdict.FAIL)):
        row = pair_dumps.observer("jittor", moved, bounds)
        assert (row.verdict, row.reason, row.name_ref) == (verdict, Reason.OBSERVER_CHANGED_RESULT, "observer/jittor")

"""The inputs and the memory of ``python -m alignment.limits``; the whole measurement is no test, it takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.limits import BOOTSTRAP, LOGS, main, measure, memory_mb, write_detections, write_log
from alignment.log_reader import read_run
from alignment.results_files import read
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.errors import UserError


def test_a_log_has_its_lines(tmp_path: Path) -> None:
    write_log(tmp_path / "a.txt", 0, 900)
    run = read_run(tmp_path / "a.txt")
    assert len(run.series["train/loss_qfl"]) == 900 and len(run.series["val/mAP"]) == 30


def test_detections_are_judged_like_real_ones(tmp_path: Path) -> None:
    write_detections(tmp_path, 0, 20, 30)
    ref, cand = read(tmp_path / "pytorch.json"), read(tmp_path / "jittor.json")
    assert len(ref) == 600 and 580 < len(cand) <= 600 and ref != cand
    assert 0.01 < CocoEvaluator(str(tmp_path / "truth.json")).evaluate(ref)["mAP"] < 0.9


def test_memory_counts_the_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(80_000_000); print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        assert memory_mb(os.getpid()) > memory_mb(child.pid) > 76 and memory_mb(2**22 + 1) == 0
    finally:
        child.communicate(b"\n")


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(UserError, match="run it alone"):
        measure("x", ["json.tool", "nowhere.json"], (0,))


def test_bad_output(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output"):
        main(["--output", str(tmp_path / "missing" / "a.json")])


def test_the_committed_measurement_is_within_its_limits(repository: Path) -> None:
    path = repository / "reports" / "results" / "logs_limits.json"
    if not path.is_file():
        pytest.skip("not run: reports/results/logs_limits.json has not been measured (python -m alignment.limits)")
    rows = json.loads(path.read_text(encoding="utf-8"))["measured"]
    assert [row["name"] for row in rows] == [LOGS, BOOTSTRAP] and all(row["within"] for row in rows)

"""``python -m alignment.cost``: seconds and memory of a command and all it starts; one case measured again among the others."""

from __future__ import annotations

import json
import sys

import pytest

from alignment import cost, cost_meter
from jt_nanodet.errors import UserError

BLOCK = 60
#: Two processes that hold BLOCK MB each at once; exit status 3.
HOLDERS = f"""
import subprocess, sys, time
held = "held = bytearray(b'x') * ({BLOCK} << 20); import time; time.sleep(1)"
both = [subprocess.Popen([sys.executable, "-c", held]) for _ in range(2)]
print("said on the way")
[one.wait() for one in both]
sys.exit(3)
"""


def test_memory_of_all_processes_together():
    row = cost_meter.measure("two", [sys.executable, "-c", HOLDERS], accept=(0, 3))
    assert BLOCK < row["peak_memory_mb"] < 1.7 * BLOCK < 2 * BLOCK < row["together_mb"] < 4 * BLOCK
    assert row["seconds"] > 1 and row["name"] == "two" and row["command"].startswith("python -c")


def test_a_command_that_fails_is_one_sentence():
    with pytest.raises(UserError, match=r"^it failed \(no such thing\): run it alone: .*-c"):
        cost_meter.measure("it", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def fake(monkeypatch, **rows):
    """Cases that measure nothing: name to (seconds, largest, together)."""
    for name, (seconds, largest, together) in rows.items():
        monkeypatch.setitem(cost.CASES, name, lambda data, scratch, name=name: {
            "name": cost.NAMES[name], "command": "x", "seconds": seconds, "peak_memory_mb": largest, "together_mb": together, "verdict": "pass", "compared": 9, "undecided": ["x"]})


def test_one_case_is_measured_again_and_the_others_stay(tmp_path, monkeypatch):
    file, data = tmp_path / "cost.json", tmp_path / "data"
    (data / "weights").mkdir(parents=True)
    (data / cost.WEIGHTS).write_bytes(b"")
    fake(monkeypatch, warm=(10, 100, 200), infer=(20, 100, 200), layers=(59, 1000, 1999))
    assert cost.main(["--data", str(data), "--output", str(file)]) == 0
    fake(monkeypatch, layers=(59, 1000, 2001))
    assert cost.main(["--only", "layers", "--add", "--data", str(data), "--output", str(file)]) == 1
    document = json.loads(file.read_text())
    assert [(row["name"], row["within"]) for row in document["measured"]] == [(cost.NAMES["warm"], True), (cost.NAMES["infer"], True), (cost.NAMES["layers"], False)]
    lines = document["tables"]["cost"]["rows"]
    assert lines[2][1:] == [59, 60, 1000, 2001, 2000, 9, 1, "pass"] and len(document["tables"]["cost"]["columns"]) == len(document["tables"]["cost"]["columns_zh"]) == len(lines[0])
    assert [one["name"] for one in document["not_run"]] == [cost.NAMES["cold"]] and document["command"] == "python -m alignment.cost"


def test_what_was_not_measured_has_its_reason(tmp_path, monkeypatch):
    fake(monkeypatch, warm=(10, 100, 200))
    assert cost.main(["--output", str(tmp_path / "cost.json")]) == 0
    left_out = {one["name"]: one["reason"] for one in json.loads((tmp_path / "cost.json").read_text())["not_run"]}
    assert left_out == {cost.NAMES["cold"]: "not asked for: add --cold", cost.NAMES["infer"]: "no real images: add --data DIR", cost.NAMES["layers"]: "no real images: add --data DIR"}


@pytest.mark.parametrize("words, text", [
    (["--only", "layers"], "add --data DIR"),
    (["--data", "absent"], "there is no file"),
    (["--add"], "no file of alignment.cost"),
    (["--dumps", "--add"], "leave --add and --only out"),
])
def test_bad_input_is_refused_before_anything_runs(tmp_path, words, text):
    file = tmp_path / "other.json"
    file.write_text('{"command": "python -m alignment.limits"}')
    with pytest.raises(UserError, match=text):
        cost.main([*words, "--output", str(file)])
    assert file.read_text() == '{"command": "python -m alignment.limits"}'

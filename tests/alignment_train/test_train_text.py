"""What ``alignment.train`` prints: names out of somebody's file stay on their line."""

from __future__ import annotations

from types import SimpleNamespace

from alignment.result import Result
from alignment.train_run import text

NAME = "head\n\x1b[2Jforged: PASSED"


def test_names_with_line_ends_and_escape_codes_stay_on_one_line():
    step = {"step": 0, "epoch": 0, "loss": {"total": {"ref": 1.0, "cand": 1.0, "free": 1.0}}, "free": {"weights_rel_l2": 1e-7}, "worst": {"loss": {"of_bound": 0.5, "name": NAME}}}
    result = Result("train", parts={"train": {"steps": [step], "rows_compared": 3, "branch_points": [], "floors_measured": [0], "floors_inherited": [], "repro": f"out/{NAME}"}})
    divergence = SimpleNamespace(step=0, name=NAME, hint=NAME, reason="", causes=[NAME])
    lines = text(result, divergence).splitlines()
    assert len(lines) == 7 and not any(c in line for line in lines for c in "\x1b\r") and not any(line.startswith("\x1b") or line.startswith("forged") for line in lines)
    assert sum("head\\n\\x1b[2Jforged" in line for line in lines) == 4

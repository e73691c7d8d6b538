"""Twelve altered copies of a log, each with its right verdict; on the real log, and on a made one where that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.curves import DIFFERENT, EQUIVALENT, Policy
from alignment.log_alterations import ALTERATIONS, Alteration
from alignment.log_reader import read_run
from alignment.logs import compare_runs


def judged(folder: Path, original: Path, alteration: Alteration):
    copy = folder / "altered.txt"
    copy.write_text(alteration.change(original.read_text(encoding="utf-8")), encoding="utf-8")
    comparison, findings = compare_runs([read_run(original)], [read_run(copy)], Policy(), alteration.mapping)
    codes = {f.code for f in findings} | {f["code"] for f in comparison.facts} | {h["code"] for h in comparison.holds}
    return comparison, codes


def test_there_are_twelve() -> None:
    assert len({alteration.name for alteration in ALTERATIONS}) == len(ALTERATIONS) == 12


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda a: a.name.replace(" ", "_"))
def test_each_gets_its_verdict(shared: Path, tmp_path: Path, alteration: Alteration) -> None:
    comparison, codes = judged(tmp_path, shared / "data" / "logs" / "pytorch_logs.txt", alteration)
    assert comparison.verdict == alteration.verdict
    assert alteration.code is None or alteration.code in codes
    # A copy is a copy: that its digits are the original's is said, unless the alteration changed them all.
    assert "equal_digits" in codes or alteration.name == "noise from another seed"


@pytest.mark.parametrize(
    "name, axis, at", [("NaN in the middle", "step", 24000.0), ("learning rate wrong after warm-up", "step", 525.0), ("one series swapped", "step", 0.0)]
)
def test_the_first_place_is_named(shared: Path, tmp_path: Path, name: str, axis: str, at: float) -> None:
    alteration = next(a for a in ALTERATIONS if a.name == name)
    comparison, _ = judged(tmp_path, shared / "data" / "logs" / "pytorch_logs.txt", alteration)
    assert (comparison.first_difference["axis"], comparison.first_difference["at"]) == (axis, at)


def test_what_a_restart_and_a_dropped_epoch_look_like(shared: Path, tmp_path: Path) -> None:
    original = shared / "data" / "logs" / "pytorch_logs.txt"
    text = original.read_text(encoding="utf-8")
    by_name = {a.name: a for a in ALTERATIONS}
    for name in ("restarted", "an epoch dropped"):
        (tmp_path / "a.txt").write_text(by_name[name].change(text), encoding="utf-8")
        run = read_run(tmp_path / "a.txt")
        assert (len(run.restarts), len(run.gaps)) == ((1, 0) if name == "restarted" else (0, 1))
        assert len(run.series["train/loss_qfl"]) == (1902 if name == "restarted" else 1889)


def test_other_names_without_a_map_are_not_paired(shared: Path, tmp_path: Path) -> None:
    renamed = next(a for a in ALTERATIONS if a.mapping)
    comparison, codes = judged(tmp_path, shared / "data" / "logs" / "pytorch_logs.txt", Alteration("x", "", renamed.change))
    assert comparison.verdict not in (EQUIVALENT, DIFFERENT) and "unpaired" in codes
    assert "train/loss_qfl" in comparison.only_ref and "train/cls_loss" in comparison.only_cand

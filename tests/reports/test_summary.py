"""reports.summary: the verdict shown is the worst found, and nothing absent counts as equal."""

from __future__ import annotations

import shutil

import pytest

from reports.source import read_folder
from reports.summary import summarise


def look(folder):
    return summarise(read_folder(folder))


def check(summary, key):
    return next(check for check in summary.checks if check.key == key)


def test_passing(passing):
    summary = look(passing)
    assert summary.verdict == "pass" and not summary.warnings and summary.first == {}
    assert summary.line == "PASSED | 4480 compared, 0 failed, 1 skipped"
    assert [c.key for c in summary.checks] == ["structure", "weights", "layers", "decode", "inference", "metric", "speed"]
    assert {c.verdict for c in summary.checks} == {"pass", "info"}


def test_failing_names_the_first_failure_and_its_row(failing):
    summary = look(failing)
    assert summary.verdict == "fail"
    assert summary.first["name"] == "backbone.stage3.7.branch2.2" and summary.first["reason"] == "beyond_bound"
    assert next(row for row in summary.rows if row.anchor == summary.first["anchor"]).name == summary.first["name"]
    assert [check(summary, key).verdict for key in ("structure", "weights", "layers", "decode")] == ["fail", "pass", "fail", "pass"]
    assert [check(summary, key).failed for key in ("layers", "inference", "metric")] == [2, 1, 1]


def test_a_pass_that_its_parts_deny_is_not_shown(failing, edit):
    edit(failing, "report", lambda data: data.update(verdict="pass", failed=0, first_failure=None))
    summary = look(failing)
    assert summary.verdict == "fail"
    assert "report.json says PASSED, but its parts say FAILED" in summary.warnings[0]
    assert summary.first["name"] == "structure" or summary.first["name"].startswith("backbone")


def test_nothing_compared_is_not_a_pass(tmp_path):
    (tmp_path / "report.json").write_text('{"verdict": "pass", "compared": 0, "failed": 0, "skipped": 0}')
    summary = look(tmp_path)
    assert summary.verdict in ("inconclusive", "not_comparable")


def test_failed_counts_overrule_a_pass(tmp_path):
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "result.json").write_text('{"verdict": "pass", "compared": 5, "failed": 1, "skipped": 0}')
    assert look(tmp_path).verdict == "fail"


@pytest.mark.parametrize("part", ["structure", "layers", "infer"])
def test_a_damaged_part_makes_it_inconclusive(passing, part):
    (passing / part / "result.json").write_text('{"verdict": "pass", ')
    summary = look(passing)
    assert summary.verdict == "inconclusive"
    assert any("not valid JSON" in c.note for c in summary.checks)


def test_an_absent_part_is_listed_as_not_run(passing):
    shutil.rmtree(passing / "infer")
    summary = look(passing)
    assert summary.verdict == "pass"
    assert {"Inference", "Metric (COCO)", "Speed"} <= {what for what, _ in summary.not_run}


def test_without_report_json_the_parts_decide(failing, passing):
    for folder, verdict in ((failing, "fail"), (passing, "pass")):
        (folder / "report.json").unlink()
        assert look(folder).verdict == verdict


def test_a_damaged_report_json_is_inconclusive_at_best(passing):
    (passing / "report.json").write_text("[]")
    summary = look(passing)
    assert summary.verdict == "inconclusive" and "report.json does not hold a JSON object" in summary.warnings


def test_skipped_and_not_run_are_all_listed(passing):
    assert ("cuda", "no CUDA device on this machine") in look(passing).not_run
    assert ("aux_head.gfl_cls.0", "training branch, absent at inference") in look(passing).not_run


def test_objections_are_shown(passing, edit):
    objection = {"reason": "weights_differ", "text": "the two bundles were made with different weights"}
    edit(passing, "layers", lambda data: data.update(verdict="not_comparable", objections=[objection]))
    summary = look(passing)
    assert summary.verdict == "not_comparable"
    assert "layers: the two bundles were made with different weights" in summary.warnings


def test_a_stated_check_replaces_the_derived_one(passing, edit):
    stated = {"name": "speed", "verdict": "warn", "compared": 2, "failed": 0, "skipped": 0, "reason": "only 3 repeats"}
    extra = {"name": "doctor", "verdict": "fail", "compared": 4, "failed": 1, "skipped": 0}
    edit(passing, "report", lambda data: data.update(checks=[stated, extra]))
    summary = look(passing)
    assert check(summary, "speed").note == "only 3 repeats" and check(summary, "doctor").failed == 1
    assert summary.verdict == "fail"


@pytest.mark.parametrize("delta", ["NaN", 1.1e-4, -1.1e-4])
def test_the_metric_is_judged_by_its_limit(passing, edit, delta):
    edit(passing, "infer", lambda data: data["metrics"]["delta"].update(AR_1=delta))
    assert check(look(passing), "metric").verdict == "fail"


def test_a_metric_without_a_limit_is_only_measured(passing, edit):
    edit(passing, "infer", lambda data: data["metrics"].update(limit=None))
    assert check(look(passing), "metric").verdict == "info"


def test_metric_rows_are_preferred(passing, edit):
    row = {"name_ref": "mAP", "stage": "metric", "verdict": "fail", "reason": "metric_differs", "hint": "0.27 and 0.26"}
    edit(passing, "infer", lambda data: data["tensors"].append(row))
    found = check(look(passing), "metric")
    assert (found.verdict, found.note) == ("fail", "mAP: metric_differs: 0.27 and 0.26")


def test_rows_of_the_weights_part_and_the_stated_red_verdict(passing, edit):
    row = {"name_ref": "w", "stage": "weights", "verdict": "pass", "reason": "ok"}
    (passing / "weights").mkdir()
    (passing / "weights" / "result.json").write_text("{}")
    edit(passing, "weights", lambda data: {"verdict": "pass", "compared": 1, "failed": 0, "skipped": 0, "tensors": [row]})
    edit(passing, "layers", lambda data: data.update(tensors=[row for row in data["tensors"] if row["stage"] != "param"]))
    assert check(look(passing), "weights").compared == 1
    edit(passing, "report", lambda data: data.update(verdict="not_comparable"))
    edit(passing, "infer", lambda data: data.update(verdict="fail"))
    summary = look(passing)
    assert summary.verdict == "not_comparable" and not summary.warnings


def test_totals_that_differ_are_said(passing, edit):
    edit(passing, "structure", lambda data: data["totals"]["jittor"].update(parameters=0))
    assert look(passing).warnings == ["structure: the sides differ in parameters: 1,173,000 and 0"]


def test_a_metric_of_zeros_is_called_what_it_is(passing, edit):
    zeros = dict.fromkeys(["mAP", "AP_50"], 0.0) | {"AP_l": -1.0}
    edit(passing, "infer", lambda data: data.update(metrics={"pytorch": zeros, "jittor": zeros, "delta": dict.fromkeys(zeros, 0.0), "limit": 1e-4}))
    assert check(look(passing), "metric").note.endswith("no number is above 0, so this says little, limit 1.0e-04")

"""reports.junit: one case a tensor and a check, read back by an XML parser."""

from __future__ import annotations

from xml.etree import ElementTree

from reports import junit
from reports.source import read_folder
from reports.summary import summarise


def render(folder):
    source = read_folder(folder)
    return ElementTree.fromstring(junit.render(source, summarise(source)).encode())


def test_failures_by_name_with_reason_and_numbers(failing):
    root = render(failing)
    case = next(case for case in root.iter("testcase") if case.get("name") == "backbone.stage3.7.branch2.2" and case.get("classname") == "parity.layers.forward")
    failure = case.find("failure")
    assert failure.get("message").startswith("beyond_bound: ") and "own 2.9e-3" in failure.text
    checks = {case.get("name"): case for case in root.find("testsuite[@name='checks']")}
    assert checks["Structure"].find("failure") is not None and checks["Weights"].find("failure") is None
    assert checks["verdict"].find("failure").text == "FAILED | 4481 compared, 5 failed, 1 skipped"


def test_counts_match_the_cases(failing):
    root = render(failing)
    for tag, name in (("testcase", "tests"), ("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert int(root.get(name)) == len(list(root.iter(tag)))
        for suite in root.iter("testsuite"):
            assert int(suite.get(name)) == len(list(suite.iter(tag)))


def test_skipped_are_listed(passing):
    root = render(passing)
    skipped = [case.get("name") for case in root.iter("testcase") if case.find("skipped") is not None]
    assert skipped == ["aux_head.gfl_cls.0"]
    assert not list(root.iter("failure"))


def test_undecided_is_an_error(passing, edit):
    def change(data):
        data["tensors"][0]["verdict"], data["tensors"][1]["verdict"] = "inconclusive", "not_comparable"

    edit(passing, "layers", change)
    types = {error.get("type") for error in render(passing).iter("error")}
    assert {"inconclusive", "not_comparable"} <= types


def test_names_with_anything_in_them(passing, edit):
    name = "<script>&\n\x00\x1b[31m\ud800\ufffe\"'"
    edit(passing, "layers", lambda data: data["tensors"][0].update(name_ref=name, verdict="fail", hint="]]>" + name))
    assert any("<script>&\\n\\x00" in case.get("name") for case in render(passing).iter("testcase"))

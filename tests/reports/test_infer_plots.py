"""The plots of an inference result: drawn from whole data, left out for anything less."""

from __future__ import annotations

import copy
from xml.etree import ElementTree

import pytest

from reports.infer_plots import class_heat, precision_pairs

RECALLS = [i / 100 for i in range(101)]
FALL = [1 - r for r in RECALLS]
INFER = {"precision": {
    "recalls": RECALLS, "numbers": ["AP", "AP_50"], "classes": ["dog", "kite", "<b>"],
    "pytorch": {"curves": {"AP_50": FALL, "AP": FALL}, "classes": [[0.5, 0.6], [0.2, 0.3], [0.1, None]]},
    "jittor": {"curves": {"AP_50": [0.99 * v for v in FALL], "AP": FALL}, "classes": [[0.5, 0.6], [0.25, 0.29], [0.1, None]]}}}


def test_curves_and_their_difference() -> None:
    svg = precision_pairs(INFER)
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert svg.count("IoU 0.5") == 2 and "IoU 0.75" not in svg and "1.0e-2" in svg and "var(--cand)" in svg


def test_classes_are_ordered_by_their_difference_and_escaped() -> None:
    svg = class_heat(INFER)
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert svg.index(">kite<") < svg.index(">dog<") and "2 of 3 classes are equal" in svg and "5.0e-2" in svg and "<b>" not in svg


def test_equal_sides_have_no_colour_to_explain() -> None:
    same = copy.deepcopy(INFER)
    same["precision"]["jittor"] = same["precision"]["pytorch"]
    assert "3 of 3 classes are equal in every number<" in class_heat(same) and precision_pairs(same)


@pytest.mark.parametrize("change", [{"recalls": [0.5]}, {"pytorch": None}, {"jittor": {"curves": {"AP_50": [0.1]}, "classes": [[1]]}}, {"classes": [], "recalls": "x"}])
def test_damaged_data_draws_nothing(change: dict) -> None:
    infer = {"precision": {**INFER["precision"], **change}}
    assert precision_pairs(infer) is None and (class_heat(infer) is None or change == {"recalls": [0.5]})
    assert precision_pairs({}) is None and class_heat({"precision": 3}) is None

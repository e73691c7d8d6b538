"""reports.plots: SVG that stands inside a page, for any numbers."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from reports import plots
from reports.rows import tensor_rows
from reports.source import read_folder
from tests.reports.made_up import side_speed


def layer_rows(folder):
    return [row for row in tensor_rows(read_folder(folder), []) if row.part == "layers" and row.stage == "forward"]


def test_error_plot_shows_floor_both_float64_lines_and_the_failure(failing):
    svg = plots.error_by_depth(layer_rows(failing))
    for text in ("noise floor", "PyTorch against float64", "Jittor against float64", "own error", "backbone.stage3.7.branch2.2", "exactly 0"):
        assert text in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))


def test_points_link_to_their_rows(passing):
    rows = layer_rows(passing)
    svg = plots.error_by_depth(rows)
    assert f'<a href="#{rows[5].anchor}"><title>{rows[5].name}: ' in svg


def test_no_outside_colours_styles_or_dates(passing):
    svg = plots.error_by_depth(layer_rows(passing))
    assert svg == plots.error_by_depth(layer_rows(passing))
    assert "<style" not in svg and "<metadata" not in svg and "DOCTYPE" not in svg
    assert not any(code in svg for code in plots.INKS) and "var(--own)" in svg


def test_hostile_names_are_escaped(failing):
    rows = layer_rows(failing)
    for row in rows:
        row.name = "</svg><script>alert(1)</script>$\\frac{"
    svg = plots.error_by_depth(rows)
    assert "<script" not in svg and svg.count("</svg>") == 1


@pytest.mark.parametrize("value", [0.0, None, math.nan, math.inf, 1e-300, 1e300])
def test_any_numbers(passing, value):
    rows = layer_rows(passing)[:3]
    for row in rows:
        row.values = dict.fromkeys(row.values, value)
    svg = plots.error_by_depth(rows)
    assert (svg is None) == (value is None or not math.isfinite(value))


def test_nothing_to_draw():
    assert plots.error_by_depth([]) is None
    assert plots.speed_bars({}) is None
    assert plots.speed_bars({"pytorch": {"median_ms": "NaN"}}) is None


def test_speed_bars():
    svg = plots.speed_bars({"pytorch": side_speed(1.0), "jittor": side_speed(0.5)})
    assert "PyTorch" in svg and "Jittor" in svg and "forward 30.2" in svg

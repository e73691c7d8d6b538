"""Parts that not every report has: training steps, and `torch_ref` against the original; each with a title, a section in both pages, and inert text."""

from __future__ import annotations

import pytest

from reports import markdown, page, parts
from reports.source import read_folder
from reports.summary import summarise
from tests.reports.made_up import put, result, tensor

HOSTILE = "<script>alert(1)</script>\n\x1b[31m"


def step(number, failed=0, name="loss/total", ratio=0.5):
    return {"step": number, "epoch": 0, "rows": 12, "failed": failed, "floors": "measured" if number == 0 else "inherited", "loss": {"total": {"ref": 1.5, "cand": 1.25, "free": 1.75}},
            "worst": {"loss": {"name": "loss/other", "of_bound": ratio / 2}, "weights": {"name": name, "of_bound": ratio}}, "free": {"weights_rel_l2": 3e-7}}


def folder_of(tmp_path, **found):
    """A report folder whose parts are `found`; returns (source, summary)."""
    import random

    row = tensor("x", 0, random.Random(0))
    for name, more in {"structure": {}, "layers": {}, **found}.items():
        (tmp_path / name).mkdir()
        put(tmp_path / name / "result.json", {**result(name, "pass", [row]), **more})
    put(tmp_path / "report.json", {"schema_version": 1, "command": "report", "verdict": "pass", "compared": 4, "failed": 0, "skipped": 0, "first_failure": None})
    source = read_folder(tmp_path)
    return source, summarise(source)


TRAIN = {"train": {"steps": [step(0), step(1, name=HOSTILE, ratio=0.75)], "rows_compared": 24}, "optimizer": {"name": "SGD"}}
ORIGINAL = {"groups": [{"what": "state dict", "compared": 888, "equal": 888}, {"what": HOSTILE, "compared": 7, "equal": 6}], "upstream": {"commit": "be9b4a9001d7", "state": "clean"}}


def test_both_pages_have_a_labelled_section_for_each(tmp_path):
    source, summary = folder_of(tmp_path, train=TRAIN, upstream=ORIGINAL)
    assert [(check.key, check.title, check.anchor) for check in summary.checks if check.key in parts.TITLES] == [
        ("train", "Training steps", "train"), ("upstream", "torch_ref and the original", "upstream")]
    html, md = page.render(source, summary), markdown.render(source, summary, "report.html")
    for name, title in parts.TITLES.items():
        assert f'<section class="card" id="{name}">' in html and f'<a href="#{name}">' in html
        assert f"### {title}\n" in md and f"| {markdown.text(title)} |" in md
    for text in (html, md):
        assert "1.250000" in text and "0.75" in text and "888" in text and "be9b4a9001d7" in text and "SGD" in text
        assert "<script>alert" not in text and "\x1b" not in text
    assert "训练步" in html


def test_a_report_without_them_has_neither(tmp_path):
    source, summary = folder_of(tmp_path)
    text = page.render(source, summary) + markdown.render(source, summary, "report.html")
    assert 'id="train"' not in text and not any(title in text for title in parts.TITLES.values())


def test_the_row_nearest_to_its_bound_stands_in_the_table():
    table = parts.steps(TRAIN)
    assert [row[0] for row in table.rows] == ["0", "1"] and table.rows[0][1:] == ["1.500000", "1.250000", "1.750000", "12", "0", "measured", "loss/total", "0.5"]
    assert "3.0e-7" in parts.steps_note(TRAIN) and table.marks == ["", ""]


def test_failing_steps_come_first_where_there_are_too_many():
    many = {"train": {"steps": [step(number, failed=int(number >= 398)) for number in range(400)]}}
    table = parts.steps(many)
    assert len(table.rows) == parts.MAX_STEPS and [row[0] for row in table.rows[-3:]] == ["47", "398", "399"] and table.marks[-3:] == ["", "bad", "bad"]
    assert "350 more steps" in parts.steps_note(many)


@pytest.mark.parametrize("data", [{}, {"train": 3, "groups": "x"}, {"train": {"steps": []}, "groups": []}])
def test_nothing_is_no_table(data):
    assert parts.steps(data) is None and parts.original(data) is None


@pytest.mark.parametrize("data", [{"train": {"steps": [None, 7, {"loss": [], "worst": "x", "free": 2}]}}])
def test_a_damaged_step_is_dashes(data):
    assert all(len(row) == 9 for row in parts.steps(data).rows) and parts.steps_note(data)

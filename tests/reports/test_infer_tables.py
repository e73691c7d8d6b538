"""Causes and intervals as tables."""

from __future__ import annotations

from reports.infer_tables import cause_rows, cause_table, interval_note, interval_table


def test_causes_with_the_unexplained_first() -> None:
    data = {"differences": [{"kind": "moved", "cause": "near_tie", "margin": -2e-6}, {"kind": "extra", "cause": "near_tie", "margin": 1e-6}, {"kind": "missing", "cause": "", "margin": None}]}
    assert cause_rows(data) == [["unexplained", 1, 0, None], ["near_tie", 1, 1, 2e-6]]
    table = cause_table(data)
    assert table.rows[0] == ["unexplained", "1", "0", "–"] and table.marks == ["bad", ""] and cause_table({}) is None


def test_intervals() -> None:
    row = {"delta": 0.01, "low": 0.002, "high": 0.018, "decided": True, "images_needed": None}
    data = {"metrics": {"mAP": row}, "level": 0.95, "resamples": 9, "images": 7}
    table = interval_table(data)
    assert table.rows == [["mAP", "+0.010000", "+0.002000", "+0.018000", "–"]] and table.marks == ["odd"] and "9 draws of 7 images" in interval_note(data)
    assert interval_table({}) is None and interval_note({}) == ""

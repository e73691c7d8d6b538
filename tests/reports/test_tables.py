"""reports.tables: numbers as text, and the shared tables."""

from __future__ import annotations

import math

import pytest

from reports import tables
from reports.source import read_folder


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (1.2e-7, "1.2e-7"), (-3e-4, "-3.0e-4"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (12.0, "1.2e1")],
)
def test_sci(value, text):
    assert tables.sci(value) == text


def test_a_difference_never_rounds_to_an_unsigned_zero():
    assert tables.signed(0.0) == "0"
    assert tables.signed(2e-9) == "+2e-09"
    assert tables.signed(-0.00125) == "-0.001250"
    assert tables.signed(math.nan) == "NaN"


def test_other_forms():
    assert [tables.seconds(value) for value in (0.416, 12.34, 185, None)] == ["0.42 s", "12.3 s", "3 min 05 s", "–"]
    assert [tables.plain(value) for value in (62.0, 4.1e-4, 1234.0, 0.0)] == ["62", "4.1e-4", "1,234", "0"]
    assert [tables.count(value) for value in (12345, None, math.nan)] == ["12,345", "–", "–"]
    assert tables.fixed(math.inf) == "∞"


def test_shades_run_from_white_to_red():
    assert [tables.shade(value) for value in (0.0, 1e-12, 1e-8, 1e-1, 5.0, math.nan, None)] == ["e0", "e0", "e0", "e10", "e10", "enan", ""]
    steps = [int(tables.shade(10.0**power)[1:]) for power in range(-8, 0)]
    assert steps == sorted(set(steps))


def test_metric_table_has_the_twelve_numbers_in_order():
    numbers = {names[-1]: 0.1 for names in tables.COCO_KEYS}  # the other spellings
    table = tables.metric_table({"pytorch": numbers, "jittor": numbers, "delta": dict.fromkeys(numbers, 0.0)})
    assert [row[0] for row in table.rows] == [names[0] for names in tables.COCO_KEYS]
    assert {row[3] for row in table.rows} == {"0"}


def test_metric_table_marks_what_breaks_the_limit_and_dashes_what_is_absent():
    metrics = {"pytorch": {"mAP": 0.27, "AP_small": -1}, "jittor": {"mAP": 0.271, "AP_small": -1}, "delta": {"mAP": 0.001, "AP_small": 0}, "limit": 1e-4}
    table = tables.metric_table(metrics)
    assert table.rows == [["mAP", "0.27000", "0.27100", "+0.001000"], ["AP_small", "–", "–", "–"]]
    assert table.marks == ["bad", ""]
    assert tables.metric_table({}) is None and tables.metric_table({"pytorch": "x"}) is None


def test_a_published_column_is_shown():
    table = tables.metric_table({"pytorch": {"mAP": 0.27}, "jittor": {"mAP": 0.27}, "delta": {"mAP": 0.0}, "upstream": {"mAP": 0.27}})
    assert table.columns[-1] == "upstream" and table.rows[0][-1] == "0.27000"


def test_classes_with_the_largest_difference_first():
    metrics = {"pytorch": {"per_class": {"a": 0.5, "b": 0.5, "c": -1}}, "jittor": {"per_class": {"a": 0.5, "b": 0.4, "c": -1}}}
    table = tables.class_table(metrics)
    assert [row[0] for row in table.rows] == ["b", "a", "c"]
    assert table.rows[2] == ["c", "–", "–", "–"]
    assert tables.class_table({"pytorch": {"mAP": 1}}) is None


def test_speed_with_its_spread():
    fps = {"pytorch": {"median_ms": 10.0, "p20_ms": 9.5, "p80_ms": 11.0, "fps": 100.0, "phases": {"forward": {"median_ms": 8.0}}}, "threads": 2}
    table = tables.fps_table(fps)
    assert table.columns == ["side", "images/s", "one image, ms", "forward, ms"]
    assert table.rows == [["PyTorch", "100.0", "10.00 (9.50–11.00)", "8.00"]]
    assert tables.fps_note(fps) == "threads 2"
    assert tables.fps_table({}) is None


def test_settings_that_differ_between_parts_name_their_files(passing, edit):
    edit(passing, "layers", lambda data: data["hashes"].update(config="00"))
    table = tables.settings(read_folder(passing), ("hashes",), ("hashes",))
    rows = [row for row in table.rows if row[0] == "config"]
    assert [row[2] for row in rows] == ["report, structure, infer", "layers"]
    assert all(mark == ("odd" if row[0] == "config" else "") for row, mark in zip(table.rows, table.marks))


def test_commands_prefer_the_exact_line(passing, edit):
    edit(passing, "report", lambda data: data.update(command_line=["python", "-m", "alignment.report", "--output", "a b"]))
    found = tables.commands(read_folder(passing))
    assert found[0] == ("report", "python -m alignment.report --output 'a b'")
    assert [name for name, _ in found] == ["report", "structure", "layers", "infer"]


def test_durations_use_the_stated_total(passing, edit):
    assert tables.durations(read_folder(passing)) == ([("structure", "22.7 s"), ("layers", "22.7 s"), ("infer", "22.7 s")], "1 min 11 s")
    edit(passing, "report", lambda data: data.update(durations={}))
    assert tables.durations(read_folder(passing))[1] == "1 min 08 s"


def test_differences_of_both_forms():
    flat = {"kind": "moved", "image_id": 7, "category_ref": 1, "category_cand": 1, "box_ref": [1, 2, 3, 4], "box_cand": [1, 2, 3, 5],
            "score_ref": 0.5, "score_cand": 0.5, "cause": "", "margin": None}  # fmt: skip
    nested = {"kind": "missing", "image_id": 7, "category": "dog", "cause": "nms_overlap", "margin": 1e-7, "ref": {"bbox": [0, 0, 9, 9], "score": 0.4}, "cand": None}
    infer = {"categories": {"1": "person"}, "detections": {"differences": [nested, flat, "junk"]}, "pictures": [{"image_id": 7, "file_name": "a.jpg"}]}
    table = tables.differences(infer)
    assert table.rows == [
        ["a.jpg", "moved", "unexplained", "–", "person 0.5000 [1.0, 2.0, 3.0, 4.0]", "person 0.5000 [1.0, 2.0, 3.0, 5.0]"],
        ["a.jpg", "missing", "nms_overlap", "1.0e-7", "dog 0.4000 [0.0, 0.0, 9.0, 9.0]", "–"],
    ]
    assert table.marks == ["bad", ""]


def test_limit_and_names_as_alignment_writes_them():
    infer = {"metrics": {"pytorch": {"mAP": 0.3}}, "tensors": [{"stage": "post"}, {"stage": "metric", "tolerance": 1e-4}, "x"]}
    assert tables.metrics_of(infer)["limit"] == 1e-4
    assert tables.metrics_of({"metrics": None}) == {"limit": None}
    assert tables.categories({"categories": [{"id": 1, "name": "dog"}, "x"]})["1"] == "dog"
    assert tables.categories({"categories": {"2": "cat"}}) == {"2": "cat"}


def test_the_ratio_over_the_same_rounds_is_preferred():
    fps = {"pytorch": {"fps": 10.0}, "jittor": {"fps": 20.0}, "rounds": 5, "jittor_over_pytorch": {"median": 1.9, "min": 1.8, "max": 2.1}}
    assert tables.fps_note(fps) == "rounds 5; Jittor's images per second over PyTorch's, round by round: 1.90 (1.80 to 2.10)"


def test_gpu_rows_dash_what_a_side_did_not_reach():
    side = {"iterations_per_second": 2.5, "fps": 10.0, "memory_mb": 600.0}
    table = tables.gpu_table({"rows": [{"precision": 16, "batch": 32, "size": 320, "pytorch": side, "jittor": {"error": "out of memory"}}]})
    assert table.rows == [["fp16, batch 32, 320", "2.50", tables.NONE, "10.0", tables.NONE, "600", tables.NONE]]
    assert tables.gpu_table({"rows": []}) is None
    assert "card" in tables.gpu_note({"gpu": "card", "versions": {"torch": "2"}, "command": "python"})


def test_every_batch_size_has_a_row():
    one = {"fps": 10.0, "median_ms": 100.0, "phases": {"forward": 90.0}}
    fps = {"pytorch": one, "jittor": one, "by_batch": {"1": {"pytorch": one, "jittor": one}, "4": {"pytorch": {**one, "fps": 20.0}, "jittor": None}}}
    table = tables.fps_table(fps)
    assert [row[:2] for row in table.rows] == [["PyTorch, batch 1", "10.0"], ["Jittor, batch 1", "10.0"], ["PyTorch, batch 4", "20.0"]] and len(table.marks) == 3
    assert [row[0] for row in tables.fps_table({"pytorch": one, "by_batch": {"1": {"pytorch": one}}}).rows] == ["PyTorch"]

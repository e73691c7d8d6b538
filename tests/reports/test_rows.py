"""reports.rows: typed rows out of whatever a result file holds."""

from __future__ import annotations

import math

from reports import rows
from reports.source import read_folder


def read(folder):
    warnings: list[str] = []
    return rows.tensor_rows(read_folder(folder), warnings), warnings


def test_rows_carry_the_fields(failing):
    found, warnings = read(failing)
    assert not warnings
    first = next(row for row in found if row.bad)
    assert (first.name, first.stage, first.match) == ("backbone.stage3.7.branch2.2", "forward", "exact")
    assert first.values["own"] == 2.9e-3 and first.text["shape"] == "1×116×40×40"
    assert first.why.startswith("beyond_bound: the difference has a constant ratio")
    assert math.isnan(next(row for row in found if row.name.endswith("gfl_cls.3") and row.bad).values["own"])


def test_anchors_are_unique(failing):
    found, _ = read(failing)
    assert len({row.anchor for row in found}) == len(found)


def test_malformed_rows_are_counted_not_hidden(passing, edit):
    edit(passing, "layers", lambda data: data["tensors"].extend([1, "x", None]))
    _, warnings = read(passing)
    assert warnings == ['layers/result.json: 3 entries of "tensors" are not objects; they are ignored']
    edit(passing, "layers", lambda data: data.update(tensors="none"))
    assert "is not a list" in read(passing)[1][0]


def test_wrong_types_in_a_row_do_no_harm(passing, edit):
    wild = {"name_ref": {"a": 1}, "verdict": ["pass"], "shape": "x", "own": {}, "index": None, "stage": 7, "reason": None}
    edit(passing, "layers", lambda data: data.update(tensors=[wild, {}]))
    found, _ = read(passing)
    assert [row.verdict for row in found] == ["inconclusive", "inconclusive"]
    assert found[1].name == "(no name)"


def test_an_unknown_verdict_is_never_equal():
    assert rows.verdict_of("PASSED") == "pass"
    assert rows.verdict_of("NOT COMPARABLE") == "not_comparable"
    assert [rows.verdict_of(value) for value in ("ok", "", None, 1, "passs")] == ["inconclusive"] * 5


def test_the_worst_wins():
    assert rows.worst([]) == "not_run"
    assert rows.worst(["pass", "warn", "not_run"]) == "warn"
    assert rows.worst(["inconclusive", "not_comparable", "pass"]) == "not_comparable"
    assert rows.worst(["fail", "not_comparable"]) == "fail"


def test_first_failure_in_every_form():
    detail = {"name_ref": "a", "stage": "forward", "reason": "nan", "hint": "h"}
    assert rows.first_failure({"first_failure": "a", "first_failure_detail": detail}) == {
        "name": "a", "stage": "forward", "reason": "nan", "hint": "h",
    }  # fmt: skip
    assert rows.first_failure({"first_failure": "a"}) == {"name": "a"}
    assert rows.first_failure({"first_failure": {"path": "p", "hints": ["x", "y"]}}) == {"name": "p", "hint": "x y"}
    assert rows.first_failure({"first_failure": None}) == {}

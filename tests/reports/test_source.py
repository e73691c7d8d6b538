"""reports.source: result files that are missing, damaged or hostile."""

from __future__ import annotations

import json
import math

import pytest

from jt_nanodet.errors import UserError
from reports import source


def test_reads_known_parts_and_any_other(passing):
    (passing / "ops").mkdir()
    (passing / "ops" / "result.json").write_text('{"verdict": "pass"}')
    found = source.read_folder(passing)
    assert [part.name for part in found.usable()] == ["structure", "layers", "infer", "ops"]
    assert found.parts["weights"].problem == "no weights/result.json"
    assert not found.parts["weights"].damaged


def test_no_folder_and_nothing_in_it(tmp_path):
    with pytest.raises(UserError, match="is not a folder; name"):
        source.read_folder(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no usable result file; make one with"):
        source.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not valid JSON"),
        (b'{"verdict": "pa', "not valid JSON"),
        (b"\xff\xfe\x00garbage", "not valid JSON"),
        (b"[1, 2]", "does not hold a JSON object"),
        (b'"text"', "does not hold a JSON object"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, None),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
    ids=["empty", "cut", "binary", "list", "string", "bomb", "deep", "huge-number"],
)
def test_damaged_files_become_problems(tmp_path, content, problem):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    part = source.read_json(path, "layers", "layers/result.json")
    if problem is None:
        assert part.data is not None or part.damaged
    else:
        assert part.data is None and part.damaged and problem in part.problem


def test_only_a_damaged_file_names_the_damage(tmp_path):
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(UserError, match="report.json is not valid JSON"):
        source.read_folder(tmp_path)


def test_too_large_a_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 10)
    path = tmp_path / "result.json"
    path.write_text('{"verdict": "pass"}')
    assert "more than a result file can have" in source.read_json(path, "x", "x").problem


def test_invisible_characters_are_spelt_out():
    assert source.visible("a\nb\x00c\u202ed\ud800") == "a\\nb\\x00c\\u202ed\\ud800"
    assert source.visible("中文 é →") == "中文 é →"
    assert len(source.visible("x" * 10**6)) < source.MAX_TEXT + 50


def test_keys_are_cleaned_too():
    assert source.clean({"a\n": ["b\t", 1, None]}) == {"a\\n": ["b\\t", 1, None]}


def test_numbers():
    assert source.as_number("Infinity") == math.inf
    assert source.as_number("-Infinity") == -math.inf
    assert math.isnan(source.as_number("NaN"))
    assert source.as_number(10**400) == math.inf
    assert [source.as_number(value) for value in (None, True, "abc", [], {})] == [None] * 5
    assert [source.as_count(value) for value in (3, 3.0, -1, "NaN", math.inf, None)] == [3, 3, None, None, None, None]


def test_text_of_any_value():
    assert source.as_text(["a", "b"]) == "a b"
    assert json.loads(source.as_text({"a": [1]})) == {"a": [1]}
    assert source.as_text(None) == ""

"""``bench kernels`` without its processes: bad input, and what its table says."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.bench import kernels, kernels_tables
from jt_nanodet.errors import UserError


def row(kind, batch, ratio):
    return {"kind": kind, "size": 320, "batch": batch, "boxes": 10, "kernel": {"ms": {"median": 2.0}}, "tensor": {"ms": {"median": 2.0 * ratio}}, "kernel_is_faster": {"tensor": ratio}}


def test_a_row_for_each_kind_and_contestant():
    rows = [row("assign", 1, 4.0), row("assign", 8, 6.0), row("nms", 1, 3.0)]
    assert kernels_tables.ratios(rows) == {("assign", "tensor"): [4.0, 6.0], ("nms", "tensor"): [3.0]}
    table = kernels_tables.tables(rows, "note")["kernels"]
    assert table["rows"] == [["label assignment", "this project without the kernel", "2", "10", "5.0", "4.0", "6.0", "2"],
                             ["suppression", "this project without the kernel", "2", "6", "3.0", "3.0", "3.0", "1"]]
    assert all(len(one) == len(table["columns"]) == len(table["columns_zh"]) for one in table["rows"])


@pytest.mark.parametrize(("words", "said"), [(["--rounds", "0"], "nothing to measure"), (["--sizes", "wide"], "no list of numbers"), (["--batches", "0"], "nothing to measure")])
def test_bad_input_is_one_sentence(words, said):
    with pytest.raises(UserError, match=said):
        kernels.main(words)


def test_a_scene_measured_again_takes_its_old_place(tmp_path):
    old = [{"kind": "assign", "size": 320, "batch": batch, "boxes": 1, "ms": 1.0} for batch in (1, 8)]
    new = [{"kind": "assign", "size": 320, "batch": batch, "boxes": 1, "ms": 2.0} for batch in (1, 32)]
    assert [(row["batch"], row["ms"]) for row in kernels_tables.joined(old, new)] == [(1, 2.0), (8, 1.0), (32, 2.0)]
    path = tmp_path / "kernels.json"
    assert kernels_tables.earlier(str(path)) == kernels_tables.earlier(None) == []
    path.write_text(json.dumps({"command": "python -m jt_nanodet bench kernels --device cpu", "rows": old}), encoding="utf-8")
    assert kernels_tables.earlier(str(path)) == old
    for text in ("[]", "{}", "no JSON", '{"command": "bench inference", "rows": []}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="is no file of bench kernels, so nothing can be added to it"):
            kernels_tables.earlier(str(path))

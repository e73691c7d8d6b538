"""weights_convert.account: rows towards the destination, counts, table and JSON."""

import json

from weights_convert.account import STATUSES, Row, counts, retarget, show, to_json

ROWS = [
    Row("a", "a", "consistent", (2,), "float32", "same name on both sides"),
    Row("model.b", "b", "renamed", (2,), "float32", "Lightning prefix 'model.' removed: the model as trained"),
    Row("c", "c", "value_converted", (), "bfloat16", "widened"),
    Row("epoch", None, "dropped", None, "int", "progress of the training"),
]


def test_retarget_for_lightning():
    a, b, c, epoch = retarget(ROWS, "model.")
    assert (a.target, a.status, a.reason) == ("model.a", "renamed", "prefix 'model.' added")
    assert (b.target, b.status, b.reason) == ("model.b", "consistent", "same name on both sides")
    assert (c.target, c.status, c.reason) == ("model.c", "value_converted", "widened; prefix 'model.' added")
    assert epoch == ROWS[3]
    assert retarget(ROWS, "") == ROWS


def test_counts_have_every_status():
    assert counts(ROWS) == dict.fromkeys(STATUSES, 1)
    assert counts([]) == dict.fromkeys(STATUSES, 0)


def test_json_has_every_row():
    document = json.loads(to_json(ROWS, destination="x.pkl"))
    assert document["schema_version"] == 1 and document["destination"] == "x.pkl"
    assert [row["source"] for row in document["rows"]] == [row.source for row in ROWS]
    assert document["rows"][2]["shape"] == [] and document["rows"][3]["target"] is None


def test_short_table_counts_and_long_one_lists(capsys):
    rows = ROWS + [Row(f"b{i}", f"c{i}", "renamed", (1,), "float32", "[red]reason") for i in range(3)]
    show(rows, {"taken": "raw weights"}, ["a note"], verbose=False)
    short = capsys.readouterr().out
    assert "b0 (and 2 more)" in short and "b1" not in short and "[red]reason" in short
    assert "7 keys: 1 consistent, 4 renamed, 1 value_converted, 1 dropped" in short
    assert "taken: raw weights" in short and "note: a note" in short
    show(rows, {}, [], verbose=True)
    long = capsys.readouterr().out
    assert all(row.source in long for row in rows) and "same name on both sides" in long

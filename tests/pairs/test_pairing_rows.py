"""alignment.pairing, field by field: every way in which modules are paired, what is said of it, and where each key of a state goes."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.pairing import Match, executed, kind, pair_modules, transfer
from jt_nanodet.errors import UserError
from weights_convert.account import Row

ORDER = "same type and shapes at the same place in the order of execution"
ALONE = "the only ones left with this type and these shapes"
NO_CAND, NO_REF = "the candidate has no such module", "the reference has no such module"


def leaf(path, first=None, type="Conv2d", **params):
    return {"path": path, "type": type, "leaf": True, "params": [{"name": name, "shape": list(shape)} for name, shape in params.items()], "first": first}


def group(path, first=None):
    return {"path": path, "type": "Sequential", "leaf": False, "params": [], "first": first}


def test_kinds():
    norm = leaf("a", type="BatchNorm2d", weight=(3,), bias=(3,), num_batches_tracked=())
    assert kind(norm) == ("BatchNorm", (("bias", (3,)), ("weight", (3,)))) == kind(leaf("b", type="BatchNorm", bias=(3,), weight=(3,)))
    assert kind(leaf("a", type="Own")) == ("Own", ()) and kind(leaf("a", weight=(2, 1))) != kind(leaf("a", weight=(1, 2)))


def test_the_order_of_execution():
    rows = [leaf("never"), leaf("second", 1), group("whole", 0), leaf("first", 0), leaf("last"), leaf("third", 2)]
    assert [row["path"] for row in executed(rows)] == ["first", "second", "third", "never", "last"]


def test_one_match_for_every_module_of_either_side():
    ref = [group(""), leaf("same", 0, weight=(1,)), leaf("old", 1, weight=(2,)), leaf("lost", 2, weight=(9,))]
    cand = [group(""), leaf("new", 1, weight=(2,)), leaf("same", 0, weight=(1,)), leaf("more", 3, weight=(8,)), leaf("most", 3)]
    assert pair_modules(ref, cand) == [
        Match("", "", "name", "same name"), Match("same", "same", "name", "same name"), Match("old", "new", "guess", ORDER), Match("lost", None, "", NO_CAND),
        Match(None, "more", "", NO_REF), Match(None, "most", "", NO_REF)]


def test_a_map_is_taken_at_its_word():
    ref, cand = [leaf("a", 0), leaf("b", 1)], [leaf("x", 0), leaf("b", 1)]
    assert pair_modules(ref, cand, {"a": "b"}) == [Match("a", "b", "override", "given by the layer map"), Match("b", None, "", NO_CAND), Match(None, "x", "", NO_REF)]
    assert pair_modules(ref, cand, {}) == pair_modules(ref, cand) == [Match("a", "x", "guess", ORDER), Match("b", "b", "name", "same name")]


@pytest.mark.parametrize(("overrides", "said"), [
    ({"backbone.conv2": "head"}, r"the layer map names 'backbone.conv2', which the reference does not have \(it has 'backbone.conv1'\): mend the map"),
    ({"head": "hed"}, r"the layer map names 'hed', which the candidate does not have \(it has 'head'\): mend the map"),
    ({"head": "0"}, "the layer map names '0', which the candidate does not have: mend the map"),
    ({"head": "head", "neck": "head"}, "the layer map names one module of the candidate twice: give each reference module its own"),
])
def test_what_is_wrong_with_a_map(overrides, said):
    rows = [leaf("backbone.conv1"), leaf("neck"), leaf("head")]
    with pytest.raises(UserError, match=f"^{said}$"):
        pair_modules(rows, rows, overrides)


@pytest.mark.parametrize(("new", "match"), [
    ({"a.weight": "b.weight"}, ("b", "rename", "by rename()")), ({"a.weight": "a.weight"}, ("a", "name", "same name")), ({"a.weight": None}, ("a", "name", "same name")),
    ({"a.weight": "b"}, ("a", "name", "same name")), ({"a.weight": "gone.weight"}, ("a", "name", "same name")),
])
def test_names_by_rename(new, match):
    """A new name counts when it names a weight of another module that is there."""
    asked = []
    found = pair_modules([group(""), leaf("a", 0)], [group(""), leaf("a", 0), leaf("b", 1)], rename=lambda key: asked.append(key) or new[key])
    assert found[1] == Match("a", *match) and asked == ["a.weight"]


def test_rename_goes_before_names_and_a_module_is_taken_once():
    ref, cand = [leaf("a", 0), leaf("b", 1)], [leaf("a", 0), leaf("b", 1)]
    assert pair_modules(ref, cand, rename=lambda key: "b.weight") == [Match("a", "b", "rename", "by rename()"), Match("b", None, "", NO_CAND), Match(None, "a", "", NO_REF)]
    assert pair_modules(ref, cand, {"a": "a"}, lambda key: "b.weight")[1] == Match("b", "b", "name", "same name")


def test_a_leaf_and_a_group_of_one_name_are_no_pair():
    assert pair_modules([leaf("a", 0)], [group("a"), leaf("a.b", 0)]) == [Match("a", "a.b", "guess", ORDER), Match(None, "a", "", NO_REF)]


def test_what_is_paired_divides_what_is_guessed():
    """Between two anchors only what lies between them on the other side fits."""
    ref = [leaf("r", 0, weight=(2,)), leaf("anchor", 1, weight=(1,)), leaf("s", 2, weight=(2,))]
    cand = [leaf("anchor", 0, weight=(1,)), leaf("t", 1, weight=(2,))]
    assert pair_modules(ref, cand) == [Match("r", None, "", NO_CAND), Match("anchor", "anchor", "name", "same name"), Match("s", "t", "guess", ORDER)]
    away = [leaf("anchor", 0, weight=(7,)), leaf("t", 1, weight=(2,))]  # whatever its own shapes
    assert pair_modules(ref, away)[2] == Match("s", "t", "guess", ORDER)
    mapped = [leaf("other", 0, weight=(1,)), leaf("t", 1, weight=(2,))]
    assert pair_modules(ref, mapped, {"anchor": "other"})[2] == Match("s", "t", "guess", ORDER)


def test_hundreds_of_equal_modules_are_paired_in_order():
    """Entries that come often are left out by difflib unless it is told not to."""
    matches = pair_modules([leaf("own", 0)] + [leaf(f"r{k}", k + 1, "relu") for k in range(300)], [leaf(f"c{k}", k, "ReLU") for k in range(300)])
    assert [(m.ref, m.cand) for m in matches] == [("own", None)] + [(f"r{k}", f"c{k}") for k in range(300)]


def test_a_rest_that_is_alone_of_its_kind_needs_no_order():
    ref, cand = [leaf("a", 0, weight=(1,)), leaf("b", 1, weight=(2,)), leaf("p", 2, "Pool")], [leaf("p2", 0, "MaxPool2d"), leaf("y", 1, weight=(2,)), leaf("x", 2, weight=(1,))]
    found = {m.ref: (m.cand, m.how, m.why) for m in pair_modules(ref, cand)}
    assert sorted([found["a"], found["b"]]) == sorted([("x", "guess", ALONE), ("y", "guess", ORDER)]) or found["a"] == ("x", "guess", ORDER) and found["b"] == ("y", "guess", ALONE)
    assert found["p"] == (None, "", NO_CAND)  # without weights nothing says that it is the same
    assert {m.cand for m in pair_modules(ref[:2], cand[1:])} == {"x", "y"}


@pytest.mark.parametrize(("ref_twins", "cand_twins"), [(2, 1), (1, 2), (2, 2)])
def test_twins_out_of_order_are_not_guessed(ref_twins, cand_twins):
    ref = [leaf(f"a{k}", k, weight=(1,)) for k in range(ref_twins)] + [leaf(f"b{k}", 10 + k, weight=(2,)) for k in range(3)]
    cand = [leaf(f"y{k}", k, weight=(2,)) for k in range(3)] + [leaf(f"x{k}", 10 + k, weight=(1,)) for k in range(cand_twins)]
    found = {m.ref: m.cand for m in pair_modules(ref, cand)}
    assert [found[f"b{k}"] for k in range(3)] == ["y0", "y1", "y2"] and {found[f"a{k}"] for k in range(ref_twins)} == {None}


def test_a_group_follows_its_parts_to_the_smallest_that_holds_them_all():
    ref = [group("m"), leaf("m.a", 0, weight=(1,)), leaf("m.b", 1, weight=(2,)), group("none"), group("n"), leaf("n.c", 2, weight=(3,))]
    cand = [group(""), group("k"), group("k.l"), leaf("k.l.x", 0, weight=(1,)), leaf("k.l.y", 1, weight=(2,)), group("ks"), leaf("ks.z", 2, weight=(3,))]
    held = "holds the same parts"
    assert pair_modules(ref, cand) == [
        Match("m", "k.l", "guess", held), Match("m.a", "k.l.x", "guess", ORDER), Match("m.b", "k.l.y", "guess", ORDER), Match("none", None, "", NO_CAND), Match("n", "ks", "guess", held),
        Match("n.c", "ks.z", "guess", ORDER), Match(None, "", "", NO_REF), Match(None, "k", "", NO_REF)]


def test_a_group_that_holds_parts_of_others_is_no_home():
    ref = [group("m"), leaf("m.a", 0, weight=(1,)), leaf("b", 1, weight=(2,))]
    cand = [group("k"), leaf("k.x", 0, weight=(1,)), leaf("k.y", 1, weight=(2,))]
    assert pair_modules(ref, cand)[0] == Match("m", None, "", NO_CAND)
    free = [group("k"), leaf("k.x", 0, weight=(1,)), leaf("k.y", 1, weight=(9,))]  # what nobody has may lie there
    assert pair_modules(ref, free)[0] == Match("m", "k", "guess", "holds the same parts")
    split = [group("k"), leaf("k.x", 0, weight=(1,)), leaf("x", 1, weight=(2,))]
    assert pair_modules([group("m"), leaf("m.a", 0, weight=(1,)), leaf("m.b", 1, weight=(2,))], split)[0] == Match("m", None, "", NO_CAND)
    named = [group("k"), leaf("k.x", 0, weight=(1,)), group("m")]
    assert pair_modules([group("m"), leaf("m.a", 0, weight=(1,)), group("o"), leaf("o.a", 1)], named)[:2] == [Match("m", "m", "name", "same name"), Match("m.a", "k.x", "guess", ORDER)]


# -- weights


PAIRED = [Match("a", "x", "guess", ORDER), Match("deep.er", "far.off", "guess", ORDER), Match("same", "same", "name", "same name"), Match("whole", "", "guess", ORDER), Match("lost", None, "", NO_CAND), Match(None, "more", "", NO_REF)]


def moved(ref, cand, rename=None):
    return transfer({name: np.asarray(value) for name, value in ref.items()}, {name: np.asarray(value) for name, value in cand.items()}, PAIRED, rename)


def test_where_keys_go():
    ref = {"a.weight": np.float32([1, 2]), "same.weight": np.float32([3]), "free": np.int64([4]), "deep.er.weight": np.float64([6]), "whole.scale": np.float64([5]), "lost.weight": np.ones(1), "other.weight": np.ones(1)}
    state, rows, empty = moved(ref, {"x.weight": np.zeros(2), "same.weight": np.zeros(1), "free": [0], "far.off.weight": [0], "scale": [0], "weight": [0], "more.weight": [0],
                                    "more.num_batches_tracked": 0, "more.and.num_batches_tracked": 0})
    assert rows == [
        Row("a.weight", "x.weight", "renamed", (2,), "float32", "module paired: a and x"), Row("same.weight", "same.weight", "consistent", (1,), "float32", "same name on both sides"),
        Row("free", "free", "consistent", (1,), "int64", "same name on both sides"), Row("deep.er.weight", "far.off.weight", "renamed", (1,), "float64", "module paired: deep.er and far.off"),
        Row("whole.scale", "scale", "renamed", (1,), "float64", "module paired: whole and "),
        Row("lost.weight", None, "dropped", (1,), "float64", "the candidate has no such entry"), Row("other.weight", None, "dropped", (1,), "float64", "the candidate has no such entry")]
    assert {name: value.tolist() for name, value in state.items()} == {"x.weight": [1, 2], "same.weight": [3], "free": [4], "far.off.weight": [6], "scale": [5]}
    assert empty == ["weight", "more.weight"] and state["x.weight"] is ref["a.weight"]


def test_a_counter_that_is_not_kept_is_said_so():
    assert moved({"a.num_batches_tracked": 3}, {})[1] == [Row("a.num_batches_tracked", None, "dropped", (), "int64", "a counter that the candidate does not keep")]
    assert moved({"a.num_batches_tracked": 3}, {"x.num_batches_tracked": 0})[0]["x.num_batches_tracked"] == 3


@pytest.mark.parametrize(("ref", "cand", "status", "reason"), [
    ((2, 3), (3, 2), "value_converted", "transposed"), ((), (1,), "consistent", "same name on both sides"), ((1,), (), "consistent", "same name on both sides"),
    ((2, 3), (2, 4), "dropped", "w has shape (2, 4)"), ((1, 2, 3), (3, 2, 1), "dropped", "w has shape (3, 2, 1)"), ((3,), (1,), "dropped", "w has shape (1,)"), ((1, 1), (1,), "dropped", "w has shape (1,)"),
])
def test_shapes_that_do_not_fit(ref, cand, status, reason):
    value = np.arange(np.prod(ref, dtype=int), dtype=np.float32).reshape(ref)
    state, rows, empty = moved({"w": value, "z": np.ones(1)}, {"w": np.zeros(cand), "z": np.ones(1)})
    assert rows[0] == Row("w", None if status == "dropped" else "w", status, ref, "float32", reason) and rows[1].target == "z"
    assert ("w" in state) is (status != "dropped") and empty == (["w"] if status == "dropped" else [])
    if status != "dropped":
        assert state["w"].shape == cand and np.array_equal(state["w"], value.T if status == "value_converted" else value.reshape(cand)) and state["w"].flags.c_contiguous


def test_rename_decides_unless_it_changes_nothing():
    names = {"far.weight": "z.weight", "a.weight": "y.weight", "same.weight": "same.weight", "a.bias": "a.bias", "gone": "nowhere"}
    state, rows, _ = moved({name: np.ones(1) for name in names}, {"z.weight": [0], "y.weight": [0], "x.weight": [0], "same.weight": [0], "x.bias": [0]}, names.get)
    assert [(row.source, row.target, row.reason) for row in rows] == [
        ("far.weight", "z.weight", "module paired: far and far"), ("a.weight", "y.weight", "module paired: a and x"), ("same.weight", "same.weight", "same name on both sides"), ("a.bias", "x.bias", "module paired: a and x"),
        ("gone", None, "the candidate has no such entry")]
    assert list(state) == ["z.weight", "y.weight", "same.weight", "x.bias"]


def test_two_weights_for_one_place():
    with pytest.raises(UserError, match=r"^two weights of the reference, b among them, would become c: mend rename\(\) or the layer map$"):
        moved({"a": [1], "b": [1]}, {"c": [1]}, lambda key: "c")

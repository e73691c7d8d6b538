"""Pairing of modules and weights, and the pair file, without a framework."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from alignment import new, pair, pair_file
from alignment.noise import measure_floor
from alignment.pairing import Match, pair_modules, transfer
from alignment.reasons import Reason, Verdict
from alignment.result import Result
from jt_nanodet.errors import UserError


def row(path, kind="Conv2d", shape=(4, 3, 1, 1), leaf=True, first=None):
    return {"path": path, "type": kind, "leaf": leaf, "params": [{"name": "weight", "shape": list(shape)}] if leaf and shape else [], "first": first}


def found(ref, cand, **more):
    return {m.ref: (m.cand, m.how) for m in pair_modules(ref, cand, **more)}


def test_equal_paths_need_no_guess():
    assert found([row("a"), row("b")], [row("b"), row("a")]) == {"a": ("a", "name"), "b": ("b", "name")}


def test_the_order_of_execution_decides_among_equals_and_a_composite_follows_its_parts():
    ref = [row("m", leaf=False), row("m.a", first=1), row("m.b", first=2), row("n", first=3, shape=(9,))]
    cand = [row("k", leaf=False), row("k.y", first=2), row("k.x", first=1), row("z", first=3, shape=(9,))]
    assert found(ref, cand) == {"m": ("k", "guess"), "m.a": ("k.x", "guess"), "m.b": ("k.y", "guess"), "n": ("z", "guess")}


def test_another_shape_is_never_guessed_and_both_sides_say_so():
    matches = pair_modules([row("a", first=1)], [row("b", shape=(5, 3, 1, 1), first=1)])
    assert [(m.ref, m.cand, m.how) for m in matches] == [("a", None, ""), (None, "b", "")]


def test_the_map_wins_over_names_and_rename_over_guesses():
    ref, cand = [row("a", first=1), row("b", first=2)], [row("a", first=1), row("b", first=2)]
    assert found(ref, cand, overrides={"a": "b", "b": "a"}) == {"a": ("b", "override"), "b": ("a", "override")}
    assert found([row("a")], [row("x.a")], rename=lambda k: "x." + k) == {"a": ("x.a", "rename")}


@pytest.mark.parametrize("overrides", [{"c": "a"}, {"a": "c"}, {"a": "a", "b": "a"}])
def test_a_map_that_cannot_be_is_refused(overrides):
    with pytest.raises(UserError, match="map"):
        pair_modules([row("a"), row("b")], [row("a"), row("b")], overrides)


def test_every_key_is_accounted_for():
    matches = pair_modules([row("a", first=1), row("n", first=2, shape=(2, 3))], [row("b", first=1), row("n", first=2, shape=(3, 2))])
    ref = {"a.weight": np.ones((4, 3, 1, 1)), "a.num_batches_tracked": np.array(0), "a.bias": np.ones(4), "n.weight": np.arange(6.0).reshape(2, 3)}
    cand = {"b.weight": np.zeros((4, 3, 1, 1)), "n.weight": np.zeros((3, 2)), "b.extra": np.zeros(1)}
    state, rows, unfilled = transfer(ref, cand, matches)
    assert [(r.source, r.target, r.status) for r in rows] == [
        ("a.weight", "b.weight", "renamed"), ("a.num_batches_tracked", None, "dropped"), ("a.bias", None, "dropped"), ("n.weight", "n.weight", "value_converted")]
    assert unfilled == ["b.extra"] and np.array_equal(state["n.weight"], ref["n.weight"].T)


def test_two_weights_for_one_place_are_refused():
    with pytest.raises(UserError, match="two weights"):
        transfer({"a": np.ones(1), "b": np.ones(1)}, {"c": np.ones(1)}, [], lambda key: "c")


@pytest.mark.parametrize("text, said", [
    ("import torch\n", "move the import"), ("from jittor import nn\n", "move the import"), ("def (", "cannot be read"), ("x = 1\n", "build_reference"),
])
def test_a_bad_pair_file_is_refused_before_anything_starts(tmp_path, text, said):
    path = tmp_path / "p.py"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        pair_file.check(str(path))


def test_a_missing_file_names_the_template(tmp_path):
    with pytest.raises(UserError, match="alignment.new"):
        pair_file.check(str(tmp_path / "none.py"))


def test_what_a_pair_file_raises_is_one_sentence(tmp_path):
    path = tmp_path / "p.py"
    path.write_text("def build_reference(): raise ValueError('two\\nlines')\ndef build_candidate(): pass\ndef inputs(seed): pass\n")
    with pytest.raises(UserError, match=r"build_reference\(\) of .* raised ValueError: two lines; mend"):
        pair_file.call(pair_file.load(str(path)), "build_reference")


def test_the_template_is_a_pair_and_is_never_overwritten(tmp_path, capsys):
    path = tmp_path / "p.py"
    assert new.main([str(path)]) == 0
    pair_file.check(str(path))
    assert pair_file.load(str(path)).inputs(0).shape == (2, 3, 8, 8)
    with pytest.raises(UserError, match="kept"):
        new.main([str(path)])


@pytest.mark.parametrize("text", ["[1]", "a: 1", "a: ["])
def test_a_bad_layer_map_is_refused(tmp_path, text):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="path"):
        pair.read_layer_map(path)


@pytest.mark.parametrize(("moved", "verdict"), [({}, Verdict.PASS), ({"(model)": 1e-7}, Verdict.WARN), ({"(model)": 1e-3}, Verdict.FAIL),
                                                ({"(model)": float("inf")}, Verdict.FAIL), ({"unknown": 1e-12}, Verdict.FAIL)])
def test_recording_may_cost_rounding_and_nothing_more(moved, verdict):
    truth = np.linspace(-1, 1, 64)
    runs = [truth.astype(np.float32), np.nextafter(truth.astype(np.float32), np.float32(2))]
    floors = {"(model)": dataclasses.asdict(measure_floor(truth, runs, ("as is", "one ULP"), channel_axis=None))}
    row = pair.observer("jittor", moved, floors)
    assert row.verdict is verdict and row.stage == "observer"
    assert (row.reason is Reason.OK) == (verdict is Verdict.PASS)


@pytest.mark.parametrize("side", ["ref", "cand"])
@pytest.mark.parametrize(("fault", "failed"), [(None, []), ("own weight", ["list"]), ("part alone", ["list", "list.0"])])
def test_a_list_of_paired_layers_needs_no_twin(side, fault, failed):
    """One side keeps two layers in a list, the other as attributes. A list with a weight of its own, or with a part that has no twin, is missing."""
    def module(path, leaf, *params):
        return {"path": path, "type": "Linear" if leaf else "ModuleList", "leaf": leaf, "hyper": {}, "first": None,
                "params": [{"name": n, "shape": [2, 2], "dtype": "float32", "trainable": True} for n in params]}

    held = [module("", False), module("list", False, *(["scale"] if fault == "own weight" else [])), module("list.0", True, "weight"), module("list.1", True, "weight")]
    flat = [module("", False), module("a", True, "weight"), module("b", True, "weight")]
    pairs = [("", "", "name"), ("list", None, ""), ("list.0", "a", "guess"), ("list.1", "b", "guess")]
    if fault == "part alone":
        pairs[2] = ("list.0", None, "")
        flat = [module("", False), module("b", True, "weight")]
    one, two = (SimpleNamespace(header=SimpleNamespace(extra={"modules": rows})) for rows in (held, flat))
    matches = [Match(a, b, how, "") if side == "ref" else Match(b, a, how, "") for a, b, how in pairs]
    result = Result("structure")
    pair.structure(*((one, two) if side == "ref" else (two, one)), matches, result)
    assert [r.name_ref or r.name_cand for r in result.tensors if r.verdict is Verdict.FAIL] == failed
    assert [one["name"] for one in result.not_run] == ([] if failed else ["list"])

"""Recommended tolerances: computed from floors by the rule that is written down, and kept by the rows they came from."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from alignment import layers, recommend
from alignment.compare import compare_tensors, less_accurate
from alignment.noise import FACTOR, FLOAT64_RATIO, MARGIN, measure_floor, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult

CHANGES = ("as is", "input moved by one ULP", "weights moved by one ULP")


def row(name, kind, size, spread, seed=0, refed=True, stage="forward", widest=1):
    """A row of `size` values around it, whose floor is widest under the change number `widest`."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=400) * size
    runs = [(truth + (1 if k == widest else 0.2) * spread * size * rng.uniform(-1, 1, 400)).astype(np.float32) for k in range(3)]
    floor = measure_floor(truth, runs, CHANGES, channel_axis=None)
    cand = (truth + 0.5 * spread * size * rng.uniform(-1, 1, 400)).astype(np.float32)
    found = compare_tensors(name, runs[0], cand, tolerance=tolerance_from_floor(floor), ref64=truth, stage=stage)
    return dataclasses.replace(found, module_type=kind, refed=refed)


def result_of(*rows):
    result = Result("layers", versions={"torch": "2"}, hashes={"config": "c"})
    result.add(rows)
    result.parts["floors"] = {"threads": 2, "changes": list(CHANGES[1:])}
    return result


ROWS = (row("a", "Conv2d", 1.0, 1e-6, 1), row("b", "Conv2d", 100.0, 4e-6, 2, widest=2), row("c", "ReLU", 1.0, 2e-7, 3), row("head", "", 10.0, 1e-6, 4, refed=False),
        row("decode/boxes", "", 300.0, 1e-6, 5, refed=False, stage="decode"))


def test_a_kind_gets_the_largest_relative_floor_of_its_tensors_with_the_margin():
    found = {one["kind"]: one for one in recommend.recommend(result_of(*ROWS))}
    assert list(found) == ["Conv2d", "ReLU", "stage decode/boxes", "stage head"]
    conv = found["Conv2d"]
    assert (conv["tensors"], conv["worst"], conv["under"]) == (2, "b", "weights moved by one ULP")
    assert conv["floor"] == pytest.approx(ROWS[1].floor / ROWS[1].scale) and conv["magnitude"] == pytest.approx((ROWS[0].scale + ROWS[1].scale) / 2)
    exact = MARGIN * FACTOR * conv["floor"]
    assert exact <= conv["rtol"] < 2 * exact and conv["atol"] >= conv["rtol"] * conv["magnitude"] * (1 - 1e-9)
    assert all(one["passes"] and one["headroom"] > 1 for one in found.values())


def test_another_formula_does_not_keep_to_the_recommendation():
    """Off by a thousandth everywhere: the floor, and with it the recommendation, does not follow."""
    good = ROWS[0]
    bad = dataclasses.replace(good, name_ref="bad", max_abs=1e-3 * good.scale)
    (one,) = recommend.recommend(result_of(good, bad))
    assert not one["passes"] and one["headroom"] < 1 and one["rtol"] < 1e-4


def test_nothing_to_recommend_from_rows_without_a_floor():
    rows = [TensorResult("w", "w", Verdict.PASS, Reason.OK, Gate.EXACT, floor=0.0, max_abs=0.0, scale=1.0, tolerance_source="exact"),
            TensorResult("x", None, Verdict.FAIL, Reason.MISSING, Gate.KEYS)]
    assert recommend.recommend(result_of(*rows)) == []


@pytest.mark.parametrize("value, want", [(0.0, 0.0), (1.01e-6, 2e-6), (3e-7, 3e-7), (9.5e-5, 1e-4), (12.0, 20.0)])
def test_rounding_goes_up_to_one_digit(value, want):
    assert recommend.rounded_up(value) == pytest.approx(want, rel=1e-12)


def test_both_files_say_the_same(tmp_path, capsys):
    entries = recommend.write(tmp_path, result_of(*ROWS))
    document = json.loads((tmp_path / "tolerances.json").read_text(encoding="utf-8"))
    assert [one["kind"] for one in document["tolerances"]] == [one["kind"] for one in entries] and document["circumstances"]["threads"] == 2
    text, shown = (tmp_path / "tolerances.md").read_text(encoding="utf-8"), capsys.readouterr().out
    for cells in recommend.table(entries):
        assert f"| {' | '.join(cells)} |" in text and cells[0] in shown
    assert "4 (margin) x 2" in text and "input moved by one ULP, weights moved by one ULP" in text and "threads 2" in text


def test_the_floor_says_under_which_change_it_was_widest():
    assert [one.floor_from for one in ROWS[:2]] == [CHANGES[1], CHANGES[2]]
    assert compare_tensors("x", np.ones(3, np.float32), np.ones(3, np.float32)).floor_from == ""


@pytest.mark.parametrize("ref, cand, want", [(1e-7, 5e-7, "candidate"), (5e-7, 1e-7, "reference"), (1e-7, 1.9e-7, "neither"), (0.0, 2e-8, "neither"), (None, 1.0, "")])
def test_the_less_accurate_side(ref, cand, want):
    """A side is called worse at more than twice the other's error, and above the rounding of the last place."""
    found = TensorResult("x", "x", Verdict.PASS, Reason.OK, Gate.BOUND, err_ref_fp64=ref, err_cand_fp64=cand)
    assert less_accurate(found, 3e-8) == want and FLOAT64_RATIO == 2.0


def test_the_reference_may_be_the_worse_side():
    """The row fails, because the sides differ, and says that float64 sides with the candidate."""
    truth = np.random.default_rng(0).normal(size=500)
    good, poor = truth.astype(np.float32), (truth * (1 + 1e-4)).astype(np.float32)
    bound = tolerance_from_floor(measure_floor(truth, [good, good], channel_axis=None))
    found = compare_tensors("x", poor, good, tolerance=bound, ref64=truth)
    assert found.failed and found.less_accurate == "reference" and "the reference is the less accurate side" in found.hint
    counted = layers.accuracy([found, ROWS[2]])
    assert counted["reference"] == 1 and counted["worst"] is None and "the reference of 1" in layers.accuracy_text(counted)


def test_float64_on_both_sides_tells_another_formula_from_rounding():
    failed = dataclasses.replace(ROWS[0], verdict=Verdict.FAIL, own_rel_l2=1e-3, hint="h")
    assert layers.with_float64(failed, 1e-3).hint.endswith("another formula, not rounding")
    assert "the formula is the same" in layers.with_float64(failed, 1e-8).hint
    assert layers.with_float64(ROWS[0], 1e-8).hint == ROWS[0].hint and layers.with_float64(ROWS[0], 1e-8).float64_rel_l2 == 1e-8
    assert layers.with_float64(failed, None) is failed

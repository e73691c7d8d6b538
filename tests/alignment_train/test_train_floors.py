"""Inherited floors: relative to the step's own magnitude, the largest of those measured, halved; a step that does not pass by them is measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from alignment.noise import INHERITED_SHARE
from alignment.runners.train_tasks import only_agreed
from alignment.train_floors import Pool


def measured(max_abs, scale, rmse=None):
    return {"max_abs": max_abs, "rmse": max_abs / 4 if rmse is None else rmse, "scale": scale, "size": 8, "dtype": "float32", "repeats": 5, "circumstances": ["as is"] * 5}


@pytest.fixture
def pool():
    made = Pool()
    made.add({"gradient/a": measured(1e-6, 1.0), "assigned/0/fitness": measured(1e-7, 1.0), "gradient/zero": measured(2e-9, 1e-9)})
    made.add({"gradient/a": measured(1e-6, 0.1), "assigned/1/fitness": measured(3e-7, 1.0), "gradient/zero": measured(1e-9, 1e-9)})
    return made


def test_the_largest_relative_floor_at_the_magnitude_of_this_step(pool):
    given = pool.floors({"gradient/a": np.array([-4.0, 1.0], np.float32)})["gradient/a"]
    assert given["max_abs"] == pytest.approx(INHERITED_SHARE * 1e-5 * 4) and given["scale"] == 4 and given["size"] == 2 and given["repeats"] == 5


def test_images_share_one_pool(pool):
    given = pool.floors({"assigned/7/fitness": np.ones(3, np.float32)})
    assert given["assigned/7/fitness"]["max_abs"] == pytest.approx(INHERITED_SHARE * 3e-7)


def test_what_is_nothing_but_rounding_keeps_its_absolute_size(pool):
    assert pool.floors({"gradient/zero": np.full(3, 1e-3, np.float32)})["gradient/zero"]["max_abs"] == pytest.approx(INHERITED_SHARE * 2e-9)


@pytest.mark.parametrize("array", [np.zeros(0, np.float32), np.array([np.nan], np.float32), np.array([1])])
def test_no_floor_for_what_has_none(pool, array):
    assert pool.floors({"gradient/a": array, "gradient/never measured": np.ones(2, np.float32)}) == {}


@pytest.mark.torch
def test_a_step_without_floors_can_be_measured_later(tmp_path):
    """`measure` finds for a step that is past what measuring at once would have found."""
    pytest.importorskip("torch")
    from tests.alignment_train.harness import Pair

    pair = Pair(tmp_path, steps=1)
    command, reference = pair.commands[0], pair.reference
    at_once = json.loads((tmp_path / "floors0.json").read_text(encoding="utf-8"))
    later = {**command, "floors": str(tmp_path / "later.json"), "double": str(tmp_path / "later.safetensors"), "order": at_once["order"]}
    assert reference.measure(later)["flips"] == pair.told[0]["flips"]
    assert json.loads((tmp_path / "later.json").read_text(encoding="utf-8")) == at_once
    assert all(np.array_equal(a, b) for a, b in zip(load_file(command["double"]).values(), load_file(later["double"]).values()))
    pool = Pool()
    pool.add(at_once["floors"])
    found = load_file(command["output"])
    assert set(pool.floors(found)) == set(at_once["floors"])


def test_a_near_tie_of_the_reference_itself_widens_no_floor():
    """One of its runs gives the second prior no box: that prior is left out, the first keeps its rounding."""
    truth = {"assigned/0/box": np.array([1, 2, 0]), "assigned/0/iou": np.array([0.5, 0.25, 0.0])}
    run = {"assigned/0/box": np.array([1, 0, 0]), "assigned/0/iou": np.array([0.5 + 1e-6, 0.0, 0.0], np.float32), "loss/x": np.ones(1, np.float32)}
    agreed = only_agreed(run, truth)
    assert agreed["assigned/0/iou"].dtype == np.float32 and np.abs(agreed["assigned/0/iou"] - truth["assigned/0/iou"]).max() == pytest.approx(1e-6, rel=0.1)
    assert agreed["loss/x"] is run["loss/x"] and run["assigned/0/iou"][1] == 0

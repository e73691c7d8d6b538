"""``bench training``: bad input in one sentence, bounds from measured runs, losses that differ stop it, and the clock of the parts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from jt_nanodet.bench import training
from jt_nanodet.bench.training_jittor import Timer
from jt_nanodet.errors import UserError

CONFIG = "configs/shapes.yml"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--batches", "0"], "--batches of 1 or more"), (["--batches", "four"], "no list of numbers"), (["--rounds", "0"], "nothing to measure"),
    (["--annotations", "a.json"], "belong together"),
])
def test_bad_input(arguments, message):
    with pytest.raises(UserError, match=message):
        training.main([CONFIG, *arguments])


def test_more_images_than_there_are(tmp_path):
    from jt_nanodet.config import load_config

    with pytest.raises(UserError, match="--batches 1024 or less"):
        training.write_batches(load_config(CONFIG), tmp_path, 1025, 0)


def test_bounds_grow_with_the_spread_and_never_vanish():
    near = training.bounds([{"loss": 1.0 + 1e-7 * i} for i in (-1, 1, 2, -2)], {"loss": 1.0})["loss"]
    far = training.bounds([{"loss": 1.0 + 1e-6 * i} for i in (-1, 1, 2, -2)], {"loss": 1.0})["loss"]
    assert far == pytest.approx(10 * near) and near > 4e-7
    assert training.bounds([{"loss": 1.0}] * 4, {"loss": 1.0})["loss"] == pytest.approx(1.19e-7, rel=0.01)


@pytest.mark.parametrize(("ours", "fits"), [(2.0000002, True), (2.001, False), (float("nan"), False)])
def test_nothing_is_timed_where_losses_differ(ours, fits):
    runs = [{"loss_qfl": 2.0 + 2e-7 * i} for i in (0, 1, -1, 1, 0, -1)]
    sides = {"pytorch": SimpleNamespace(ask=lambda **_: {"runs": runs, "float64": {"loss_qfl": 2.0}}),
             "jittor": SimpleNamespace(ask=lambda **_: {"terms": {"loss_qfl": ours}})}
    if fits:
        assert training.verify(sides, "")["loss_qfl"]["difference"] < 1e-6
    else:
        with pytest.raises(UserError, match="loss_qfl is 2 for PyTorch.*nothing is timed"):
            training.verify(sides, "")


class FakeStep:
    """The order in which a real step calls its own methods."""

    def __init__(self):
        self.model = SimpleNamespace(forward_aux=lambda: "raw")

    def losses(self):
        return self.model.forward_aux()

    def gradients(self):
        return {}

    def step(self, batch):
        self.losses()
        self.gradients()


def test_parts_add_up_and_the_step_is_left_as_it_was():
    step, waits = FakeStep(), []
    timer = Timer(step, lambda: waits.append(1))
    parts = timer.run({}, True)
    assert sum(parts[k] for k in training.PARTS) == pytest.approx(parts["whole"]) and len(waits) == 5
    waits.clear()
    assert set(timer.run({}, False)) == {"whole", "cpu"} and len(waits) == 2


def test_tables_of_a_document():
    part = {"median": 2.0, "p20": 1.0, "p80": 3.0}
    side = {**{f"{k}_ms": part for k in ("whole", "cpu", *training.PARTS)}, "images_per_second": 4.0, "peak_memory_mb": 100.0}
    document = {"config": "c.yml", "threads": 2, "cpu": "a CPU", "data": [{"workers": 0, "images_per_second": 50.0}],
                "rows": [{"batch": 8, "rounds": 3, "pytorch": side, "jittor": {**side, "peak_memory_mb": 50.0}, "jittor_over_pytorch": {k: {"median": 0.5} for k in ("whole", "cpu", *training.PARTS)}}]}
    found = training.tables(document)
    assert all(len(row) == len(one["columns"]) for one in found.values() for row in one["rows"])
    assert found["ratios"]["rows"] == [["batch 8", *["0.50"] * 7]] and found["step"]["rows"][1][0] == "Jittor, batch 8" and found["data"]["rows"] == [["0", "50.0"]]


def test_rows_are_added_to_the_same_measurement_only(tmp_path):
    same = {"config_sha256": "a", "threads": 2, "device": "cpu", "seed": 0}
    path = tmp_path / "training.json"
    assert training.kept(None, same) == training.kept(str(path), same) == []
    path.write_text(json.dumps({**same, "rows": [{"batch": 8}]}))
    assert training.kept(str(path), same) == [{"batch": 8}]
    with pytest.raises(UserError, match="leave --add out"):
        training.kept(str(path), {**same, "threads": 1})
    path.write_text("{")
    with pytest.raises(UserError, match="leave --add out"):
        training.kept(str(path), same)

"""Averages against the formula in double, counters included."""
import importlib
import math

import numpy as np
import pytest


def fake_model(values, tensor):
    return type("Fake", (), {"state_dict": lambda self: {k: tensor(v) for k, v in values.items()}})()


@pytest.mark.parametrize("side", [pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor)])
def test_updates_follow_the_formula(side, request):
    if side == "jt_nanodet":
        tensor, whole = request.getfixturevalue("jittor").array, np.int32
    else:
        tensor, whole = pytest.importorskip("torch").from_numpy, np.int64
    ema_of = importlib.import_module(f"{side}.ema").ExpMovingAverager
    start = {"w": np.float32([1.0, -2.0]), "n.num_batches_tracked": np.array([0], whole)}
    ema = ema_of(fake_model(start, tensor), 0.9998)
    want, count = start["w"].astype(np.float64), 0.0
    for i in range(1, 6):
        new = {"w": np.float32([1.0 + i, i * i]), "n.num_batches_tracked": np.array([40 * i], whole)}
        ema.update(fake_model(new, tensor), i)
        share = 0.9998 * math.exp(-(1 + i) / 2000) + (1 - 0.9998)
        want = want * (1 - share) + new["w"] * share
        count = float(int(np.float32(count) * np.float32(1 - share) + np.float32(40 * i) * np.float32(share)))
    got = ema.state()
    assert (np.abs(got["w"] - want) <= 5 * 4 * np.finfo(np.float32).eps * np.abs(want)).all()
    assert got["n.num_batches_tracked"].dtype == np.int64 and int(got["n.num_batches_tracked"].reshape(())) == count
    other = ema_of(fake_model(start, tensor), 0.9998)
    other.load_state(got)
    for k, v in got.items():
        np.testing.assert_array_equal(other.state()[k], v)


@pytest.mark.torch
def test_first_update_takes_nearly_all_of_the_new_value():
    from torch_ref.ema import ExpMovingAverager

    factor = ExpMovingAverager(fake_model({}, None), 0.9998).factor
    assert factor(1) == 0.9998 * math.exp(-2 / 2000) + (1 - 0.9998) and factor(10**6) == pytest.approx(1 - 0.9998, rel=1e-9)

"""Numbers of the timing, without a model."""

from __future__ import annotations

import numpy as np
import pytest

from alignment import speed


def test_a_batch_counts_for_its_pictures() -> None:
    one_round = {"preprocess": [0.008, 0.016], "forward": [0.04, 0.04], "postprocess": [0.008, 0.008]}
    found = speed.summary([one_round] * 3, size=8)
    assert found["median_ms"] == pytest.approx(7.5) and found["fps"] == pytest.approx(1000 / 7.5) and found["phases"]["forward"]["median_ms"] == pytest.approx(5)
    assert found["low_fps"] <= found["fps"] <= found["high_fps"]


def test_the_interval_of_the_median_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = [low <= 1.0 <= high for low, high in (speed.median_interval(rng.lognormal(0, 0.5, 25)) for _ in range(2000))]
    assert 0.94 < np.mean(inside) < 0.99
    assert speed.median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)

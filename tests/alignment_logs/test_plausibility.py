"""What looks made up is found, and what was measured is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignment.curve_align import Aligned, Pair
from alignment.log_reader import read_run
from alignment.plausibility import inspect_pair, inspect_run
from jt_nanodet.errors import UserError
from tests.alignment_logs.logmaker import upstream_log

COUNT = 800


def curve(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round((0.4 + np.exp(-np.arange(COUNT) / 150)) * (1 + 0.1 * rng.standard_normal(COUNT)), 4)


def codes(a: np.ndarray, b: np.ndarray) -> set[str]:
    one = Aligned(Pair("train/loss", "train/loss", "exact", "loss"), "step", "same positions", np.arange(len(a)), a[None], b[None], 1.0)
    return {finding.code for finding in inspect_pair(one)}


@pytest.mark.parametrize(
    "change, code",
    [
        (lambda a: np.round(1.03 * a, 4), "exact_scale"),
        (lambda a: np.round(a + 0.0217, 4), "exact_shift"),
        (lambda a: np.round(0.9 * a + 0.05, 4), "exact_scale"),
        (lambda a: np.r_[a[:3], a[:-3]], "step_shift"),
        (lambda a: np.round(np.convolve(a, np.ones(5) / 5, "same"), 4), "smoothed_copy"),
        (lambda a: np.round(np.convolve(np.r_[np.full(20, a[0]), a], np.ones(21) / 21, "valid"), 4), "smoothed_copy"),
        (lambda a: np.round(0.4 + np.exp(-np.arange(COUNT) / 150), 4), "no_noise"),
        (lambda a: np.where(np.arange(COUNT) % 10 == 0, a, curve(9)), "equal_digits"),
        (lambda a: a.copy(), "equal_digits"),
    ],
)
def test_a_planted_fault_is_found(change, code: str) -> None:
    assert code in codes(curve(0), change(curve(0)))


def test_a_smoothed_copy_is_found_on_either_side() -> None:
    a = curve(0)
    smooth, value = np.empty(COUNT), a[0]
    for i in range(COUNT):
        value = smooth[i] = 0.9 * value + 0.1 * a[i]
    assert "smoothed_copy" in codes(a, np.round(smooth, 4)) and "smoothed_copy" in codes(np.round(smooth, 4), a)


def test_measured_pairs_raise_nothing() -> None:
    for seed in range(60):
        assert codes(curve(seed), curve(1000 + seed)) == set(), seed
        # The same images in the same order, other weights: noise in common, but measured.
        shared, rng = curve(seed), np.random.default_rng(seed)
        assert codes(shared, np.round(shared * (1 + 0.02 * rng.standard_normal(COUNT)), 4)) == set(), seed


def test_summaries_must_be_founded(tmp_path: Path) -> None:
    text = "".join(f"Epoch {e}: mAP: {0.30123 + e / 100:.5f}\n" for e in range(1, 6))
    for quoted, expected in (("0.351", set()), ("0.35123", set()), ("35.1", set()), ("0.362", {"summary_unfounded"})):
        (tmp_path / "a.log").write_text(text + f"Best mAP: {quoted}\n", encoding="utf-8")
        assert {f.code for f in inspect_run(read_run(tmp_path / "a.log"))} == expected, quoted


def test_the_real_log_obeys_its_configuration(shared: Path) -> None:
    logs = shared / "data" / "logs"
    run = read_run(logs / "pytorch_logs.txt")
    assert inspect_run(run, logs / "pytorch_train_cfg.yml") == []
    # One epoch of the wrong rate among 150 is seen, although it is within 1 %.
    run.series["train/lr"].value[1000:1012] *= 1.01
    assert [f.code for f in inspect_run(run, logs / "pytorch_train_cfg.yml")] == ["lr_config"]


def test_configurations_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(upstream_log(0), encoding="utf-8")
    (tmp_path / "c.yml").write_text("model: {}\n", encoding="utf-8")
    with pytest.raises(UserError, match="--config"):
        inspect_run(read_run(tmp_path / "a.txt"), tmp_path / "c.yml")

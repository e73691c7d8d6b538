"""Holds what a kernel wrote to its twin's answers."""

from __future__ import annotations

import numpy as np


def same(got: np.ndarray, want: np.ndarray, about: str) -> None:
    np.testing.assert_array_equal(got, want, err_msg=about)


def close(got: np.ndarray, want: np.ndarray, about: str) -> None:
    """Equal up to the last bit of float32: both round a double once, and their doubles may differ in the last bits."""
    finite = np.isfinite(want)
    same(got[~finite], want[~finite], about)
    if finite.any():
        assert (np.abs(got[finite] - want[finite]) <= np.spacing(np.abs(want[finite]))).all(), about


def check_assign(out: dict, truth: list[tuple], about: str) -> None:
    """Assignments, overlaps, sums and targets bit for bit; costs to the last bit."""
    for i, ((index, iou, candidates, costs, overlaps, sums), targets) in enumerate(truth):
        where, count = f"{about}, image {i}: ", overlaps.shape[1]
        same(np.flatnonzero(out["candidate"][i]), candidates, where + "candidates")
        assert out["valid"][i] == len(candidates), where + "number of candidates"
        same(out["overlap"][i][:count, candidates].T, overlaps, where + "overlaps")
        close(out["cost"][i][:count, candidates].T, costs, where + "costs")
        same(out["topk_sum"][i][:count], sums, where + "sums")
        same(out["gt_index"][i], index, where + "boxes")
        same(out["iou"][i], iou, where + "overlap with the box")
        for name, want in zip(("label", "quality", "weight", "target", "distance"), targets):
            same(out[name][i], want, where + name)


def check_nms(out: dict, batch: dict, truth: list[tuple], about: str) -> None:
    """Kept indices, numbers and detections, bit for bit; nothing after the last."""
    classes = batch["scores"].shape[2]
    for i, (kept, candidates) in enumerate(truth):
        where = f"{about}, image {i}: "
        n = int(out["count"][i])
        same(out["kept"][i][:n], kept, where + "kept")
        assert out["candidates"][i] == candidates, where + "candidates"
        assert (out["kept"][i][n:] == -1).all() and not out["detections"][i][n:].any(), where + "after the last"
        same(out["detections"][i][:n, :4], batch["boxes"][i][kept // classes], where + "boxes")
        same(out["detections"][i][:n, 4], batch["scores"][i].reshape(-1)[kept], where + "scores")

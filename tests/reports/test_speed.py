"""Speed tables from runs at several sizes: nothing but their own numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from jt_nanodet.errors import UserError
from reports.speed import gather, main
from tests.reports.made_up import get, put

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "nanodet-plus-m_320.yml")


def stats(fps: float) -> dict:
    phases = {phase: {"median_ms": 1.0, "p20_ms": 0.5, "p80_ms": 2.0} for phase in ("preprocess", "forward", "postprocess")}
    return {"fps": fps, "low_fps": fps - 1, "high_fps": fps + 1, "median_ms": 9.0, "phases": phases, "peak_memory_mb": 100.2, "first_round_seconds": 0.31}


def run(folder: Path, size: int) -> Path:
    by_batch = {batch: {"pytorch": stats(10.0), "jittor": stats(20.0)} for batch in ("1", "4")}
    put(folder / "result.json", {"images": 7, "path": "computed by the CPU engine", "device": "cpu", "fps": {"rounds": 5, "images": 8, "order": "alternating", "by_batch": by_batch},
                                 "metrics": {side: {"mAP": 0.3, "per_class": {"a": 1}} for side in ("pytorch", "jittor")}})
    put(folder / "pytorch.job.json", {"tasks": [{"config": CONFIG, "input_size": size}]})
    return folder


def test_two_sizes_and_a_card(tmp_path: Path) -> None:
    put(tmp_path / "gpu.json", {"gpu": "a card", "command": "bench gpu --seconds 1", "rows": [{"precision": 32, "size": 320, "pytorch": {"fps": 40.0}, "jittor": {"fps": None}}]})
    assert main([str(run(tmp_path / "a", 416)), str(run(tmp_path / "b", 320)), "--gpu", str(tmp_path / "gpu.json"), "--output", str(tmp_path / "speed.json")]) == 0
    found = get(tmp_path / "speed.json")
    assert found["tables"]["speed"]["rows"] == [
        [320, "PyTorch", "40.0", "10.0 (9.0 to 11.0)", "0.30000"], [320, "Jittor", None, "20.0 (19.0 to 21.0)", "0.30000"],
        [416, "PyTorch", None, "10.0 (9.0 to 11.0)", "0.30000"], [416, "Jittor", None, "20.0 (19.0 to 21.0)", "0.30000"]]
    assert [row[:4] for row in found["tables"]["batches"]["rows"][:2]] == [[320, 1, "PyTorch", 10.0], [320, 1, "Jittor", 20.0]] and len(found["tables"]["batches"]["rows"]) == 8
    assert "a card" in found["tables"]["speed"]["note"] and "per_class" not in str(found["runs"])


@pytest.mark.parametrize("bad", ["timing", "job", "twice", "gpu"])
def test_what_cannot_be_shown(tmp_path: Path, bad: str) -> None:
    folders = [run(tmp_path / "a", 320)]
    if bad == "timing":
        put(folders[0] / "result.json", {"fps": {}})
    if bad == "job":
        (folders[0] / "pytorch.job.json").unlink()
    with pytest.raises(UserError):
        gather(folders * (1 + (bad == "twice")), tmp_path / "none.json" if bad == "gpu" else None)

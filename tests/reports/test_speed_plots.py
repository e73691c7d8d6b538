"""Pictures of speed: drawn from result files, the same each time; what is not there is said."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.errors import UserError
from reports import speed_plots

MS = {"median": 2.0, "p20": 1.0, "p80": 3.0}


def write(root, **files):
    folder = root / "reports" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in files.items():
        (folder / f"{name}.json").write_text(json.dumps(document))


def documents():
    one = {"median_ms": 2.0, "p20_ms": 1.5, "p80_ms": 3.0}
    cases = [{"config": "m", "batch": 1, "threads": 2, "contestants": {"jt_nanodet": one}},
             {"config": "m", "batch": 8, "threads": 2, "contestants": {"jt_nanodet": one, "openvino": {**one, "median_ms": 7.0, "p80_ms": 8.0}, "onnxruntime": {"not_run": "x"}}}]
    series = {name: [{"number": n, "ms": {k: v * n for k, v in MS.items()}, "memory_mb": 100.0} for n in (1, 2, 8)] for name in ("batch", "size", "suppression", "assignment")}
    series["threads"] = [{"number": 1, "ms": MS, "memory_mb": 100.0}]
    side = {f"{part}_ms": {"median": 100.0} for part in speed_plots.PARTS}
    return {"speed_cpu": {"cases": cases}, "scaling_cpu": {"series": series}, "training_speed_cpu": {"config": "m.yml", "threads": 2, "rows": [{"batch": 8, "pytorch": side, "jittor": side}]}}


def test_pictures_of_what_was_measured(tmp_path, capsys):
    write(tmp_path, **documents())
    assert speed_plots.main(["--root", str(tmp_path)]) == 0
    drawn = {path.name: path.read_text() for path in (tmp_path / "docs" / "pictures").iterdir()}
    assert set(drawn) == set(speed_plots.PICTURES)
    assert "OpenVINO default" in drawn["cpu_inference.svg"] and "batch 8" in drawn["cpu_inference.svg"] and "ONNX" not in drawn["cpu_inference.svg"]
    assert all(text in drawn["cpu_growth.svg"] for text in ("images at once", "peak memory", "boxes an image")) and "threads" not in drawn["cpu_growth.svg"]
    assert "Jittor, batch 8" in drawn["cpu_training.svg"] and "backward" in drawn["cpu_training.svg"]
    assert speed_plots.main(["--root", str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "docs" / "pictures").iterdir()} == drawn


def test_what_is_missing_or_broken_is_said(tmp_path, capsys):
    with pytest.raises(UserError, match="measure first"):
        speed_plots.main(["--root", str(tmp_path)])
    write(tmp_path, scaling_cpu=documents()["scaling_cpu"])
    assert speed_plots.main(["--root", str(tmp_path)]) == 0
    assert "cpu_inference.svg: not drawn" in capsys.readouterr().out
    write(tmp_path, speed_cpu={"cases": []})
    with pytest.raises(UserError, match="speed_cpu.json cannot be drawn"):
        speed_plots.main(["--root", str(tmp_path)])

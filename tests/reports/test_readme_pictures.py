"""The READMEs' curves: kept from two runs' logs, thinned without moving, drawn the same each time."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from jt_nanodet.errors import run_cli
from reports.readme_pictures import POINTS, main, read_run, thin


def run(folder, side, shift=0.0):
    folder.mkdir()
    rows = [{"type": "header", "side": side, "seed": 3}]
    rows += [{"type": "train", "step": n, "loss": 5.0 / (n + 1) + shift} for n in range(1000)]
    rows += [{"type": "val", "epoch": n, "mAP": n / 20} for n in (5, 10)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_kept_and_drawn_again_the_same(tmp_path):
    words = ["--pytorch-run", run(tmp_path / "a", "torch"), "--jittor-run", run(tmp_path / "b", "jittor"), "--root", tmp_path]
    assert main([*map(str, words)]) == 0
    pictures = {path.name: path.read_text() for path in (tmp_path / "docs" / "pictures").iterdir()}
    assert set(pictures) == {"loss.svg", "map.svg"} and all("PyTorch" in text and "Jittor" in text for text in pictures.values())
    assert main(["--root", str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "docs" / "pictures").iterdir()} == pictures
    kept = json.loads((tmp_path / "reports" / "results" / "training_curves.json").read_text())["runs"]
    assert kept["jittor"]["seed"] == 3 and kept["pytorch"]["steps"] == 1000 and kept["pytorch"]["mAP"] == [[5, 0.25], [10, 0.5]]


def test_thinning_keeps_the_mean():
    points = [(float(n), float(n * n)) for n in range(1000)]
    kept = thin(points)
    assert len(kept) == POINTS and sum(y for _, y in kept) / POINTS == pytest.approx(sum(y for _, y in points) / 1000)
    assert thin(points[:7]) == [list(point) for point in points[:7]]


def test_a_sheet_of_the_projects_own_pictures(tmp_path, capsys):
    folder = tmp_path / "demo"
    folder.mkdir()
    for name, width, level in (("shapes-000.png", 40, 10), ("shapes-001.png", 60, 200), ("photo.png", 90, 90)):
        cv2.imwrite(str(folder / name), np.full((20, width, 3), level, np.uint8))
    assert main(["--demo", str(folder), "--root", str(tmp_path)]) == 0
    made = cv2.imread(str(tmp_path / "docs" / "pictures" / "detections.jpg"))
    assert made.shape == (48, 60, 3)  # the photo is left out
    assert abs(int(made[10, 20, 0]) - 10) < 5 and abs(int(made[34, 50, 0]) - 200) < 5 and made[10, 55, 0] > 240
    (folder / "shapes-001.png").write_bytes(b"cut")
    for words, said in ((["--demo", tmp_path], "shapes-*.png"), (["--demo", folder], "no whole"), (["--demo", folder, "--pytorch-run", folder, "--jittor-run", folder], "call of its own")):
        assert run_cli(main, [*map(str, words), "--root", str(tmp_path / "root")]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "root").exists()


def test_bad_input_is_one_sentence(tmp_path, capsys):
    good = run(tmp_path / "a", "torch")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.jsonl").write_text('{"type": "header"}\n')
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "log.jsonl").write_text('{"type": "tr')
    for words, said in ((["--pytorch-run", good], "both sides"), (["--pytorch-run", good, "--jittor-run", tmp_path / "absent"], "cannot read"),
                        (["--pytorch-run", good, "--jittor-run", tmp_path / "empty"], "no training step"), (["--pytorch-run", good, "--jittor-run", tmp_path / "cut"], "no JSON"),
                        ([], "is not there")):
        assert run_cli(main, [*map(str, words), "--root", str(tmp_path / "root")]) == 2
        complaint = capsys.readouterr().err
        assert complaint.startswith("error: ") and complaint.count("\n") == 1 and said in complaint
    assert read_run(good)["steps"] == 1000

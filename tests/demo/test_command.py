"""``python -m jt_nanodet demo`` from the options to the files; the detector is a stand-in but for the last test."""

from __future__ import annotations

import csv
import json
import os
import re

import cv2
import numpy as np
import pytest

from jt_nanodet.checkpoint import write_weights
from jt_nanodet.config import load_config
from jt_nanodet.data.shapes import ShapesDataset
from jt_nanodet.demo import command
from jt_nanodet.errors import run_cli
from jt_nanodet.weight_rules import lively_weights
from tests.demo.test_sources import video

CONFIG = "configs/shapes.yml"
NAMES = ["circle", "square", "triangle", "star", "cross"]


class StandIn(command.Detector):
    """Finds one square, wherever."""

    def __init__(self, config, checkpoint, device, threshold):
        self.names, self.sha256, self.threshold = NAMES, "0" * 64, threshold

    def __call__(self, image):
        return self.readable([{"category_id": 2, "score": 0.8, "bbox": [1, 1, 5, 5]}, {"category_id": 1, "score": 0.2, "bbox": [2, 2, 5, 5]}])


@pytest.fixture
def run(monkeypatch, repository, capfd):
    """``run(*words)``: (exit code, standard output, standard error)."""
    monkeypatch.setattr(command, "Detector", StandIn)

    def started(*words):
        code = run_cli(command.main, [*map(str, words), "--config", str(repository / CONFIG), "--model", "w.pkl"])
        return code, *capfd.readouterr()

    return started


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((40, 60, 3), np.uint8))
    return folder


def test_a_folder_of_pictures(run, photos, tmp_path):
    (photos / "c.png").write_bytes(b"damaged")
    out = tmp_path / "out"
    code, said, complaints = run("image", "--path", photos, "--save", "--output", out)
    assert code == 0 and "2 detections of score 0.35 or more on 2 pictures, 1 not readable" in said and "left out" in complaints
    assert sorted(os.listdir(out)) == ["a.png", "b.png", "detections.csv", "detections.json"]
    document = json.loads((out / "detections.json").read_text())
    assert [len(e["detections"]) for e in document["images"]] == [1, 1] and document["skipped"][0]["source"].endswith("c.png")
    assert document["images"][0]["detections"][0] == {"label": 1, "name": "square", "score": 0.8, "bbox": [1, 1, 5, 5]}
    assert len(list(csv.reader(open(out / "detections.csv")))) == 3 and cv2.imread(str(out / "a.png")).any()


def test_pictures_that_the_project_draws_itself(run, tmp_path):
    code, said, complaints = run("image", "--path", "shapes:3", "--save", "--output", tmp_path / "out")
    assert code == 0, complaints
    assert "on 3 pictures" in said and (tmp_path / "out" / "shapes-002.png").is_file()
    code, _, complaints = run("image", "--path", "shapes:none")
    assert code == 2 and "shapes:N" in complaints


def test_a_lower_threshold_shows_more(run, photos, tmp_path):
    code, said, _ = run("image", "--path", photos / "a.png", "--score-thr", "0.1", "--json", tmp_path / "d.json")
    assert code == 0 and "2 detections of score 0.1 or more" in said and "1 circle, 1 square" in said


def test_a_video_in_and_out(run, tmp_path):
    out = tmp_path / "out"
    code, said, _ = run("video", "--path", video(tmp_path / "v.mp4", 4, (64, 48)), "--save", "--output", out)
    assert code == 0 and "4 detections" in said and "frames a second" in said
    capture = cv2.VideoCapture(str(out / "v.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (4, 10, 64)
    assert [e["frame"] for e in json.loads((out / "detections.json").read_text())["images"]] == [0, 1, 2, 3]
    assert run("video", "--path", tmp_path / "v.mp4", "--frames", 2)[1].startswith("") and not list(out.glob(".tmp*"))


def test_both_sides_of_a_video(run, tmp_path, monkeypatch):
    def other(pictures, *_):
        moved = [{"category_id": 2, "score": 0.8, "bbox": [1, 1, 9, 9]}]
        return [moved if n else [{"category_id": 2, "score": 0.8, "bbox": [1, 1, 5, 5]}] for n in range(len(pictures))]

    monkeypatch.setattr(command.compare, "reference_detections", other)
    code, said, _ = run("video", "--path", video(tmp_path / "v.mp4", 3, (64, 48)), "--save", "--output", tmp_path / "out", "--compare")
    assert code == 0 and "2 of 3 frames have boxes that differ" in said
    assert cv2.VideoCapture(str(tmp_path / "out" / "v.mp4")).get(cv2.CAP_PROP_FRAME_WIDTH) == 134


@pytest.mark.parametrize(("words", "said"), [
    (["image"], "needs --path"),
    (["video", "--path", "a", "b"], "one file"),
    (["video", "--path", "absent.mp4"], "no video file"),
    (["image", "--path", "absent"], "no file or folder"),
    (["webcam", "--path", "a"], "--camera"),
    (["webcam", "--compare", "--save"], "--compare"),
    (["webcam"], "nowhere"),
    (["webcam", "--camera", "97", "--save"], "camera 97"),
    (["image", "--path", "x.png", "--score-thr", "7"], "--score-thr"),
    (["video", "--path", "x.mp4", "--frames", "0"], "--frames"),
    (["image", "--path", "{photos}", "--save", "--output", "{photos}"], "another folder"),
    (["image", "--path", "{photos}", "--json", "{photos}/absent/d.json"], "cannot write"),
])  # fmt: skip
def test_bad_input_is_one_sentence(run, photos, words, said):
    before = sorted(os.listdir(photos))
    code, out, complaints = run(*[word.format(photos=photos) for word in words])
    assert code == 2 and out == "" and complaints.startswith("error: ") and complaints.count("\n") == 1 and said in complaints
    assert sorted(os.listdir(photos)) == before


def test_no_display_is_one_sentence(run, photos, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    code, _, complaints = run("image", "--path", photos, "--show")
    assert code == 2 and "leave out --show" in complaints


def test_only_unreadable_pictures(run, photos):
    for path in photos.iterdir():
        path.write_bytes(b"damaged")
    code, _, complaints = run("image", "--path", photos)
    assert code == 2 and "none of the 2 pictures" in complaints


def test_a_source_that_announces_more_than_it_has(run, tmp_path):
    path = video(tmp_path / "v.avi", 40, (64, 48))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    code, said, complaints = run("video", "--path", path)
    assert code == 0 and ("could be read" in complaints) == ("not readable" in said)


@pytest.mark.torch
@pytest.mark.jittor
def test_real_models_side_by_side(jittor, repository, tmp_path, capfd):
    """Both sides with equal drawn weights under which scores vary."""
    from jt_nanodet.detector import build_model, state_arrays

    config = load_config(repository / CONFIG)
    shapes = {name: array.shape for name, array in state_arrays(build_model(config.model.arch)).items()}
    weights = lively_weights(shapes, 0)
    for level in range(len(config.model.arch.head.strides)):
        weights[f"head.gfl_cls.{level}.bias"] += 3
    write_weights(tmp_path / "w.pkl", weights)
    dataset = ShapesDataset(config.data.val, "test")
    for n in range(2):
        cv2.imwrite(str(tmp_path / f"{n}.png"), dataset.load(n))
    code = run_cli(command.main, ["image", "--config", str(repository / CONFIG), "--model", str(tmp_path / "w.pkl"), "--path", str(tmp_path / "*.png"), "--save",
                                  "--output", str(tmp_path / "out"), "--compare", "--score-thr", "0.1"])
    said = capfd.readouterr()
    assert code == 0, said.err
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert all(len(e["detections"]) > 5 for e in document["images"])
    # untrained scores lie close together, and rounding may decide between two of them: a few boxes may differ, not the bulk
    alike = [int(n) for n in re.findall(r"(\d+) boxes alike", said.out)]
    assert len(alike) == 2 and sum(alike) >= 0.9 * sum(len(e["detections"]) for e in document["images"]), said.out

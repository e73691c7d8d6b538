"""Bad input through the command lines themselves: exit code 2, one sentence, no traceback, nothing half-written, nothing foreign run."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from jt_nanodet.checkpoint import write_weights
from jt_nanodet.errors import run_cli

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "configs" / "shapes.yml"
COMMANDS = ("structure", "weights", "layers", "infer", "report")


def run(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


def here(command: str, *words: object) -> subprocess.CompletedProcess:
    """The same in this process, for what is refused before a framework starts: a hundredth of the time."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_cli(importlib.import_module(command).main, [str(word) for word in words])
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def refused(done: subprocess.CompletedProcess, *parts: str) -> str:
    """The sentence, which must hold every part."""
    assert done.returncode == 2, (done.returncode, done.stdout[-500:], done.stderr[-500:])
    assert "Traceback" not in done.stdout + done.stderr and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    for part in parts:
        assert part in lines[0], lines[0]
    return lines[0]


def nothing_left(folder: Path) -> None:
    """No result, no report, no file that is still being written."""
    left = [path.relative_to(folder) for path in folder.rglob("*") if path.name in ("result.json", "report.json", "report.html", "header.json")]
    partial = [path for path in folder.rglob("*") if "partial" in path.name or path.name.startswith(".tmp-") or path.name.startswith(".writable")]
    assert (left, partial) == ([], [])


class Evil:
    """Unpickled by Python itself, this writes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.fixture
def checkpoints(tmp_path):
    """name -> (path, words of the refusal)."""
    good = {"backbone.conv1.0.weight": np.ones((24, 3, 3, 3), np.float32), "backbone.conv1.1.weight": np.ones(24, np.float32)}
    write_weights(tmp_path / "good.npz", good)
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pkl").write_bytes(b"")
    write_weights(tmp_path / "nan.npz", {**good, "backbone.conv1.1.weight": np.full(24, np.nan, np.float32)})
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"backbone.conv1.0.weight": Evil(tmp_path / "ran")}))
    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"state_dict": Evil(tmp_path / "ran")}, protocol=2))
        archive.writestr("evil/version", "3\n")
    (tmp_path / "text.txt").write_text("weights")
    (tmp_path / "folder.npz").mkdir()
    return {
        "truncated": (tmp_path / "truncated.npz", "truncated.npz"), "empty": (tmp_path / "empty.pkl", "empty (0 bytes)"), "with NaN": (tmp_path / "nan.npz", "NaN"),
        "malicious pickle": (tmp_path / "evil.pkl", "evil.pkl"), "malicious pth": (tmp_path / "evil.pth", "evil.pth"), "of another kind": (tmp_path / "text.txt", "text.txt"),
        "a folder": (tmp_path / "folder.npz", "is a folder"), "absent": (tmp_path / "absent.npz", "absent.npz"),
    }


KINDS = ("truncated", "empty", "with NaN", "malicious pickle", "malicious pth", "of another kind", "a folder", "absent")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", ["--pytorch-model", "--jittor-model"])
def test_checkpoint(checkpoints, tmp_path, kind, flag):
    path, word = checkpoints[kind]
    other = ["--pytorch-model", tmp_path / "good.npz"] if flag == "--jittor-model" else []
    start = run if flag == "--pytorch-model" else here
    refused(start("alignment.infer", "--config", SHAPES, flag, path, *other, "--output", tmp_path / "out"), word)
    nothing_left(tmp_path / "out")
    assert not (tmp_path / "ran").exists(), "the file's code was run"


@pytest.mark.parametrize("command", ["weights", "layers", "report"])
def test_checkpoint_of_the_other_commands(checkpoints, tmp_path, command):
    refused(here(f"alignment.{command}", "--config", SHAPES, "--pytorch-model", checkpoints["malicious pth"][0], "--output", tmp_path / "out"), "evil.pth")
    nothing_left(tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["truncated", "malicious pickle", "malicious pth"])
def test_converter(checkpoints, tmp_path, kind):
    path = checkpoints[kind][0]
    refused(run("weights_convert", path, tmp_path / "new.npz"), path.name)
    assert not (tmp_path / "new.npz").exists()
    nothing_left(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.torch
def test_weights_of_another_architecture(checkpoints, tmp_path):
    """They are readable, so only the model can tell."""
    text = refused(run("alignment.weights", "--config", SHAPES, "--pytorch-model", tmp_path / "good.npz", "--output", tmp_path / "out"),
                   "do not fit the model", "missing (first: backbone.conv1.1.bias)")
    assert text.endswith("--config")
    nothing_left(tmp_path / "out")


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["malicious pth", "truncated", "with NaN"])
def test_reference_alone(checkpoints, tmp_path, kind):
    path, word = checkpoints[kind]
    refused(run("torch_ref", "test", SHAPES, "--checkpoint", path, "--save-results", tmp_path / "out.json"), word)
    assert not (tmp_path / "out.json").exists() and not (tmp_path / "ran").exists()
    nothing_left(tmp_path)


@pytest.mark.jittor
def test_port_alone(checkpoints, tmp_path, jittor):
    path, word = checkpoints["malicious pickle"]
    refused(run("jt_nanodet", "test", SHAPES, "--checkpoint", path, "--save-results", tmp_path / "out.json"), word)
    assert not (tmp_path / "out.json").exists() and not (tmp_path / "ran").exists()
    nothing_left(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_key(tmp_path, command):
    """Named, with the key that was probably meant."""
    path = tmp_path / "wrong.yml"
    path.write_text(SHAPES.read_text().replace("model_size: 0.5x", "model_sise: 0.5x"))
    refused((run if command == "infer" else here)(f"alignment.{command}", "--config", path, "--output", tmp_path / "out"), "model_sise", "model_size")
    nothing_left(tmp_path / "out")


@pytest.mark.parametrize(("package", "mark"), [pytest.param("torch_ref", 0, marks=pytest.mark.torch), pytest.param("jt_nanodet", 0, marks=pytest.mark.jittor)])
def test_unknown_key_on_one_side(tmp_path, package, mark):
    path = tmp_path / "wrong.yml"
    path.write_text(SHAPES.read_text().replace("reg_max: 7", "regmax: 7"))
    refused(run(package, "test", path, "--checkpoint", "none.npz"), "regmax", "reg_max")


@pytest.mark.parametrize(("command", "place"), [*((command, place) for command in COMMANDS for place in ("file", "below")), ("infer", "proc")])
def test_unwritable_output(tmp_path, command, place):
    """The tests may run as root, whom no permission stops: a file in the folder's place does."""
    (tmp_path / "taken").write_text("mine")
    folder = {"file": tmp_path / "taken", "below": tmp_path / "taken" / "out", "proc": Path("/proc/no_such_place")}[place]
    refused((run if place == "file" and command == "infer" else here)(f"alignment.{command}", "--config", SHAPES, "--output", folder), str(folder), "--output")
    assert (tmp_path / "taken").read_text() == "mine"


def test_an_old_verdict_does_not_survive(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text('{"verdict": "pass"}')
    refused(here("alignment.infer", "--config", SHAPES, "--pytorch-model", "absent.npz", "--output", tmp_path / "out"))
    nothing_left(tmp_path / "out")


def picture(path: Path) -> bytes:
    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 255, (60, 80, 3), np.uint8))
    return path.read_bytes()


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    picture(tmp_path / "photos" / "a.jpg")
    return tmp_path / "photos"


@pytest.mark.torch
@pytest.mark.parametrize("content", ["cut short", "empty", "no picture"])
def test_unreadable_image(tmp_path, photos, content):
    whole = picture(tmp_path / "b.jpg")
    (photos / "b.jpg").write_bytes({"cut short": whole[: len(whole) // 2], "empty": b"", "no picture": b"just text" * 50}[content])
    refused(run("alignment.infer", "--config", SHAPES, "--test-images", photos, "--output", tmp_path / "out"), "b.jpg", "replace or remove it")
    nothing_left(tmp_path / "out")


@pytest.mark.parametrize("command", ["layers", "infer", "report"])
@pytest.mark.parametrize("what", ["empty", "absent", "a file"])
def test_folder_of_images(tmp_path, photos, command, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    folder = {"empty": tmp_path / "empty", "absent": tmp_path / "absent", "a file": tmp_path / "notes.txt"}[what]
    refused(here(f"alignment.{command}", "--config", SHAPES, "--test-images", folder, "--output", tmp_path / "out"), str(folder))
    nothing_left(tmp_path / "out")


def annotations(path: Path, name="a.jpg", classes=5, **changes) -> Path:
    document = {
        "images": [{"id": 1, "file_name": name, "width": 80, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 1200, "iscrowd": 0}],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(classes)],
    }
    path.write_text(json.dumps({**document, **changes}))
    return path


@pytest.mark.parametrize("command", ["infer", "report"])
@pytest.mark.parametrize(("change", "word"), [
    ({"name": "other.jpg"}, "other.jpg"), ({"classes": 7}, "7 classes"), ({"images": "none"}, "images"), ({"annotations": [{"id": 1}]}, "annotations[0]"),
], ids=["of other images", "of more classes", "without images", "damaged"])
def test_annotations(tmp_path, photos, command, change, word):
    path = annotations(tmp_path / "labels.json", **change)
    refused(here(f"alignment.{command}", "--config", SHAPES, "--test-images", photos, "--annotations", path, "--output", tmp_path / "out"), word)
    nothing_left(tmp_path / "out")


@pytest.mark.torch
def test_annotations_of_fewer_classes_than_the_model_finds(tmp_path, photos):
    path = annotations(tmp_path / "labels.json", classes=1)
    refused(run("alignment.infer", "--config", SHAPES, "--test-images", photos, "--annotations", path, "--output", tmp_path / "out"), "name 1 classes")
    nothing_left(tmp_path / "out")


def test_annotations_without_images(tmp_path, photos):
    refused(here("alignment.infer", "--config", SHAPES, "--annotations", annotations(tmp_path / "a.json"), "--output", tmp_path / "out"), "folder of the images")


@pytest.mark.parametrize(("command", "flag", "value"), [
    ("infer", "--batch-size", 0), ("infer", "--rounds", -1), ("infer", "--limit", 0), ("infer", "--threads", 0), ("report", "--batch-size", -3),
    ("report", "--limit", 0), ("layers", "--images", 0), ("layers", "--threads", 0), ("structure", "--seed", -1),
])
def test_number_out_of_range(tmp_path, command, flag, value):
    refused(here(f"alignment.{command}", "--config", SHAPES, flag, value, "--output", tmp_path / "out"), flag, "at least")
    nothing_left(tmp_path / "out")


@pytest.mark.parametrize("what", ["absent", "a folder", "no YAML", "a list"])
def test_configuration(tmp_path, what):
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.yml").write_text("model: [unclosed")
    (tmp_path / "list.yml").write_text("- 1\n- 2\n")
    path = {"absent": tmp_path / "absent.yml", "a folder": tmp_path / "folder", "no YAML": tmp_path / "bad.yml", "a list": tmp_path / "list.yml"}[what]
    refused(here("alignment.structure", "--config", path, "--output", tmp_path / "out"), str(path))


@pytest.mark.jittor
def test_the_two_sides_mixed_up(tmp_path, jittor):
    """A .pth is no file for the port alone: it says what to give instead."""
    (tmp_path / "a.pth").write_bytes(b"x")
    refused(run("jt_nanodet", "test", SHAPES, "--checkpoint", tmp_path / "a.pth"), "a.pth", ".pkl")


@pytest.mark.torch
def test_a_device_that_is_not_there(tmp_path):
    if subprocess.run([sys.executable, "-c", "import torch, sys; sys.exit(torch.cuda.is_available())"], check=False).returncode:
        pytest.skip("not run: there is a GPU here")
    refused(run("alignment.structure", "--config", SHAPES, "--device", "cuda", "--output", tmp_path / "out"), "CUDA")
    nothing_left(tmp_path / "out")

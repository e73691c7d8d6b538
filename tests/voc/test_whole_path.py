"""The README's way from Pascal VOC to pictures on real images: verify, convert, mini, two epochs from the real weights, test, score, demo.

Smaller than the README shows, for the time it takes: a configuration of 128 x 128 pixels and twelve pictures to train on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import cv2
import pytest

from weights_convert import convert

pytestmark = [pytest.mark.jittor, pytest.mark.slow]


@pytest.fixture(scope="module")
def ran(shared, repository, tmp_path_factory):
    """(folder, what each command said), after all of them."""
    folder = tmp_path_factory.mktemp("voc")
    (folder / "data").mkdir()
    shutil.copytree(shared / "data" / "VOCdevkit", folder / "data" / "VOCdevkit", copy_function=shutil.copyfile)
    for place, folders, _ in os.walk(folder / "data"):
        os.chmod(place, 0o755)
    text = (repository / "configs" / "nanodet-plus-m_320_voc.yml").read_text().replace("[320, 320]", "[128, 128]")
    (folder / "small.yml").write_text(text)
    convert(shared / "data" / "weights" / "ncnn" / "nanodet-plus-m_320.param", folder / "C.npz")
    mini = ["data/mini/VOCdevkit", "data/mini/annotations/voc_{}.json"]
    sides = [word for side in ("train", "val") for word in (f"--{side}-images", mini[0], f"--{side}-annotations", mini[1].format(side))]
    lines = {
        "voc": "voc --data-dir data --convert --verify",
        "mini": "voc mini --src-dir data --dst-dir data/mini --train-samples 12 --val-samples 6",
        "train": f"train small.yml --load-weights C.npz {' '.join(sides)} --epochs 2 --batch-size 6 --workers 0 --device cpu --save-dir out",
        "test": f"test small.yml --checkpoint out/model_last.pkl --images {mini[0]} --annotations {mini[1].format('val')} --save-results found.json",
        "score": f"voc score --annotations {mini[1].format('val')} --detections found.json --json score.json",
        "demo": "demo image --config small.yml --model out/model_last.pkl --path data/mini/VOCdevkit/VOC2012/JPEGImages --score-thr 0.05 --save --output pictures",
    }
    said = {}
    for name, line in lines.items():
        command = [sys.executable, "-m", "jt_nanodet", *line.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(repository)})
        assert done.returncode == 0, f"{line}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
        said[name] = done.stdout
    return folder, said


def test_the_real_pictures_are_sound_and_converted(ran):
    folder, said = ran
    assert "0 faults in 100 pictures" in said["voc"] and "70 pictures, 197 objects, 29 of them difficult" in said["voc"]
    document = json.loads((folder / "data" / "annotations" / "voc_val.json").read_text())
    assert len(document["annotations"]) == 76 and sum(a["ignore"] for a in document["annotations"]) == 9
    assert "12 pictures" in said["mini"]


def test_two_epochs_from_the_real_weights(ran):
    folder, said = ran
    assert "for 80 classes, the model for 20: 8 arrays start anew (head.gfl_cls.0.weight" in said["train"]
    rows = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["type"] == "epoch"] == [1, 2] and any(row["type"] == "val" for row in rows)
    assert "Best mAP" in said["train"] and (folder / "out" / "loss.png").is_file() and (folder / "out" / "map.png").is_file()


def test_tested_scored_and_drawn(ran):
    folder, said = ran
    assert "detections on 6 images" in said["test"] and "VOC2007  mAP" in said["score"]
    score = json.loads((folder / "score.json").read_text())
    assert set(score) == {"coco", "voc2007", "voc2012"} and 0 <= score["voc2012"]["mAP"] <= 1
    pictures = sorted((folder / "pictures").glob("*.jpg"))
    assert len(pictures) == 18 and all(cv2.imread(str(path)) is not None for path in pictures)
    assert len(json.loads((folder / "pictures" / "detections.json").read_text())["images"]) == 18

"""Both trainers on a YOLO-txt dataset, with frames that change from sample to sample, and with `precision: 16` on the CPU."""
import json

import cv2
import pytest
import yaml

from jt_nanodet.data.shapes import CLASS_NAMES, draw_image
from tests.training.test_trainer import train
from tests.training.tiny import tiny_tree

SIDES = ("torch_ref", "jt_nanodet")
#: Losses of the first step, same weights and batches: float32's rounding, 100 times over. The steps after it are the business of `alignment.train`.
NEAR = 100 * 2.0 ** -23


def write_yolo(folder, count):
    """Drawn pictures of 64 pixels with a text file beside each."""
    folder.mkdir()
    for index in range(count):
        picture, boxes, labels = draw_image(0, index, (64, 64))
        cv2.imwrite(str(folder / f"{index}.png"), picture)
        lines = [f"{int(c)} {(x1 + x2) / 128:.6f} {(y1 + y2) / 128:.6f} {(x2 - x1) / 64:.6f} {(y2 - y1) / 64:.6f}" for (x1, y1, x2, y2), c in zip(boxes, labels)]
        (folder / f"{index}.txt").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


def losses(folder):
    rows = [json.loads(x) for x in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if "loss" in k} for row in rows if row["type"] == "train"]


@pytest.mark.torch
@pytest.mark.jittor
def test_yolo_and_multi_scale_train_alike(jittor, tmp_path):
    tree = tiny_tree()
    place = write_yolo(tmp_path / "yolo", 8)
    for part in tree["data"].values():
        part.update(name="YoloDataset", img_path=place, ann_path=place, class_names=list(CLASS_NAMES))
        for key in ("count", "image_size", "seed"):
            part.pop(key, None)
    tree["data"]["train"]["multi_scale"] = [0.7, 1.6]
    config = tmp_path / "yolo.yml"
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    found = {}
    for side in SIDES:
        code, _, err = train(side, config, tmp_path / side, "--max-steps", "2", "--workers", "0", "--seed", "1")
        assert code == 0, err
        found[side] = losses(tmp_path / side)
    assert [len(one) for one in found.values()] == [2, 2]
    assert found["jt_nanodet"][0] == pytest.approx(found["torch_ref"][0], rel=NEAR)


@pytest.mark.jittor
def test_half_precision_of_the_port_on_the_cpu_is_float32_and_says_so(jittor, tmp_path):
    runs = []
    for precision in (16, 32):
        tree = tiny_tree()
        tree["device"]["precision"] = precision
        config = tmp_path / f"{precision}.yml"
        config.write_text(yaml.safe_dump(tree), encoding="utf-8")
        code, text, err = train("jt_nanodet", config, tmp_path / str(precision), "--max-steps", "1")
        assert code == 0 and ("no half-precision convolution there" in text) == (precision == 16), err
        runs.append(losses(tmp_path / str(precision)))
    assert runs[0] == runs[1]

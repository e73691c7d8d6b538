"""jt_nanodet.data.shapes: the drawn dataset is what its description says, and the same every time."""

import dataclasses
import json
import os

import cv2
import numpy as np
import pytest

from jt_nanodet.config import load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.shapes import CLASS_NAMES, draw_dataset, draw_image
from jt_nanodet.errors import UserError

SIZE = (192, 160)


@pytest.fixture(scope="module")
def drawn():
    return [draw_image(1, n, SIZE) for n in range(150)]


def test_seeded(drawn):
    picture, boxes, labels = draw_image(1, 3, SIZE)
    assert (
        np.array_equal(picture, drawn[3][0])
        and np.array_equal(boxes, drawn[3][1])
        and np.array_equal(labels, drawn[3][2])
    )
    assert picture.shape == (160, 192, 3) and picture.dtype == np.uint8
    assert not np.array_equal(draw_image(2, 3, SIZE)[0], picture)


def test_varied(drawn):
    counts = [len(labels) for _, _, labels in drawn]
    boxes = np.concatenate([b for _, b, _ in drawn])
    labels = np.concatenate([c for _, _, c in drawn])
    assert 3 <= counts.count(0) <= 30 and max(counts) >= 5
    assert np.bincount(labels, minlength=5).min() > 0.1 * len(labels)
    sides = (boxes[:, 2:] - boxes[:, :2]).min(1)
    assert 0.1 < (sides < 24).mean() < 0.5 and sides.max() > 60
    assert (boxes >= 0).all() and (boxes[:, 2] <= 192).all() and (boxes[:, 3] <= 160).all()
    assert sum(_overlaps(b) for _, b, _ in drawn) > 20


def _overlaps(boxes):
    return any(
        np.minimum(a[2:], b[2:])[0] > np.maximum(a[:2], b[:2])[0]
        and np.minimum(a[2:], b[2:])[1] > np.maximum(a[:2], b[:2])[1]
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    )


def test_colour_does_not_give_the_class_away(drawn):
    """The mean colour at the middle of the boxes lies closer between classes than it varies within one."""
    middles = {n: [] for n in range(len(CLASS_NAMES))}
    for picture, boxes, labels in drawn:
        for (x1, y1, x2, y2), label in zip(boxes, labels):
            middles[label].append(picture[int((y1 + y2) / 2), int((x1 + x2) / 2)].astype(float))
    means = np.array([np.mean(m, axis=0) for m in middles.values()])
    assert means.std(axis=0).max() < 0.5 * min(np.std(m, axis=0).min() for m in middles.values())


def test_dataset_and_folder_hold_the_same(tmp_path, repository):
    path = draw_dataset(tmp_path / "drawn", 6, 2, SIZE)
    assert sorted(os.listdir(tmp_path / "drawn")) == [f"{n:06d}.png" for n in range(6)] + ["annotations.json"]
    config = load_config(repository / "configs/shapes.yml").data.val
    here = build_dataset(dataclasses.replace(config, count=6), "val", 5)
    there = build_dataset(
        dataclasses.replace(config, name="CocoDataset", img_path=str(tmp_path / "drawn"), ann_path=path), "val", 5
    )
    assert len(here) == len(there) == 6 and here.class_names == there.class_names == list(CLASS_NAMES)
    for n in range(6):
        assert np.array_equal(here[n]["img"], there[n]["img"]) and np.array_equal(
            here[n]["gt_bboxes"], there[n]["gt_bboxes"]
        )
        assert np.array_equal(here.load(n), cv2.imread(str(tmp_path / "drawn" / f"{n:06d}.png")))
    assert json.loads((tmp_path / "drawn/annotations.json").read_text())["categories"][0] == {"id": 1, "name": "circle"}


def test_other_class_names_are_refused(repository):
    config = load_config(repository / "configs/shapes.yml").data.val
    with pytest.raises(UserError, match="draws the classes circle, square"):
        build_dataset(dataclasses.replace(config, class_names=("cat",)), "val")


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the drawn dataset"):
        draw_dataset(tmp_path / "file" / "x", 1, 0)

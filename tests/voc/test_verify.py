"""``voc --verify`` finds each planted fault by its name and nothing else."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from jt_nanodet.voc.devkit import default_splits, find_years
from jt_nanodet.voc.verify import KINDS, table, verify
from tests.voc.devkit_maker import TRAIN, make, write_annotation


def faults_of(root):
    return verify(default_splits(find_years(root)))


def rewrite(name, objects, size=(60, 40)):
    return lambda folder: write_annotation(folder / "Annotations", name, objects, size)


def append(split, line):
    def plant(folder):
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        path.write_text(path.read_text() + line + "\n")
    return plant


def spoil(path, change):
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def copy(source, target):
    return lambda folder: shutil.copy(folder / "JPEGImages" / f"{source}.jpg", folder / "JPEGImages" / f"{target}.jpg")


PLANTED = {
    "bad list": lambda folder: (folder / "ImageSets" / "Main" / "val.txt").write_text(""),
    "listed twice": append("train", "000002"),
    "train/val leak": append("val", "000002"),
    "missing picture": lambda folder: (folder / "JPEGImages" / "000003.jpg").unlink(),
    "missing annotation": lambda folder: (folder / "Annotations" / "000003.xml").unlink(),
    "malformed annotation": spoil("Annotations/000003.xml", lambda data: data[:80]),
    "unreadable picture": spoil("JPEGImages/000003.jpg", lambda data: data[: len(data) // 2]),
    "wrong size": lambda folder: cv2.imwrite(str(folder / "JPEGImages" / "000003.jpg"), np.full((50, 60, 3), 7, np.uint8)),
    "wrong file name": spoil("Annotations/000003.xml", lambda data: data.replace(b"000003.jpg", b"000009.jpg")),
    "unknown class": rewrite("000002", [("unicorn", 5, 5, 20, 30, 0)]),
    "empty box": rewrite("000002", [("person", 30, 5, 20, 30, 0)]),
    "box outside": rewrite("000002", [("person", 30, 5, 90, 30, 0)]),
    "same object twice": rewrite("000002", TRAIN["000002"] * 2),
    "no objects": rewrite("000002", []),
    "same picture twice": copy("000001", "000002"),
    "same picture in train and val": copy("000001", "000005"),
}


def test_a_sound_devkit_has_no_fault(tmp_path):
    make(tmp_path)
    report = faults_of(tmp_path)
    assert report["faults"] == [] and report["totals"]["train"] == {"images": 4, "objects": 6, "difficult": 1}
    assert report["classes"]["train"]["person"] == {"objects": 2, "difficult": 0, "images": 2} and report["classes"]["val"]["cat"] == {}
    assert "person" in table(report) and len(table(report).splitlines()) == 23


def test_every_kind_is_planted():
    assert set(PLANTED) == set(KINDS) and len(PLANTED) >= 12


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_named(tmp_path, kind):
    PLANTED[kind](make(tmp_path))
    report = faults_of(tmp_path)
    assert report["counts"] == {kind: 1}, report["faults"]
    assert report["faults"][0]["what"]


def test_all_at_once_are_all_found(tmp_path):
    """Several faults of one devkit, none hiding another."""
    folder = make(tmp_path)
    chosen = ["listed twice", "train/val leak", "missing picture", "wrong file name", "same object twice", "same picture in train and val"]
    for kind in chosen:
        PLANTED[kind](folder)
    assert set(faults_of(tmp_path)["counts"]) == set(chosen)

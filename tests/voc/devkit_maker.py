"""A small VOC devkit, drawn and written for a test."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np

XML = """<annotation><folder>{year}</folder><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{0}</name><difficult>{5}</difficult><bndbox><xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax><ymax>{4}</ymax></bndbox></object>
"""
#: name -> objects: class, xmin, ymin, xmax, ymax, difficult
TRAIN = {
    "000001": [("dog", 1, 1, 60, 40, 0), ("cat", 10, 5, 30, 35, 1)],
    "000002": [("person", 5, 5, 20, 30, 0)],
    "000003": [("person", 8, 8, 40, 38, 0), ("dog", 20, 2, 50, 30, 0)],
    "000004": [("bus", 2, 3, 59, 39, 0)],
}
VAL = {"000005": [("dog", 10, 10, 40, 30, 0)], "000006": [("person", 3, 3, 30, 30, 0), ("person", 30, 3, 55, 35, 1)]}
SIZE = (60, 40)


def write_annotation(folder: Path, name: str, objects, size=SIZE, year="VOC2012"):
    body = "".join(OBJECT.format(*one) for one in objects)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.xml").write_text(XML.format(year=year, name=name, width=size[0], height=size[1], objects=body))


def make(root: Path, year="VOC2012", sides=(("train", TRAIN), ("val", VAL))) -> Path:
    """``root/VOCdevkit/year`` with the pictures of each side; returns the year's folder."""
    folder = root / "VOCdevkit" / year
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for side, members in sides:
        (folder / "ImageSets" / "Main" / f"{side}.txt").write_text("".join(f"{name}\n" for name in members))
        for name, objects in members.items():
            write_annotation(folder / "Annotations", name, objects, year=year)
            cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))
    return folder


def pack(root: Path, archive: Path, mode="w") -> Path:
    """A tar of ``root/VOCdevkit``."""
    with tarfile.open(archive, mode) as file:
        file.add(root / "VOCdevkit", "VOCdevkit")
    return archive

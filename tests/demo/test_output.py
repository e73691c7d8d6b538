"""JSON, CSV, pictures and video appear when they are complete, and not at all when the work stops."""

from __future__ import annotations

import contextlib
import csv
import json
import os

import cv2
import numpy as np
import pytest

from jt_nanodet.demo.output import CSV_COLUMNS, PictureFolder, Records, video_writer
from jt_nanodet.errors import UserError

FOUND = [{"label": 1, "name": 'a, "b"', "score": 0.5, "bbox": [1.0, 2.0, 3.0, 4.0]}]


def test_json_and_csv_say_the_same(tmp_path):
    with contextlib.ExitStack() as stack:
        records = Records(stack, {"schema_version": 1}, tmp_path / "d.json", tmp_path / "d.csv")
        records.add("x.png", None, (10, 20, 3), 0.25, FOUND)
        records.add("x.png", 1, (10, 20, 3), 0.25, [])
        records.close([{"source": "y.png", "reason": "empty"}])
        assert os.listdir(tmp_path) != [] and not (tmp_path / "d.json").exists(), "not before it is complete"
    document = json.loads((tmp_path / "d.json").read_text())
    assert document["schema_version"] == 1 and document["skipped"][0]["reason"] == "empty"
    assert [(e["frame"], e["width"], len(e["detections"])) for e in document["images"]] == [(None, 20, 1), (1, 20, 0)]
    with open(tmp_path / "d.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [list(CSV_COLUMNS), ["x.png", "", "1", 'a, "b"', "0.5", "1.0", "2.0", "3.0", "4.0"]]


def test_nothing_appears_when_the_work_stops(tmp_path):
    with pytest.raises(RuntimeError), contextlib.ExitStack() as stack:
        Records(stack, {}, tmp_path / "d.json", tmp_path / "d.csv").add("x", None, (1, 1, 3), 0, FOUND)
        stack.enter_context(video_writer(tmp_path / "v.mp4", 10, (32, 24))).write(np.zeros((24, 32, 3), np.uint8))
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_two_sources_of_one_name(tmp_path):
    folder, picture = PictureFolder(str(tmp_path)), np.zeros((4, 4, 3), np.uint8)
    names = [folder.write(source, picture).name for source in ("a/x.jpg", "b/x.jpg", "c/x.TIFF")]
    assert names == ["x.jpg", "x-2.jpg", "x.png"] and sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_video_is_whole(tmp_path):
    with video_writer(tmp_path / "v.mp4", 10, (32, 24)) as writer:
        for _ in range(3):
            writer.write(np.zeros((24, 32, 3), np.uint8))
    assert int(cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    with pytest.raises(UserError, match="cannot write the video"), video_writer(tmp_path / "absent" / "v.mp4", 10, (32, 24)):
        pass

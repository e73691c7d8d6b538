"""reports.pictures: which images are shown, with which boxes; and which are refused."""

from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pytest

from reports import pictures


def infer_of(folder):
    return json.loads((folder / "infer" / "result.json").read_text())


def test_pictures_with_differences_come_first(failing):
    shown, left = pictures.build_pictures(failing, infer_of(failing))
    assert [picture.name for picture in shown] == ["000001.jpg", "000002.jpg", "000000.jpg"] and left == 0
    assert base64.b64decode(shown[0].data).startswith(b"\xff\xd8")
    assert shown[0].notes[0][:2] == ("missing", "nms_overlap")


def test_differing_boxes_are_marked_and_drawn_once(failing):
    shown, _ = pictures.build_pictures(failing, infer_of(failing))
    for side, found in shown[1].sides:
        odd = [box for box in found if box.kind]
        assert len(found) == 5 and [(box.kind, box.cause) for box in odd] == [("moved", "unexplained")], side
    reference, candidate = (found for _, found in shown[0].sides)
    assert [box.kind for box in reference].count("missing") == 1 and all(not box.kind for box in candidate)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.jpg", "leads out"), ("/etc/hostname", "leads out"), ("gone.jpg", "not in the report folder"),
        ("text.jpg", "not an image that"), ("empty.jpg", "not an image that"), ("a\x00b", "cannot be read"), ("", "not in the report folder"),
        ("link.jpg", "leads out"),
    ],
)  # fmt: skip
def test_refused_images(tmp_path, path, reason):
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "outside.jpg").write_bytes(b"x")
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    image, problem = pictures.read_image(folder, path)
    assert image is None and reason in problem


def test_large_images_are_made_smaller_and_the_sum_is_bounded(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (900, 1500, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    infer = {"pictures": [{"image_id": n, "path": "a.png"} for n in range(30)]}
    shown, left = pictures.build_pictures(tmp_path, infer)
    assert sum(len(picture.data) for picture in shown) <= pictures.BYTE_BUDGET
    assert len(shown) + left == 30 and 1 <= len(shown) <= pictures.MAX_PICTURES
    small = cv2.imdecode(np.frombuffer(base64.b64decode(shown[0].data), np.uint8), 1)
    assert max(small.shape) == pictures.LONG_SIDE and (shown[0].width, shown[0].height) == (1500, 900)


def test_boxes_that_cannot_be_drawn_are_left_out(passing):
    infer = infer_of(passing)
    infer["pictures"][0]["pytorch"] = [{"bbox": [0, 0, "NaN", 1]}, {"bbox": [1]}, "x", {"bbox": [1, 2, 3, 4], "category": 5}]
    shown, _ = pictures.build_pictures(passing, infer)
    first = next(picture for picture in shown if picture.name == "000000.jpg")
    assert [box.label for box in first.sides[0][1]] == ["5"]

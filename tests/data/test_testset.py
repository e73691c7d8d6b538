"""What may be given as pictures: one file, a video, a folder; and another input size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from jt_nanodet.config import load_config, with_input_size
from jt_nanodet.data.testset import open_test_set, test_batches as in_batches
from jt_nanodet.errors import UserError

FRAMES = 5


@pytest.fixture(scope="module")
def config(request):
    return load_config(request.config.rootpath / "configs" / "shapes.yml")


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), 40 * number, np.uint8))
    writer.release()
    return path


def test_a_single_picture(config, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 40, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((30, 40, 3), np.uint8))
    dataset = open_test_set(config, tmp_path / "a.png")
    assert len(dataset) == 1 and dataset.info(0) == {"id": 1, "file_name": "a.png", "height": 30, "width": 40} and dataset.load(0).mean() == 90


def test_a_video_gives_its_frames_in_any_order(config, video):
    dataset = open_test_set(config, video)
    assert len(dataset) == FRAMES and dataset.info(1)["file_name"] == "a.avi#000002" and (dataset.info(1)["width"], dataset.info(1)["height"]) == (64, 48)
    shades = [round(dataset.load(index).mean() / 40) for index in (0, 1, 4, 2, 2, 3)]
    assert shades == [0, 1, 4, 2, 2, 3]
    infos = [info["id"] for batch in in_batches(dataset, 2) for info in batch["img_info"]]
    assert infos == list(range(1, FRAMES + 1))


@pytest.mark.parametrize(("name", "word"), [("a.mp4", "no frame"), ("a.txt", "neither a picture nor a video")])
def test_files_that_hold_no_picture(config, tmp_path, name, word):
    (tmp_path / name).write_bytes(b"not a video")
    with pytest.raises(UserError, match=word):
        open_test_set(config, tmp_path / name)


def test_another_input_size(config):
    step = 32
    assert tuple(with_input_size(config, 416).data.val.input_size) == (416, 416)
    assert with_input_size(config, None) is config
    other = with_input_size(config, 2 * step)
    assert tuple(other.data.val.input_size) == (2 * step, 2 * step) and other.sha256() != config.sha256()
    with pytest.raises(UserError, match=f"such as {step}"):
        with_input_size(config, step + 1)

"""Files, folders, patterns, videos: what is found, in which order, and one sentence for what is not there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from jt_nanodet.demo.sources import Frames, find_pictures
from jt_nanodet.errors import UserError


def video(path, frames=5, size=(32, 24)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, size)
    for n in range(frames):
        writer.write(np.full((size[1], size[0], 3), 40 * n, np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_files_folders_and_patterns(folder):
    def names(*paths):
        return [p.removeprefix(f"{folder}/") for p in find_pictures([str(folder / p) for p in paths])]

    assert names("b.png") == ["b.png"]
    assert names("") == ["a.jpg", "b.png"]
    assert names("*.png") == ["b.png"] and names("**/*.png") == ["b.png", "sub/c.png"]
    assert names("b.png", "", "sub") == ["b.png", "a.jpg", "sub/c.png"], "each once, in the order given"


@pytest.mark.parametrize(("path", "said"), [("notes.txt", "no picture"), ("absent.png", "no file or folder"), ("*.gif", "no picture matches"), ("v.mp4", "demo video")])
def test_what_is_no_picture(folder, path, said):
    video(folder / "v.mp4")
    with pytest.raises(UserError, match=said):
        find_pictures([str(folder / path)])


def test_frames_of_a_video(tmp_path):
    frames = Frames(str(video(tmp_path / "v.mp4")))
    assert (frames.width, frames.height, frames.fps, frames.announced) == (32, 24, 10, 5)
    levels = [int(frame.mean()) for frame in frames]
    assert len(levels) == 5 and levels == sorted(levels)
    frames.close()


def test_no_video_and_no_camera(tmp_path, capfd):
    (tmp_path / "v.mp4").write_bytes(b"no video at all")
    for source, said in ((str(tmp_path / "v.mp4"), "no video that OpenCV reads"), (str(tmp_path / "w.mp4"), "no video file"), (97, "camera 97")):
        with pytest.raises(UserError, match=said):
            Frames(source)
    assert "VIDEOIO" not in capfd.readouterr().err

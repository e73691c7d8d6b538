"""What a demo runs on: picture files, folders and patterns; the frames of a video file or of a camera."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from jt_nanodet.data.images import EXTENSIONS, list_images
from jt_nanodet.errors import UserError

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Picture files that the paths name, each once, in the order given: a file, a folder (its own pictures, by name) or a pattern with * ? [].

    ``**`` reaches into sub-folders. UserError for a path that names nothing, or a single file of another kind.
    """
    found: list[str] = []
    for path in map(str, paths):
        if os.path.isdir(path):
            found += list_images(path)
        elif os.path.exists(path):
            if not path.lower().endswith(EXTENSIONS):
                kind = "a video; type: demo video" if path.lower().endswith(VIDEO_EXTENSIONS) else f"no picture; give a file ending in {', '.join(EXTENSIONS)}"
                raise UserError(f"{path} is {kind}")
            found.append(path)
        else:
            matches = [p for p in sorted(glob.glob(path, recursive=True)) if p.lower().endswith(EXTENSIONS) and os.path.isfile(p)]
            if not matches:
                what = "no picture matches" if glob.has_magic(path) else "there is no file or folder"
                raise UserError(f"{what} {path}; give the path of a picture, a folder or a quoted pattern such as 'photos/*.jpg'")
            found += matches
    return list(dict.fromkeys(found))


class Frames:
    """Frames of a video file or a camera as BGR uint8 (h, w, 3), one at a time.

    ``fps`` and ``announced`` (number of frames, 0 where unknown) are what the file says; ``width`` and ``height`` are of its first frame.
    """

    def __init__(self, source: str | int):
        self.source = source
        if isinstance(source, str) and not os.path.isfile(source):
            raise UserError(f"there is no video file {source}; give the path of one")
        self.capture = _quietly(cv2.VideoCapture, source)
        opened, first = self.capture.read() if self.capture.isOpened() else (False, None)
        if not opened:
            self.capture.release()
            if isinstance(source, int):
                raise UserError(f"camera {source} gives no picture; see which there are with: ls /dev/video*; choose one with --camera N")
            raise UserError(f"{source} is no video that OpenCV reads, or is damaged; convert it with: ffmpeg -i '{source}' out.mp4")
        self.first: np.ndarray | None = first
        self.height, self.width = first.shape[:2]
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.announced = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))) if isinstance(source, str) else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        while self.first is not None:
            frame, self.first = self.first, None
            yield frame
            good, frame = self.capture.read()
            if good and frame is not None:
                self.first = frame

    def close(self) -> None:
        self.capture.release()


def _quietly(make, *arguments):
    """Call OpenCV without its own warnings about a camera or file that is not there: the sentence is ours."""
    sys.stderr.flush()
    keep, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        return make(*arguments)
    finally:
        os.dup2(keep, 2)
        os.close(keep)
        os.close(nothing)

"""What a demo writes: drawn pictures, a video, one JSON and one CSV file of all detections; each appears when it is complete."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from jt_nanodet.checkpoint import replacing
from jt_nanodet.errors import UserError

CSV_COLUMNS = ("source", "frame", "label", "name", "score", "x", "y", "width", "height")


class Records:
    """Detections written as they come, so that a long video needs no memory for them.

    JSON: the header's fields, then ``images``: source, frame (None for a picture), width, height, seconds, detections (label, name, score, bbox).
    """

    def __init__(self, stack: contextlib.ExitStack, header: dict, json_path: str | None, csv_path: str | None):
        self.count = self.found = 0
        self.json = stack.enter_context(replacing(json_path)) if json_path else None
        self.csv = stack.enter_context(replacing(csv_path)) if csv_path else None
        if self.json:
            self.json.write((json.dumps(header, ensure_ascii=False)[:-1] + ', "images": [').encode())
        if self.csv:
            self._row(CSV_COLUMNS)

    def add(self, source: str, frame: int | None, shape: tuple, seconds: float, detections: list[dict]) -> None:
        """One picture or frame."""
        entry = {"source": source, "frame": frame, "width": shape[1], "height": shape[0], "seconds": round(seconds, 6), "detections": detections}
        if self.json:
            self.json.write((("," if self.count else "") + "\n" + json.dumps(entry, ensure_ascii=False)).encode())
        if self.csv:
            for one in detections:
                self._row((source, "" if frame is None else frame, one["label"], one["name"], one["score"], *one["bbox"]))
        self.count += 1
        self.found += len(detections)

    def close(self, skipped: list[dict]) -> None:
        """End the JSON document; ``skipped``: source and reason of what could not be read."""
        if self.json:
            self.json.write(('\n], "skipped": ' + json.dumps(skipped, ensure_ascii=False) + "}\n").encode())

    def _row(self, cells: tuple) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self.csv.write(text.getvalue().encode())


class PictureFolder:
    """Drawn pictures under the names of their sources; two sources of one name get numbers."""

    def __init__(self, folder: str):
        self.folder, self.taken = folder, set()

    def write(self, source: str, picture: np.ndarray) -> Path:
        """Write one picture; a file of that name from an earlier run is replaced."""
        stem, suffix = os.path.splitext(os.path.basename(source))
        suffix = suffix.lower() if suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp") else ".png"
        number, name = 2, stem + suffix
        while name in self.taken:
            name, number = f"{stem}-{number}{suffix}", number + 1
        self.taken.add(name)
        done, data = cv2.imencode(suffix, picture)
        if not done:
            raise UserError(f"OpenCV cannot write {name}; convert the source to PNG first")
        target = Path(self.folder) / name
        with replacing(target) as file:
            file.write(data.tobytes())
        return target


@contextlib.contextmanager
def video_writer(path: Path, fps: float, size: tuple[int, int]) -> Iterator[cv2.VideoWriter]:
    """A video file of ``size`` (width, height) that takes its name when it is complete; UserError where none can be written."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        temporary.unlink(missing_ok=True)
        raise UserError(f"OpenCV cannot write the video {path} ({size[0]}x{size[1]}); choose another folder with --output")
    try:
        yield writer
        writer.release()
        if not temporary.is_file() or temporary.stat().st_size == 0:
            raise UserError(f"the video {path} could not be written whole; see whether the disk is full with: df '{path.parent}'")
        os.replace(temporary, path)
    finally:
        writer.release()
        temporary.unlink(missing_ok=True)

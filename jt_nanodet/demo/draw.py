"""Detections drawn into a picture: a colour for each class, boxes and captions in proportion to the picture, differing boxes marked."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

#: Neighbouring class numbers get hues far apart: steps of the golden ratio on the circle.
_GOLDEN = 0.618033988749895
#: BGR. A class never gets this colour: no class hue is fully magenta.
MARK = (255, 0, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(label: int) -> tuple[int, int, int]:
    """BGR of class number ``label``, the same in every picture; hues leave out the one of MARK."""
    hue = (label * _GOLDEN) % 1.0 * 0.72  # 0 (red) over yellow, green, cyan to 0.72 (blue-violet)
    value = (1.0, 0.8, 0.92)[label % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 1.0, 0.7)[label % 3], value)
    return round(255 * blue), round(255 * green), round(255 * red)


def caption(name: str, score: float) -> str:
    """What stands at a box. OpenCV's letters are ASCII only: others become ?."""
    return f"{name.encode('ascii', 'replace').decode()} {score:.2f}"


def draw(image: np.ndarray, detections: Sequence[dict], marks: Sequence[str] = ()) -> np.ndarray:
    """A copy of ``image`` (BGR uint8) with boxes and captions, the best on top.

    ``detections``: label, name, score, bbox [x, y, w, h] in pixels. ``marks``: for each the word of its difference, or "" for none.
    """
    picture = image.copy()
    size = max(picture.shape[:2])
    line = max(1, round(size / 400))
    scale = max(0.38, size / 2000)
    marks = list(marks) or [""] * len(detections)
    order = sorted(range(len(detections)), key=lambda n: (bool(marks[n]), detections[n]["score"]))
    boxes = []
    for n in order:
        x, y, w, h = detections[n]["bbox"]
        boxes.append((n, MARK if marks[n] else class_colour(detections[n]["label"]), (round(x), round(y)), (round(x + w), round(y + h))))
    for n, colour, first, last in boxes:
        cv2.rectangle(picture, first, last, colour, line * (3 if marks[n] else 1))
    for n, colour, first, _ in boxes:  # after all boxes, so that no line crosses a word
        text = caption(detections[n]["name"], detections[n]["score"]) + (f" {marks[n]}" if marks[n] else "")
        _caption(picture, text, first, colour, scale, line)
    return picture


def _caption(picture: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float, line: int) -> None:
    (width, height), below = cv2.getTextSize(text, _FONT, scale, max(1, line // 2))
    x = min(max(corner[0], 0), max(0, picture.shape[1] - width))
    top = corner[1] - height - below
    top = top if top >= 0 else min(corner[1], picture.shape[0] - height - below)  # inside the box where there is no room above
    top = max(top, 0)
    cv2.rectangle(picture, (x, top), (x + width, top + height + below), colour, cv2.FILLED)
    dark = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 130
    cv2.putText(picture, text, (x, top + height), _FONT, scale, (0, 0, 0) if dark else (255, 255, 255), max(1, line // 2), cv2.LINE_AA)


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str], foot: str = "") -> np.ndarray:
    """Pictures of one height next to each other, a title above each and a line below all."""
    columns = [np.vstack((_band(title, picture.shape[1]), picture)) for title, picture in zip(titles, pictures, strict=True)]
    gap = np.full((columns[0].shape[0], 6, 3), 255, np.uint8)
    row = np.hstack([part for column in columns for part in (gap, column)][1:])
    return np.vstack((row, _band(foot, row.shape[1]))) if foot else row


def _band(text: str, width: int) -> np.ndarray:
    size = max(0.55, width / 2000)
    band = np.full((round(size * 62), width, 3), 32, np.uint8)
    text = text.encode("ascii", "replace").decode()
    (wide, _), _ = cv2.getTextSize(text, _FONT, size, 1)
    scale = size * min(1.0, (width - 12) / max(wide, 1))
    cv2.putText(band, text, (6, round(size * 42)), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return band

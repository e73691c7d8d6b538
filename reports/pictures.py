"""Pictures of the report: the image once as JPEG, the boxes of both sides as vectors on top of it.

Vectors keep the file small and sharp, and let a reader hide boxes below a score. Images come from the
report folder only: a path that leaves it is refused, whatever the result file says.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from reports.source import as_dict, as_list, as_number, as_text
from reports.tables import SIDE_NAMES, SIDES, categories, detection_text, fixed, normal_differences

MAX_PICTURES = 12
MAX_BOXES = 100
LONG_SIDE = 720
JPEG_QUALITY = 82
#: Sum of all encoded images; with it the whole page stays far below 5 MB.
BYTE_BUDGET = 2_400_000
MAX_FILE_BYTES = 64 * 1024 * 1024
#: Boxes below this score are hidden at first, unless they differ; a slider changes it.
FIRST_SCORE = 0.3
#: Two boxes of a result file are the same detection when all four numbers agree to this many pixels
#: and the scores to the second number: the same value printed with fewer digits, not a near miss.
SAME_PRINTED = (1e-2, 1e-4)


@dataclass
class Box:
    """One detection to draw, in pixels of the original image."""

    x: float
    y: float
    w: float
    h: float
    score: float
    label: str
    kind: str = ""
    cause: str = ""

    @property
    def title(self) -> str:
        text = f"{self.label} {fixed(self.score, 4)} [{self.x:.1f}, {self.y:.1f}, {self.w:.1f}, {self.h:.1f}]"
        return f"{text}, {self.kind}: {self.cause}" if self.kind else text


@dataclass
class Picture:
    """One image with both sides' boxes; `data` is base64 JPEG, empty when `problem` says why."""

    name: str
    width: int = 1
    height: int = 1
    data: str = ""
    problem: str = ""
    sides: list[tuple[str, list[Box]]] = field(default_factory=list)
    notes: list[tuple[str, str, str, str]] = field(default_factory=list)


def read_image(folder: Path, path: str) -> tuple[np.ndarray | None, str]:
    """BGR image at `path` below `folder` (or its infer/), or None and the reason."""
    root = folder.resolve()
    for base in (root, root / "infer"):
        try:
            target = (base / path).resolve()
            if not target.is_relative_to(root):
                return None, "its path leads out of the report folder"
            if not target.is_file():
                continue
            if target.stat().st_size > MAX_FILE_BYTES:
                return None, "its file is larger than 64 MiB"
            raw = np.frombuffer(target.read_bytes(), np.uint8)
            image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
        except (OSError, ValueError, cv2.error):
            return None, "its file cannot be read"
        return (image, "") if image is not None else (None, "its file is not an image that can be decoded")
    return None, "its file is not in the report folder"


def encode(image: np.ndarray) -> str:
    """Base64 JPEG with the long side at most LONG_SIDE pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return base64.b64encode(data.tobytes()).decode("ascii") if done else ""


def _box(entry: object, names: dict[str, str]) -> Box | None:
    """A drawable box from a detection, or None when a number is missing or not finite."""
    value = as_dict(entry)
    numbers = [as_number(item) for item in as_list(value.get("bbox"))[:4]]
    if len(numbers) != 4 or any(n is None or not np.isfinite(n) for n in numbers):
        return None
    score = as_number(value.get("score"))
    category = as_text(value.get("category", value.get("category_id")))
    return Box(*numbers, float("nan") if score is None else score, names.get(category, category))


def _same(a: Box, b: Box) -> bool:
    corners = max(abs(a.x - b.x), abs(a.y - b.y), abs(a.w - b.w), abs(a.h - b.h))
    return a.label == b.label and corners <= SAME_PRINTED[0] and abs(a.score - b.score) <= SAME_PRINTED[1]


def build_pictures(folder: Path, infer: dict) -> tuple[list[Picture], int]:
    """(pictures to show, how many are left out); those with differences come first. Where the weights were rounded on purpose, what that changed is marked."""
    found = normal_differences(infer, "weights_change" if infer.get("weights_change") else "detections")
    names = categories(infer)
    entries = [item for item in as_list(infer.get("pictures")) if isinstance(item, dict)]
    by_image: dict[str, list[dict]] = {}
    for one in found:
        by_image.setdefault(one["image_id"], []).append(one)
    entries.sort(key=lambda item: as_text(item.get("image_id")) not in by_image)
    shown, spent = [], 0
    for entry in entries[:MAX_PICTURES]:
        image_id = as_text(entry.get("image_id"))
        picture = Picture(as_text(entry.get("file_name")) or image_id or "(no name)")
        image, picture.problem = read_image(folder, as_text(entry.get("path")))
        if image is not None:
            picture.height, picture.width = image.shape[:2]
            picture.data = encode(image)
            if spent + len(picture.data) > BYTE_BUDGET:
                break
            spent += len(picture.data)
        changes = by_image.get(image_id, [])
        for side, half in zip(SIDES, ("ref", "cand")):
            picture.sides.append((SIDE_NAMES[side], _side_boxes(entry.get(side), changes, half, names)))
        for one in changes:
            texts = [detection_text(one[half]) for half in ("ref", "cand")]
            picture.notes.append((one["kind"], one["cause"], *texts))
        shown.append(picture)
    return shown, len(entries) - len(shown)


def _side_boxes(detections: object, changes: list[dict], half: str, names: dict[str, str]) -> list[Box]:
    """Ordinary boxes first, so that the differing ones are drawn on top of them."""
    special = []
    for one in changes:
        box = _box(one[half], names)
        if box:
            box.kind, box.cause = one["kind"] or "differs", one["cause"]
            special.append(box)
    plain = [box for box in (_box(item, names) for item in as_list(detections)) if box]
    plain = [box for box in plain if not any(_same(box, other) for other in special)]
    plain.sort(key=lambda box: -box.score if box.score == box.score else 0.0)
    return plain[:MAX_BOXES][::-1] + special[:MAX_BOXES]

"""A detection dataset that draws itself: circles, squares, triangles, stars and crosses on busy backgrounds.

Nothing is downloaded and nothing stored: a picture is a function of (seed, index, size). Shapes vary in colour, size,
turn and texture and overlap; backgrounds are plain, graded, noisy or striped and carry clutter that belongs to no
class; about one picture in twelve is empty and about one object in four is small. Class never follows from colour.
"""

from __future__ import annotations

import json
import math
import os

import cv2
import numpy as np

from jt_nanodet.config import DatasetConfig
from jt_nanodet.data.dataset import DetectionDataset
from jt_nanodet.errors import UserError

CLASS_NAMES = ("circle", "square", "triangle", "star", "cross")
#: An object is kept as ground truth when at least this part of it stays visible under later ones.
MIN_VISIBLE = 0.4
#: Pictures a ShapesDataset keeps drawn, at 92 KB each for 192 x 160.
CACHE_BYTES = 256 << 20


def _outline(name: str, radius: float, turn: float) -> np.ndarray:
    """(n, 2) float64 outline about the origin, reaching ``radius`` and turned by ``turn`` radians."""
    if name == "circle":
        angles = np.arange(48) * (2 * math.pi / 48)
        reach = np.ones(48)
    elif name == "square":
        angles, reach = np.arange(4) * (math.pi / 2) + math.pi / 4, np.ones(4)
    elif name == "triangle":
        angles, reach = np.arange(3) * (2 * math.pi / 3) - math.pi / 2, np.ones(3)
    elif name == "star":
        angles = np.arange(10) * (math.pi / 5) - math.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    elif name == "cross":
        arm = 0.32
        points = np.array(
            [
                (-arm, -1),
                (arm, -1),
                (arm, -arm),
                (1, -arm),
                (1, arm),
                (arm, arm),
                (arm, 1),
                (-arm, 1),
                (-arm, arm),
                (-1, arm),
                (-1, -arm),
                (-arm, -arm),
            ]
        )
        angles, reach = np.arctan2(points[:, 1], points[:, 0]), np.hypot(points[:, 0], points[:, 1]) * 0.95
    else:
        raise ValueError(name)
    angles = angles + turn
    return np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=1) * radius


def _background(rng: np.random.RandomState, w: int, h: int) -> np.ndarray:
    """(h, w, 3) float32: two colours blended by a ramp, waves or smooth noise, with clutter and grain."""
    low, high = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    high = low + (high - low) * np.float32(rng.uniform(0.1, 0.6))
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    kind = rng.randint(4)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = (x * math.cos(angle) + y * math.sin(angle)) / max(w, h)
    if kind == 0:
        blend = np.zeros((h, w), np.float32)
    elif kind == 1:
        blend = ramp - ramp.min()
    elif kind == 2:
        blend = 0.5 + 0.5 * np.sin(ramp * np.float32(rng.uniform(8, 40)))
    else:
        blend = cv2.resize(rng.uniform(0, 1, (6, 8)).astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    image = low + blend[..., None].astype(np.float32) * (high - low)
    for _ in range(rng.randint(0, 7)):  # lines: clutter without a class
        ends = [(int(rng.randint(w)), int(rng.randint(h))) for _ in range(2)]
        cv2.line(image, *ends, rng.uniform(0, 255, 3).tolist(), int(rng.randint(1, 3)))
    return image


def _paint(image: np.ndarray, mask: np.ndarray, rng: np.random.RandomState) -> None:
    """Fill the mask with a colour that stands out from what lies below, sometimes striped."""
    under = image[mask].mean(axis=0)
    for _ in range(8):
        colour = rng.uniform(0, 255, 3)
        if np.abs(colour - under).max() > 60:
            break
    else:
        colour = np.where(under > 127, 20.0, 235.0)
    fill = np.broadcast_to(colour.astype(np.float32), image.shape).copy()
    if rng.rand() < 0.3:
        y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
        wave = np.sin((x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) * np.float32(rng.uniform(0.5, 1.2)))
        fill += 22 * wave[..., None].astype(np.float32)
    image[mask] = fill[mask]


def draw_image(seed: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture: BGR uint8 (h, w, 3), boxes (n, 4) xyxy float32 in pixels, labels (n,) int64.

    A box is the hull of the whole object inside the picture, hidden parts included, as annotators draw it.
    """
    w, h = size
    rng = np.random.RandomState((int(seed) * 1_000_003 + int(index)) % 2**32)
    image = _background(rng, w, h)
    count = 0 if rng.rand() < 1 / 12 else int(rng.randint(1, 7))
    boxes, labels, masks = [], [], []
    for _ in range(count):
        label = int(rng.randint(len(CLASS_NAMES)))
        small = rng.rand() < 0.25
        radius = rng.uniform(0.035, 0.07) * min(w, h) if small else rng.uniform(0.08, 0.26) * min(w, h)
        middle = rng.uniform(0.02, 0.98, 2) * (w, h)
        points = _outline(CLASS_NAMES[label], radius, rng.uniform(-0.5, 0.5)) + middle
        mask = np.zeros((h, w), np.uint8)
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, shift=4)
        mask = mask.astype(bool)
        whole = 0.5 * abs(np.sum(points[:, 0] * np.roll(points[:, 1], 1) - points[:, 1] * np.roll(points[:, 0], 1)))
        if mask.sum() < max(9.0, MIN_VISIBLE * whole):
            continue  # mostly outside the picture
        low, high = points.min(0).clip(0, (w, h)), points.max(0).clip(0, (w, h))
        part = (slice(int(low[1]), int(high[1]) + 2), slice(int(low[0]), int(high[0]) + 2))
        _paint(image[part], mask[part], rng)
        boxes.append([*low, *high])
        labels.append(label)
        masks.append(mask)
    covered = np.zeros((h, w), bool)
    visible = []
    for n in range(len(masks) - 1, -1, -1):
        if (masks[n] & ~covered).sum() >= MIN_VISIBLE * masks[n].sum():
            visible.append(n)
        covered |= masks[n]
    visible.sort()
    image += rng.normal(0, rng.uniform(1, 7), (h, w, 1)).astype(np.float32)
    picture = cv2.GaussianBlur(np.clip(image, 0, 255), (3, 3), rng.uniform(0.3, 0.8))
    return (
        np.round(picture).astype(np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4)[visible],
        np.array(labels, np.int64)[visible],
    )


def shapes_coco(seed: int, count: int, size: tuple[int, int], draw=draw_image) -> dict:
    """COCO dictionary of the pictures 0 … count - 1; image ids and category ids start at 1."""
    images, annotations = [], []
    for index in range(count):
        _, boxes, labels = draw(seed, index, size)
        images.append({"id": index + 1, "file_name": f"{index:06d}.png", "width": size[0], "height": size[1]})
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
            w, h = x2 - x1, y2 - y1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(CLASS_NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


class ShapesDataset(DetectionDataset):
    """``count`` pictures of ``image_size`` drawn from ``seed``; they stay in memory up to CACHE_BYTES."""

    def __init__(self, config: DatasetConfig, mode: str = "train"):
        if config.class_names is not None and tuple(config.class_names) != CLASS_NAMES:
            raise UserError(
                f"ShapesDataset draws the classes {', '.join(CLASS_NAMES)}; write class_names: "
                f"[{', '.join(CLASS_NAMES)}]"
            )
        self._cache: dict[int, np.ndarray] = {}
        super().__init__(config, mode)

    @property
    def source(self) -> str:
        return f"ShapesDataset seed {self.config.seed}"

    def read(self) -> dict:
        return shapes_coco(self.config.seed, self.config.count, self.config.image_size, self._draw)

    def _draw(self, seed: int, index: int, size: tuple[int, int]):
        picture, boxes, labels = draw_image(seed, index, size)
        if (len(self._cache) + 1) * picture.nbytes <= CACHE_BYTES:
            self._cache[index] = picture
        return picture, boxes, labels

    def _check_files(self) -> None:
        """Nothing lies on a disk."""

    def image_path(self, index: int) -> str:
        return f"drawn picture {index} (seed {self.config.seed})"

    def load(self, index: int) -> np.ndarray:
        if index not in self._cache:
            self._draw(self.config.seed, index, self.config.image_size)
        found = self._cache.get(index)
        return draw_image(self.config.seed, index, self.config.image_size)[0] if found is None else found


def draw_dataset(folder, count: int, seed: int, size: tuple[int, int] = (192, 160)) -> str:
    """Write ``count`` PNG pictures and ``annotations.json`` into ``folder``; returns the path of the annotations.

    Every file appears under its name only when it is complete, the annotations last. UserError when the folder cannot
    be written.
    """
    folder = str(folder)
    try:
        os.makedirs(folder, exist_ok=True)

        def draw_and_write(seed: int, index: int, size: tuple[int, int]):
            picture, boxes, labels = draw_image(seed, index, size)
            _write(os.path.join(folder, f"{index:06d}.png"), cv2.imencode(".png", picture)[1].tobytes())
            return picture, boxes, labels

        coco = shapes_coco(seed, count, size, draw_and_write)
        path = os.path.join(folder, "annotations.json")
        _write(path, json.dumps(coco).encode())
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the drawn dataset ({error.strerror}); give a folder that can be written"
        ) from None
    return path


def _write(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as f:
            f.write(data)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)

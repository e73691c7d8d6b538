"""YoloDataset: one text file a picture, turned into COCO's layout by upstream's rules "
"(``nanodet/data/dataset/yolo.py``)."""

from __future__ import annotations

import math
import os

import numpy as np

from jt_nanodet.data.dataset import DetectionDataset
from jt_nanodet.data.images import image_size
from jt_nanodet.data.voc import files_below
from jt_nanodet.errors import UserError

#: Endings looked for beside a text file, in upstream's order.
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tiff")


class YoloDataset(DetectionDataset):
    """Lines ``class x y w h`` (centre and size as parts of the picture) in ``ann_path``, the pictures beside them.

    A text file without a picture, and a line of a class that ``class_names`` lacks, is left out and counted in
    ``warnings``.
    """

    def read(self) -> dict:
        config = self.config
        images, annotations, alone, unknown = [], [], [], 0
        for n, file in enumerate(files_below(config.ann_path, ".txt")):
            stem = os.path.splitext(file)[0]
            picture = next((stem + e for e in PICTURES if os.path.exists(stem + e)), None)
            if picture is None:
                alone.append(file)
                continue
            width, height = image_size(picture)
            images.append(
                {"id": n + 1, "file_name": os.path.relpath(picture, config.ann_path), "width": width, "height": height}
            )
            for label, box in _read_lines(file, width, height):
                if not 0 <= label < len(config.class_names):
                    unknown += 1
                    continue
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": n + 1,
                        "category_id": label + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        if alone:
            self.warnings.append(
                f"{len(alone)} text files left out because no picture lies beside them (for example {alone[0]})"
            )
        if unknown:
            self.warnings.append(
                f"{unknown} boxes left out because class_names has only {len(config.class_names)} entries"
            )
        return {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": n + 1, "name": name} for n, name in enumerate(config.class_names)],
        }


def _read_lines(path: str, width: int, height: int) -> list[tuple[int, list[int]]]:
    """(class number, [x, y, w, h] in whole pixels) of each line; boxes with a negative side are left out."""
    out = []
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.read().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot read the annotation; mend or remove the file") from None
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, cx, cy, w, h = (float(t) for t in line.split())
            if not all(map(math.isfinite, (label, cx, cy, w, h))):
                raise ValueError
            # numpy rounds halves to even, as upstream does
            x, y, w, h = (
                np.round([(cx - w * 0.5) * width, (cy - h * 0.5) * height, w * width, h * height]).astype(int).tolist()
            )
            label = int(label)
        except (ValueError, OverflowError):
            raise UserError(f"{path}: line {n} is {line.strip()[:40]!r}; write class x y width height") from None
        if w < 0 or h < 0:
            continue
        out.append((label, [max(x, 0), max(y, 0), min(w, width), min(h, height)]))
    return out

"""What every dataset shares: a compact index of pictures and boxes, and one sample drawn from one seed.

Subclasses turn their files into one dictionary in COCO's layout; upstream's selection rules are applied to it once
(``nanodet/data/dataset/coco.py``). The index is a handful of arrays, so that a worker process gets it quickly.
"""

from __future__ import annotations

import os
import random

import numpy as np

from jt_nanodet.config import DatasetConfig
from jt_nanodet.data.cocofile import as_coco
from jt_nanodet.data.images import read_image
from jt_nanodet.data.sampler import sample_seed
from jt_nanodet.data.transforms import apply_pipeline, draw_frame
from jt_nanodet.data.warp import warp_boxes
from jt_nanodet.errors import UserError


class DetectionDataset:
    """Pictures with boxes, in order of image id.

    ``mode`` is train, val or test; val and test check that the pictures exist and have the annotated size.
    Labels are positions in ``cat_ids`` (sorted category ids); ``class_names`` goes with them.
    """

    def __init__(self, config: DatasetConfig, mode: str = "test"):
        if mode not in ("train", "val", "test"):
            raise ValueError(f"mode {mode!r}: use train, val or test")
        self.config, self.mode = config, mode
        self.warnings: list[str] = []
        self._coco_dict = self.read()
        self._coco = None
        self._index(self._coco_dict)
        if mode == "train":
            self._coco_dict = None  # read again should an evaluator ask; the index is all that training needs
        self._check_files()

    def read(self) -> dict:
        """The annotations as a dictionary with images, annotations and categories."""
        raise NotImplementedError

    def _index(self, coco: dict) -> None:
        categories = sorted(coco["categories"], key=lambda c: c["id"])
        self.cat_ids = [c["id"] for c in categories]
        self.class_names = [c["name"] for c in categories]
        label_of = {c: i for i, c in enumerate(self.cat_ids)}
        images = sorted(coco["images"], key=lambda i: i["id"])
        if not images:
            raise UserError(f"{self.source}: lists no image; give annotations that do")
        self.ids = np.array([i["id"] for i in images], np.int64)
        self.sizes = np.array([(i["width"], i["height"]) for i in images], np.int64)
        self.file_names = [i["file_name"] for i in images]
        at = {int(i): n for n, i in enumerate(self.ids)}
        rows = [[] for _ in images]
        for a in coco["annotations"]:
            x, y, w, h = a["bbox"]
            # upstream's rule: slivers go, and so does what has no category here
            if a.get("area", w * h) <= 0 or w < 1 or h < 1 or a["category_id"] not in label_of:
                continue
            ignored = bool(a.get("iscrowd", False) or a.get("ignore", False))
            rows[at[a["image_id"]]].append((x, y, x + w, y + h, label_of[a["category_id"]], ignored))
        flat = [r for row in rows for r in row]
        self.offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        self.boxes = np.array([r[:4] for r in flat], np.float32).reshape(-1, 4)
        self.labels = np.array([r[4] for r in flat], np.int64)
        self.ignored = np.array([r[5] for r in flat], bool)

    @property
    def source(self) -> str:
        """What error messages call this dataset."""
        return self.config.ann_path or self.config.name

    def _check_files(self) -> None:
        """Refuse annotations that belong to another folder; training keeps going when only some pictures lack."""
        folder = self.config.img_path
        if not os.path.isdir(folder):
            raise UserError(f"{folder}: there is no such folder of images; mend img_path in the configuration")
        present = {e.name for e in os.scandir(folder)}
        lacking = [
            n
            for n in self.file_names
            if (n not in present if os.path.basename(n) == n else not os.path.exists(os.path.join(folder, n)))
        ]
        if len(lacking) == len(self.file_names):
            raise UserError(
                f"{self.source}: none of its {len(lacking)} images is in {folder} (for example {lacking[0]}); give "
                "the annotations made for that folder"
            )
        if lacking and self.mode != "train":
            raise UserError(
                f"{self.source}: {len(lacking)} of its {len(self.file_names)} images are not in {folder} (for "
                f"example {lacking[0]}); give the annotations made for that folder"
            )
        if lacking:
            self.warnings.append(
                f"{len(lacking)} of {len(self.file_names)} images are not in {folder} (for example {lacking[0]})"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self):
        return {**self.__dict__, "_coco": None, "_coco_dict": None}

    @property
    def coco(self):
        """The pycocotools object of the annotations, for evaluation."""
        if self._coco is None:
            self._coco = as_coco(self._coco_dict if self._coco_dict is not None else self.read())
        return self._coco

    def image_path(self, index: int) -> str:
        """Where the picture lies, or what stands for it in messages."""
        return os.path.join(self.config.img_path, self.file_names[index])

    def load(self, index: int) -> np.ndarray:
        """The picture as BGR uint8; raises UnreadableImage."""
        return read_image(self.image_path(index))

    def info(self, index: int) -> dict:
        """id, file_name, height and width of the annotated picture."""
        return {
            "id": int(self.ids[index]),
            "file_name": self.file_names[index],
            "height": int(self.sizes[index, 1]),
            "width": int(self.sizes[index, 0]),
        }

    def annotation(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4) xyxy float32, labels (n,) int64, ignored boxes (m, 4): crowds and boxes marked ignore."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        boxes, keep = self.boxes[part], ~self.ignored[part]
        return boxes[keep], self.labels[part][keep], boxes[~keep]

    def sample(self, index: int, rng) -> dict:
        """One sample drawn from ``rng``: the frame's factor first, then shape, then colour, as upstream."""
        image = self.load(index)
        info = self.info(index)
        if self.mode != "train" and sorted(image.shape[:2]) != sorted((info["height"], info["width"])):
            raise UserError(
                f"{self.source}: says {info['width']}x{info['height']} of {self.image_path(index)}, which has "
                f"{image.shape[1]}x{image.shape[0]} pixels; give the annotations made for these images"
            )
        config = self.config
        frame = draw_frame(config.multi_scale, config.input_size, rng)
        pixels, matrix = apply_pipeline(image, config.pipeline, frame, config.keep_ratio, rng)
        width, height = pixels.shape[2], pixels.shape[1]
        boxes, labels, ignored = self.annotation(index)
        return {
            "img": pixels,
            "img_info": info,
            "warp_matrix": matrix,
            "gt_bboxes": warp_boxes(boxes, matrix, width, height),
            "gt_labels": labels,
            "gt_bboxes_ignore": warp_boxes(ignored, matrix, width, height),
        }

    def draw(self, index: int, seed: int) -> dict:
        """The sample that a whole-number seed gives; the same in every process."""
        return self.sample(index, random.Random(seed))

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.draw(index, sample_seed(0, 0, index))

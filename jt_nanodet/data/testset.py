"""What `test` and the comparison run on: a configuration's validation set, a folder of pictures, or a folder with annotations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from jt_nanodet.config import Config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.batches import batches
from jt_nanodet.data.images import image_size, list_images, read_image
from jt_nanodet.data.transforms import preprocess_image
from jt_nanodet.errors import UserError


class FolderOfImages:
    """Pictures without annotations: ids 1, 2, … in order of name, categories 1 … C."""

    coco = None

    def __init__(self, folder, config: Config):
        self.source, self.paths, self.val = str(folder), list_images(folder), config.data.val
        self.cat_ids = list(range(1, config.model.arch.head.num_classes + 1))
        self.class_names = list(config.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    def image_path(self, index: int) -> str:
        return self.paths[index]

    def load(self, index: int) -> np.ndarray:
        return read_image(self.paths[index])

    def info(self, index: int) -> dict:
        width, height = image_size(self.paths[index])
        return {"id": index + 1, "file_name": Path(self.paths[index]).name, "height": height, "width": width}

    def __getitem__(self, index: int) -> dict:
        image = self.load(index)
        pixels, matrix = preprocess_image(image, self.val.input_size, self.val.keep_ratio, self.val.pipeline.normalize)
        info = {**self.info(index), "height": image.shape[0], "width": image.shape[1]}
        nothing = np.zeros((0, 4), np.float32)
        return {
            "img": pixels,
            "img_info": info,
            "warp_matrix": matrix,
            "gt_bboxes": nothing,
            "gt_labels": np.zeros(0, np.int64),
            "gt_bboxes_ignore": nothing,
        }


def open_test_set(config: Config, images=None, annotations=None):
    """The data set to run on; `coco` of what is returned is None without annotations. UserError for what does not fit."""
    if images is None and annotations is not None:
        raise UserError("annotations without pictures: give the folder of the images too")
    if images is None:
        return build_dataset(config.data.val, "test", config.model.arch.head.num_classes)
    if annotations is None:
        return FolderOfImages(images, config)
    chosen = dataclasses.replace(config.data.val, name="CocoDataset", img_path=str(images), ann_path=str(annotations))
    return build_dataset(chosen, "test", config.model.arch.head.num_classes)


def test_batches(dataset, batch_size: int, count: int | None = None):
    """Batches of the first `count` samples, or of all, in order."""
    return batches(dataset, range(len(dataset) if count is None else min(count, len(dataset))), batch_size)

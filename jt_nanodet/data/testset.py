"""What `test` and the comparison run on: a configuration's validation set, pictures (a folder, one file, a video's frames), or a folder with annotations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from jt_nanodet.config import Config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.batches import batches
from jt_nanodet.data.images import EXTENSIONS, image_size, list_images, read_image
from jt_nanodet.data.transforms import preprocess_image
from jt_nanodet.errors import UserError


VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


class FolderOfImages:
    """Pictures without annotations, a folder of them or a single file: ids 1, 2, … in order of name, categories 1 … C."""

    coco = None

    def __init__(self, folder, config: Config):
        self.source, self.val = str(folder), config.data.val
        self.paths = self.found(folder)
        self.cat_ids = list(range(1, config.model.arch.head.num_classes + 1))
        self.class_names = list(config.class_names)

    def found(self, folder) -> list[str]:
        return [str(folder)] if Path(folder).is_file() else list_images(folder)

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
        info = {"id": index + 1, "file_name": Path(self.paths[index]).name, "height": image.shape[0], "width": image.shape[1]}
        nothing = np.zeros((0, 4), np.float32)
        return {
            "img": pixels,
            "img_info": info,
            "warp_matrix": matrix,
            "gt_bboxes": nothing,
            "gt_labels": np.zeros(0, np.int64),
            "gt_bboxes_ignore": nothing,
        }


class VideoFrames(FolderOfImages):
    """A video's frames as pictures ``NAME#000001``, …; read in order, so that no seek decides which frame is meant. One frame is in memory."""

    def found(self, folder) -> list[str]:
        """Every frame is read once to count them: what a container says about its length is a guess."""
        self.video, self.reader, self.place = str(folder), cv2.VideoCapture(str(folder)), 0
        count = 0
        while self.reader.grab():
            count += 1
        if count == 0:
            raise UserError(f"{folder} holds no frame that OpenCV can read; give a video such as .mp4 or .avi, or a folder of pictures")
        self._rewind()
        return [f"{folder}#{number:06d}" for number in range(1, count + 1)]

    def _rewind(self) -> None:
        self.reader.release()
        self.reader, self.place = cv2.VideoCapture(self.video), 0

    def load(self, index: int) -> np.ndarray:
        if index < self.place:
            self._rewind()
        while self.place < index and self.reader.grab():
            self.place += 1
        good, frame = self.reader.read()
        if not good:
            raise UserError(f"frame {index + 1} of {self.video} cannot be read a second time; convert the video, or give --limit {index}")
        self.place = index + 1
        return frame

    def info(self, index: int) -> dict:
        height, width = self.load(index).shape[:2]
        return {"id": index + 1, "file_name": Path(self.paths[index]).name, "height": height, "width": width}


def open_test_set(config: Config, images=None, annotations=None):
    """The data set to run on; `coco` of what is returned is None without annotations. UserError for what does not fit."""
    if images is None and annotations is not None:
        raise UserError("annotations without pictures: give the folder of the images too")
    if images is None:
        return build_dataset(config.data.val, "test", config.model.arch.head.num_classes)
    if annotations is None:
        if Path(images).is_file() and not str(images).lower().endswith(EXTENSIONS):
            if not str(images).lower().endswith(VIDEOS):
                raise UserError(f"{images} is neither a picture nor a video by its name; give {', '.join(EXTENSIONS)}, {', '.join(VIDEOS)} or a folder")
            return VideoFrames(images, config)
        return FolderOfImages(images, config)
    chosen = dataclasses.replace(config.data.val, name="CocoDataset", img_path=str(images), ann_path=str(annotations))
    return build_dataset(chosen, "test", config.model.arch.head.num_classes)


def test_batches(dataset, batch_size: int, count: int | None = None):
    """Batches of the first `count` samples, or of all, in order."""
    return batches(dataset, range(len(dataset) if count is None else min(count, len(dataset))), batch_size)

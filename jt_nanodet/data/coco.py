"""CocoDataset: one annotation file and one folder."""

from __future__ import annotations

from jt_nanodet.data.cocofile import read_coco
from jt_nanodet.data.dataset import DetectionDataset


class CocoDataset(DetectionDataset):
    """Pictures under ``img_path`` with the COCO annotation file ``ann_path``."""

    def read(self) -> dict:
        return read_coco(self.config.ann_path)

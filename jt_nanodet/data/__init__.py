"""Datasets, warping, colour, batches and COCO's metric; imports neither Jittor nor PyTorch.

picture -> ``images`` -> ``transforms`` (matrices in ``warp``) -> sample -> ``batches`` or ``loader`` -> model
detections -> ``evaluator`` -> the 12 COCO numbers
"""

from __future__ import annotations

from jt_nanodet.config import DatasetConfig
from jt_nanodet.errors import UserError


def build_dataset(config: DatasetConfig, mode: str, num_classes: int | None = None):
    """The dataset that ``config.name`` names; with ``num_classes`` its classes must fit the model's."""
    from jt_nanodet.data.coco import CocoDataset
    from jt_nanodet.data.shapes import ShapesDataset
    from jt_nanodet.data.voc import XMLDataset
    from jt_nanodet.data.yolo import YoloDataset

    kinds = {
        "CocoDataset": CocoDataset,
        "XMLDataset": XMLDataset,
        "YoloDataset": YoloDataset,
        "ShapesDataset": ShapesDataset,
    }
    dataset = kinds[config.name](config, mode)
    if num_classes is not None and len(dataset.cat_ids) > num_classes:
        raise UserError(
            f"{dataset.source}: has {len(dataset.cat_ids)} classes and the model {num_classes}; set num_classes to "
            f"{len(dataset.cat_ids)}"
        )
    return dataset

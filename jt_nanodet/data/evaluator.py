"""Detections to COCO's numbers: unwarp, the 12 metrics of pycocotools, AP of every class (upstream "
"``evaluator/coco_detection.py``)."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np

from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.data.cocofile import as_coco, read_coco
from jt_nanodet.data.warp import unwarp_boxes
from jt_nanodet.errors import UserError


def detections_to_coco(
    dets: np.ndarray, labels: np.ndarray, img_info: dict, warp_matrix: np.ndarray, cat_ids
) -> list[dict]:
    """Detections of one picture as COCO result entries.

    ``dets`` (n, 5) float32 [x1, y1, x2, y2, score] in input pixels, ``labels`` (n,) positions in ``cat_ids``. Boxes are
    brought back by the inverse matrix and clipped to the picture, in float32; entries stand class by class, in order
    of detection within a class, because the metric breaks ties of the score by place.
    """
    dets = np.asarray(dets, np.float32).reshape(-1, 5)
    labels = np.asarray(labels).reshape(-1)
    if len(labels) and labels.max() >= len(cat_ids):
        raise UserError(
            f"a detection has class number {int(labels.max())} but the annotations name {len(cat_ids)} classes; "
            "use annotations with the classes the model was trained on"
        )
    boxes = unwarp_boxes(dets[:, :4], warp_matrix, img_info["width"], img_info["height"])
    entries = []
    for n in np.argsort(labels, kind="stable"):
        x1, y1, x2, y2 = boxes[n].tolist()
        entries.append(
            {
                "image_id": int(img_info["id"]),
                "category_id": int(cat_ids[labels[n]]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(dets[n, 4]),
            }
        )
    return entries


class CocoEvaluator:
    """COCO's bounding-box metric against one set of annotations.

    ``truth`` is a dataset of this package, a pycocotools COCO object, or the path of an annotation file.
    """

    def __init__(self, truth):
        if isinstance(truth, (str, bytes)) or hasattr(truth, "__fspath__"):
            self.coco = as_coco(read_coco(truth))
        else:
            self.coco = truth if hasattr(truth, "imgToAnns") else truth.coco
        self.cat_ids = sorted(self.coco.getCatIds())
        self.class_names = [c["name"] for c in self.coco.loadCats(self.cat_ids)]

    def evaluate(self, detections: list[dict]) -> dict:
        """The 12 numbers, ``per_class`` and ``per_class_AP_50``, as fractions; -1 where no such object exists.

        Both tables map a class name to its AP, or None for a class without a box. Without detections all is 0 and
        ``note`` says so. UserError for a detection of an unknown image or category, or one that is not finite.
        """
        self.check(detections)
        if not detections:
            zeros = {n: 0.0 for n in self.class_names}
            return {
                **{n: 0.0 for n in METRIC_NAMES},
                "per_class": zeros,
                "per_class_AP_50": dict(zeros),
                "note": "no detections: every number is 0",
            }
        return self.metrics_of(self.accumulated(detections))

    def metrics_of(self, run) -> dict:
        """What `evaluate` returns, from an evaluation that `accumulated` made."""
        with contextlib.redirect_stdout(io.StringIO()):
            run.summarize()
        metrics = {name: float(v) for name, v in zip(METRIC_NAMES, run.stats)}
        precision = run.eval["precision"]  # (IoU thresholds, recalls, classes, area ranges, detections an image)
        metrics["per_class"] = {n: _mean(precision[:, :, k, 0, -1]) for k, n in enumerate(self.class_names)}
        metrics["per_class_AP_50"] = {n: _mean(precision[0, :, k, 0, -1]) for k, n in enumerate(self.class_names)}
        return metrics

    def accumulated(self, detections: list[dict]):
        """pycocotools' evaluation of checked, non-empty `detections`, matched and accumulated."""
        from pycocotools.cocoeval import COCOeval

        class Evaluation(COCOeval):
            """COCOeval overwrites ``ignore`` with ``iscrowd``; here an object marked ignore (VOC's difficult ones) is neither asked for nor an error."""

            def _prepare(self):
                super()._prepare()
                for entries in self._gts.values():
                    for entry in entries:
                        entry["ignore"] = int(entry["iscrowd"] or marked.get(entry["id"], False))

        marked = {entry["id"]: bool(entry.get("ignore")) for entry in self.coco.dataset["annotations"]}
        with contextlib.redirect_stdout(io.StringIO()):
            # loadRes writes fields into what it is given: hand it copies, the caller's list stays as it was
            found = self.coco.loadRes([dict(d) for d in detections])
            run = Evaluation(self.coco, found, "bbox")
            run.evaluate()
            run.accumulate()
        return run

    def check(self, detections: list[dict]) -> None:
        images, categories = set(self.coco.getImgIds()), set(self.cat_ids)
        for d in detections:
            if d["image_id"] not in images:
                raise UserError(
                    f"a detection is about image {d['image_id']}, which the annotations do not list; use the "
                    "annotation file made for these images"
                )
            if d["category_id"] not in categories:
                raise UserError(
                    f"a detection has category {d['category_id']}, which the annotations do not list; use "
                    "annotations with the classes the model was trained on"
                )
            if not all(map(math.isfinite, (*d["bbox"], d["score"]))):
                raise UserError(
                    f"a detection on image {d['image_id']} holds a number that is not finite; check the weights for NaN"
                )


def _mean(precision: np.ndarray) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None

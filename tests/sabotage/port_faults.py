"""What can be wrong in the port: each function plants one fault in a `tests.sabotage.port.Port`, through pytest's monkeypatch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jt_nanodet import postprocess, tester
from jt_nanodet.data import evaluator, warp

MEAN, STD = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.12, 58.395])


def every(kind: str, **attributes: Any) -> Callable:
    """Attributes of all modules of one type."""
    def plant(port, patch):
        for module in port.modules(kind).values():
            for name, value in attributes.items():
                assert getattr(module, name) != value
                setattr(module, name, value)
    return plant


def one(path: str, **attributes: Any) -> Callable:
    def plant(port, patch):
        for name, value in attributes.items():
            assert getattr(port.modules()[path], name) != value
            setattr(port.modules()[path], name, value)
    return plant


def weight(path: str, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """An entry of the loaded model; the file stays right."""
    def plant(port, patch):
        held = getattr(port.modules()[path], name)
        held.update(port.backend.tensor(np.ascontiguousarray(change(held.numpy()))))
        port.backend.jt.sync([held])
    return plant


def training_mode(port, patch):
    port.model.train()


def shuffle_with_groups_and_channels_swapped(port, patch):
    from jt_nanodet import backbone

    def shuffle(x, groups):
        b, c, h, w = x.shape
        return x.reshape(b, c // groups, groups, h, w).transpose(1, 2).reshape(b, c, h, w)
    patch.setattr(backbone, "channel_shuffle", shuffle)


def cheap_half_first(port, patch):
    from jt_nanodet import neck

    def execute(self, x):
        primary = self.primary_conv(x)
        return neck.jt.concat((self.cheap_operation(primary), primary), dim=1)
    patch.setattr(neck.GhostModule, "execute", execute)


def scores(change: Callable) -> Callable:
    """Another way from logits to scores."""
    def plant(port, patch):
        decode = port.backend.decoding
        honest = decode.decode
        patch.setattr(decode, "decode", lambda raw, integral, cfg, hw: (honest(raw, integral, cfg, hw)[0], change(raw[..., :cfg.num_classes])))
    return plant


def grid(change: Callable) -> Callable:
    """Another grid of priors: change(honest, input_hw, strides)."""
    def plant(port, patch):
        decode = port.backend.decoding
        patch.setattr(decode, "center_priors", functools.partial(change, decode.center_priors))
    return plant


def floored_grid(honest, input_hw, strides):
    """The last row of cells is lost where a stride does not divide the height."""
    return np.concatenate([honest([size // stride * stride for size in input_hw], [stride]) for stride in strides])


def boxes_not_clipped_to_the_input(port, patch):
    decode = port.backend.decoding
    honest = decode.distance_to_xyxy
    patch.setattr(decode, "distance_to_xyxy", lambda center, ltrb, max_hw: honest(center, ltrb))


def recording_changes_the_result(port, patch):
    honest = port.backend.decode

    def untapped(images):
        found = honest(images)
        return {**found, "raw": np.nextafter(found["raw"], np.float32(np.inf))}
    patch.setattr(port.backend, "decode", untapped)


def pixels(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Another preprocessing: change(pixels before normalisation (B, 3, H, W))."""
    def plant(port, patch):
        honest, mean, std = tester.test_batches, MEAN[:, None, None], STD[:, None, None]

        def batches(*given):
            for batch in honest(*given):
                yield {**batch, "img": change(batch["img"] * std + mean).astype(np.float32)}
        patch.setattr(tester, "test_batches", batches)
    return plant


def normalised(x: np.ndarray, mean: np.ndarray = MEAN, std: np.ndarray = STD) -> np.ndarray:
    return (x - mean[:, None, None]) / std[:, None, None]


def postprocessing(**changed: Any) -> Callable:
    """The port's own suppression with other settings."""
    def plant(port, patch):
        patch.setattr(tester, "multiclass_nms", functools.partial(postprocess.multiclass_nms, **changed))
    return plant


def suppression(boxes, iou_threshold, max_keep, closed=False, plus=0):
    """Greedy suppression over boxes sorted best first, with the faults of others: IoU >= threshold, sides that are one longer."""
    keep = []
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        for k in keep:
            a1, b1, a2, b2 = boxes[k]
            inter = max(min(x2, a2) - max(x1, a1) + plus, 0) * max(min(y2, b2) - max(y1, b1) + plus, 0)
            areas = [(right - left + plus) * (low - high + plus) for left, high, right, low in ((x1, y1, x2, y2), (a1, b1, a2, b2))]
            overlap = inter / (sum(areas) - inter)
            if overlap > iou_threshold or closed and overlap == iou_threshold:
                break
        else:
            keep.append(i)
    return np.array(keep[:max_keep], np.int64)


def overlap_rule(offset: bool = True, **changed: Any) -> Callable:
    """The suppression that many ports write themselves, in place of the port's kernel; offset: classes are kept apart."""
    def nms(boxes, found, iou_threshold=postprocess.IOU_THRESHOLD):
        prior, label = np.nonzero(found > np.float32(postprocess.SCORE_THRESHOLD))
        order = np.argsort(-found[prior, label], kind="stable")
        shifted = boxes[prior] + (label.astype(np.float32) * (boxes[prior].max(initial=0) + 1))[:, None] * np.float32(offset)
        keep = order[suppression(shifted[order], iou_threshold, postprocess.MAX_DETECTIONS, **changed)]
        return np.concatenate((boxes[prior[keep]], found[prior, label][keep, None]), 1), label[keep], prior[keep]

    def plant(port, patch):
        patch.setattr(tester, "multiclass_nms", nms)
    return plant


class_offset_left_out = overlap_rule(offset=False)


def closed_score_threshold(port, patch):
    honest = postprocess.multiclass_nms
    patch.setattr(tester, "multiclass_nms", lambda boxes, found, **named: honest(boxes, np.where(found == np.float32(0.05), np.nextafter(found, np.float32(1)), found), **named))


def best_hundred_before_suppression(port, patch):
    honest = postprocess.multiclass_nms

    def nms(boxes, found, **named):
        best = np.sort(found, axis=None)[-100:].min()
        return honest(boxes, np.where(found >= best, found, 0), **named)
    patch.setattr(tester, "multiclass_nms", nms)


def ties_by_the_higher_index(port, patch):
    honest = postprocess.multiclass_nms

    def nms(boxes, found, **named):
        return honest(boxes[::-1], found[::-1], **named)
    patch.setattr(tester, "multiclass_nms", nms)


def whole_pixels(port, patch):
    honest = tester.detections_to_coco
    patch.setattr(tester, "detections_to_coco", lambda dets, *rest: honest(np.trunc(dets[:, :5] * [1, 1, 1, 1, 0]) + dets[:, :5] * [0, 0, 0, 0, 1], *rest))


def unwarp(change: Callable) -> Callable:
    def plant(port, patch):
        patch.setattr(evaluator, "unwarp_boxes", change)
    return plant


def forward_matrix(boxes, matrix, width, height):
    return warp.warp_boxes(boxes, matrix, width, height)


def not_clipped(boxes, matrix, width, height):
    inverse = np.linalg.inv(matrix)
    return (boxes * inverse[[0, 1, 0, 1], [0, 1, 0, 1]] + inverse[[0, 1, 0, 1], 2]).astype(np.float32)

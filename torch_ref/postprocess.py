"""Score filter, class-wise NMS, best detections (`nanodet/model/module/nms.py`); conventions in docs/conventions.md.

Order: score > threshold, then class offset, sort, suppress when IoU > threshold, then the best `MAX_DETECTIONS`.
"""
import torch

SCORE_THRESHOLD = 0.05
IOU_THRESHOLD = 0.6
MAX_DETECTIONS = 100


def multiclass_nms(boxes, scores, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS):
    """One image: boxes (P, 4) xyxy and scores (P, C) to detections (n, 5) x1, y1, x2, y2, score, labels (n,) and priors (n,).

    Best score first, ties by the lower (prior, class) index; n is at most max_detections. priors: the row of `boxes` each came from.
    """
    prior, label = torch.nonzero(scores > score_threshold, as_tuple=True)
    boxes, scores = boxes[prior], scores[prior, label]
    if len(prior) == 0:
        return torch.zeros((0, 5)), label, prior
    # each class is moved to a place of its own, in float32 as upstream does: the rounding is part of the answer
    shifted = boxes + (label.to(boxes.dtype) * (boxes.max() + 1))[:, None]
    order = torch.sort(scores, descending=True, stable=True).indices
    keep = greedy_nms(shifted[order], iou_threshold, max_detections)
    order = order[keep]
    return torch.cat((boxes[order], scores[order, None]), dim=1), label[order], prior[order]


def greedy_nms(boxes, iou_threshold, max_keep):
    """Indices (k,) of the boxes (n, 4), sorted best first, that survive; stops after max_keep, which no later box can change."""
    x1, y1, x2, y2 = boxes.unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    keep = []
    while len(keep) < max_keep:
        left = torch.nonzero(alive)
        if len(left) == 0:
            break
        i = int(left[0])
        keep.append(i)
        width = (torch.minimum(x2[i], x2) - torch.maximum(x1[i], x1)).clamp(min=0)
        height = (torch.minimum(y2[i], y2) - torch.maximum(y1[i], y1)).clamp(min=0)
        inter = width * height
        # in double as torchvision's CPU kernel compares: the float32 nearest to 0.6 lies above 0.6
        alive &= ~((inter / (areas[i] + areas - inter)).double() > iou_threshold)
        alive[i] = False  # a box without area has no IoU, not even with itself
    return torch.tensor(keep, dtype=torch.long)

"""Score filter, class-wise NMS, best detections (`nanodet/model/module/nms.py`); conventions in docs/conventions.md.

Order: score > threshold, then class offset, sort, suppress when IoU > threshold, then the best `MAX_DETECTIONS`.
"""
import numpy as np  # differs: a greedy loop on Vars would wait for the device at every step

SCORE_THRESHOLD = 0.05
IOU_THRESHOLD = 0.6
MAX_DETECTIONS = 100


def multiclass_nms(boxes, scores, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS):
    """One image: boxes (P, 4) xyxy and scores (P, C) to detections (n, 5) x1, y1, x2, y2, score, labels (n,) and priors (n,).

    Best score first, ties by the lower (prior, class) index; n is at most max_detections. priors: the row of `boxes` each came from.
    # differs: the project's own kernel; NumPy arrays or Vars in, NumPy arrays out
    """
    return detect_batch(boxes[None], scores[None], score_threshold, iou_threshold, max_detections)[0]


def detect_batch(boxes, scores, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS):
    """`multiclass_nms` of every image of a batch, boxes (B, P, 4) and scores (B, P, C), in one operation; waits for the device.

    # differs: see multiclass_nms
    """
    import jittor as jt

    from .kernels.nms import nms_batch

    boxes, scores = (x if isinstance(x, jt.Var) else jt.array(np.ascontiguousarray(x)) for x in (boxes, scores))
    found = nms_batch(boxes, scores, score_threshold, iou_threshold, max_detections)
    count, kept, detections = found.count.numpy(), found.kept.numpy().astype(np.int64), found.detections.numpy()
    classes = scores.shape[2]
    return [(detections[i, :n].copy(), kept[i, :n] % classes, kept[i, :n] // classes) for i, n in enumerate(count)]


def vectorised_nms(boxes, scores, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS):
    """`multiclass_nms` without the kernel, which is timed against it.

    # differs: NumPy arrays, for the loop's sake (see the import)
    """
    prior, label = np.nonzero(scores > np.float32(score_threshold))
    boxes, scores = boxes[prior], scores[prior, label]
    if len(prior) == 0:
        return np.zeros((0, 5), np.float32), label, prior
    # each class is moved to a place of its own, in float32 as upstream does: the rounding is part of the answer
    shifted = boxes + (label.astype(boxes.dtype) * (boxes.max() + 1))[:, None]
    order = np.argsort(-scores, kind="stable")
    keep = greedy_nms(shifted[order], iou_threshold, max_detections)
    order = order[keep]
    return np.concatenate((boxes[order], scores[order, None]), axis=1), label[order], prior[order]


def greedy_nms(boxes, iou_threshold, max_keep):
    """Indices (k,) of the boxes (n, 4), sorted best first, that survive; stops after max_keep, which no later box can change.

    # differs: NumPy arrays, for the loop's sake (see the import)
    """
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    alive = np.ones(len(boxes), dtype=bool)
    keep = []
    while len(keep) < max_keep:
        left = np.flatnonzero(alive)
        if len(left) == 0:
            break
        i = int(left[0])
        keep.append(i)
        width = (np.minimum(x2[i], x2) - np.maximum(x1[i], x1)).clip(min=0)
        height = (np.minimum(y2[i], y2) - np.maximum(y1[i], y1)).clip(min=0)
        inter = width * height
        with np.errstate(invalid="ignore", divide="ignore"):
            # in double as torchvision's CPU kernel compares: the float32 nearest to 0.6 lies above 0.6
            alive &= ~((inter / (areas[i] + areas - inter)).astype(np.float64) > iou_threshold)
        alive[i] = False  # a box without area has no IoU, not even with itself
    return np.array(keep, dtype=np.int64)

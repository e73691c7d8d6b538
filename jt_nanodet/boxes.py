"""Box arithmetic: xyxy in input pixels, distances are left, top, right, bottom (`nanodet/util/box_transform.py`)."""
import jittor as jt


def distance_to_xyxy(center, ltrb, max_hw=None):
    """Centres (…, 2) and distances (…, 4) to boxes (…, 4); clipped to `max_hw` = (height, width) where given."""
    x1 = center[..., 0] - ltrb[..., 0]
    y1 = center[..., 1] - ltrb[..., 1]
    x2 = center[..., 0] + ltrb[..., 2]
    y2 = center[..., 1] + ltrb[..., 3]
    if max_hw is not None:
        x1, x2 = x1.clamp(0, max_hw[1]), x2.clamp(0, max_hw[1])
        y1, y2 = y1.clamp(0, max_hw[0]), y2.clamp(0, max_hw[0])
    return jt.stack((x1, y1, x2, y2), dim=-1)


def xyxy_to_distance(center, boxes):
    """Centres (…, 2) and boxes (…, 4) to distances (…, 4) from the centre to each side; negative where the centre is outside."""
    left = center[..., 0] - boxes[..., 0]
    top = center[..., 1] - boxes[..., 1]
    right = boxes[..., 2] - center[..., 0]
    bottom = boxes[..., 3] - center[..., 1]
    return jt.stack((left, top, right, bottom), dim=-1)


def box_area(boxes):
    """Areas (…) of boxes (…, 4): width times height, without +1."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_overlap(boxes, others, mode="iou", eps=1e-6):
    """Overlap (N, M) of boxes (N, 4) with others (M, 4), the denominator never below `eps`.

    mode "iou": intersection over union; "iof": intersection over the area of `boxes` (`nanodet/model/loss/iou_loss.py`).
    """
    lt = jt.maximum(boxes[:, None, :2], others[None, :, :2])
    rb = jt.minimum(boxes[:, None, 2:], others[None, :, 2:])
    wh = (rb - lt).clamp(0)
    inter = wh[..., 0] * wh[..., 1]
    area = box_area(boxes)[:, None]
    union = area + box_area(others)[None] - inter if mode == "iou" else area.expand(inter.shape)
    return inter / union.clamp(eps)


def aligned_giou(boxes, others, eps=1e-6):
    """Generalised IoU (N,) of boxes (N, 4) with others (N, 4), row by row (arXiv:1902.09630)."""
    wh = (jt.minimum(boxes[:, 2:], others[:, 2:]) - jt.maximum(boxes[:, :2], others[:, :2])).clamp(0)
    inter = wh[:, 0] * wh[:, 1]
    union = (box_area(boxes) + box_area(others) - inter).clamp(eps)
    hull = (jt.maximum(boxes[:, 2:], others[:, 2:]) - jt.minimum(boxes[:, :2], others[:, :2])).clamp(0)
    hull_area = (hull[:, 0] * hull[:, 1]).clamp(eps)
    return inter / union - (hull_area - union) / hull_area

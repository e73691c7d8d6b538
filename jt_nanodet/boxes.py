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

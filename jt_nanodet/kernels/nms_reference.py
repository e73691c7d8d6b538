"""Filter, class-wise suppression and the best ones in loops: what `nms.cu` and `nms_cpu.h` are held to. Calls nothing of theirs."""
import numpy as np

F = np.float32


@np.errstate(all="ignore")
def nms_image(boxes, scores, score_threshold, iou_threshold, most):
    """One image: boxes (P, 4) and scores (P, C), float32. Returns the kept prior * C + class, best first, and how many passed the filter."""
    classes = scores.shape[1]
    passed = [(-scores[p, c], p * classes + c) for p in range(len(scores)) for c in range(classes) if scores[p, c] > F(score_threshold)]
    if not passed:
        return np.zeros(0, np.int64), 0
    reach = F(-np.inf)
    for p in {index // classes for _, index in passed}:
        for x in boxes[p]:
            reach = x if np.isnan(x) or x > reach else reach
    step = reach + F(1)
    kept = []
    for _, index in sorted(passed):
        x1, y1, x2, y2 = boxes[index // classes] + F(index % classes) * step
        area = (x2 - x1) * (y2 - y1)
        for other, a1, b1, a2, b2, other_area in kept:
            w, h = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            inter = (w if w > 0 else F(0)) * (h if h > 0 else F(0))
            if float(inter / (other_area + area - inter)) > iou_threshold:
                break
        else:
            kept.append((index, x1, y1, x2, y2, area))
            if len(kept) == most:
                break
    return np.array([row[0] for row in kept], np.int64), len(passed)

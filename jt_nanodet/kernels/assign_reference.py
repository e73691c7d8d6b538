"""The assigner in loops: what `assign.cu` and `assign_cpu.h` are held to. Calls nothing of theirs.

Overlaps are float32 operation by operation; costs are double, summed class by class, and rounded once.
"""
import numpy as np

F = np.float32
UNMATCHED = F(-1e8)


def area(b):
    return (b[2] - b[0]) * (b[3] - b[1])


def intersection(b, g):
    w, h = min(b[2], g[2]) - max(b[0], g[0]), min(b[3], g[3]) - max(b[1], g[1])
    return (w if w > 0 else F(0)) * (h if h > 0 else F(0))


def overlap(b, g):
    """Intersection over union (float32), the union at least 1e-6; infinity for NaN."""
    inter = intersection(b, g)
    union = area(b) + area(g) - inter
    share = inter / (F(1e-6) if union < F(1e-6) else union)
    return F(np.inf) if np.isnan(share) else share


def cost(logits, label, share, factor):
    """Cost (float32) of a prior with logits (C,) for a box of class `label` that its prediction overlaps by `share`."""
    if share == np.inf:
        return F(np.inf)
    total = 0.0
    for c, x in enumerate(logits.astype(np.float64)):
        t = float(share) if c == label else 0.0
        small = np.exp(-abs(x))
        sigmoid = 1 / (1 + small) if x >= 0 else small / (1 + small)
        entropy = max(x, 0.0) - (x * t if c == label else 0.0) + np.log1p(small)
        total += entropy * (t - sigmoid) ** 2
    total -= np.log(np.float64(share + F(1e-7))) * factor
    return F(np.inf) if np.isnan(F(total)) else F(total)


@np.errstate(all="ignore")
def assign_image(logits, boxes, priors, gt_boxes, gt_labels, ignored, topk, iou_factor, ignore_threshold):
    """One image, all float32: logits (P, C), boxes (P, 4), priors (P, 4), gt_boxes (G, 4), gt_labels (G,), ignored (I, 4).

    Returns gt_index (P,) int32, iou (P,), candidates (V,), costs (V, G), overlaps (V, G), sums (G,).
    """
    count = len(priors)
    gt_index, iou = np.zeros(count, np.int32), np.zeros(count, F)
    candidates = []
    for p in range(count):
        x, y = priors[p, :2]
        for g in gt_boxes:
            if x - g[0] > 0 and y - g[1] > 0 and g[2] - x > 0 and g[3] - y > 0:
                candidates.append(p)
                break
    costs, overlaps = (np.zeros((len(candidates), len(gt_boxes)), F) for _ in range(2))
    sums = np.zeros(len(gt_boxes), F)
    if candidates:
        iou[:] = UNMATCHED
        takers = [[] for _ in candidates]
        for g in range(len(gt_boxes)):
            for row, p in enumerate(candidates):
                overlaps[row, g] = overlap(boxes[p], gt_boxes[g])
                costs[row, g] = cost(logits[p], gt_labels[g], overlaps[row, g], iou_factor)
            for share in sorted(overlaps[:, g], reverse=True)[:topk]:
                sums[g] = sums[g] + share
            k = max(1, min(int(sums[g]), len(candidates))) if sums[g] < 2**31 else 1
            for row in sorted(range(len(candidates)), key=lambda r: (costs[r, g], r))[:k]:
                takers[row].append(g)
        for row, p in enumerate(candidates):
            if takers[row]:
                g = takers[row][0] if len(takers[row]) == 1 else min(range(len(gt_boxes)), key=lambda i: (costs[row, i], i))
                gt_index[p], iou[p] = g + 1, overlaps[row, g]
    if ignore_threshold > 0:
        for p in range(count):
            for held in ignored:
                own = area(boxes[p])
                if intersection(boxes[p], held) / (F(1e-6) if own < F(1e-6) else own) > F(ignore_threshold):
                    gt_index[p] = -1
    return gt_index, iou, np.array(candidates, np.int64), costs, overlaps, sums


@np.errstate(all="ignore")
def targets(gt_index, iou, priors, gt_boxes, gt_labels, classes, limit):
    """What one image is trained on: label (P,), quality (P,), weight (P,), target boxes (P, 4), distances (P, 4) in strides."""
    count = len(priors)
    label, quality, weight = np.full(count, classes, np.int32), np.zeros(count, F), np.ones(count, F)
    target, distance = np.zeros((count, 4), F), np.zeros((count, 4), F)
    for p in range(count):
        if gt_index[p] < 0:
            weight[p] = 0
        if gt_index[p] <= 0:
            continue
        g = gt_boxes[gt_index[p] - 1]
        label[p], quality[p], target[p] = gt_labels[gt_index[p] - 1], iou[p], g
        x, y, stride, _ = priors[p]
        for side, length in enumerate(((x - g[0]) / stride, (y - g[1]) / stride, (g[2] - x) / stride, (g[3] - y) / stride)):
            distance[p, side] = F(0) if length < 0 else F(limit) if length > F(limit) else length
    return label, quality, weight, target, distance

"""Dynamic soft label assigner (`nanodet/model/head/assigner/dsl_assigner.py`; OTA arXiv:2103.14259, YOLOX arXiv:2107.08430).

Per image: P priors, V of them with their centre inside some box, G boxes, C classes. Every prior gets the number of one box
(counted from 1), 0 for background or −1 where it is not to be trained on.
"""
from dataclasses import dataclass

import numpy as np
import jittor as jt

from .boxes import pairwise_overlap
from .kernels import assign as kernels  # differs: a whole batch is assigned by one operation of this project's own
from .losses import binary_cross_entropy_with_logits

UNMATCHED = -1e8  # upstream's filler for the IoU of a prior without a box, in images that have candidates


@dataclass
class Evidence:
    """What the decisions of one image rest on: `cost` and `overlap` (V, G) of the `candidates` (V,), sum of the best overlaps (G,)."""

    candidates: np.ndarray
    cost: np.ndarray
    overlap: np.ndarray
    topk_sum: np.ndarray


@dataclass
class Assignment:
    """NumPy, one image: `gt_index` (P,) int32, 1-based; `iou` (P,) of the predicted box with its box; `evidence` where asked for."""

    gt_index: np.ndarray
    iou: np.ndarray
    evidence: Evidence = None


def inside_any(centers, gt_boxes):
    """Indices (V,) of the centres (P, 2) that lie strictly inside at least one box (G, 4); NumPy."""
    lt = centers[:, None] - gt_boxes[None, :, :2]
    rb = gt_boxes[None, :, 2:] - centers[:, None]
    inside = np.concatenate((lt, rb), axis=2).min(axis=2) > 0
    return np.flatnonzero(inside.any(axis=1))


def lowest(cost, k):
    """(V, G) mask of the k[g] smallest entries of each column of `cost`; of equal ones the lower row wins."""
    limit = jt.argsort(cost, dim=0)[1].gather(0, (k - 1)[None])  # differs: named argsort, returns (index, value)
    below = cost < limit
    level = cost == limit
    room = k - below.long().sum(dim=0)
    return below | (level & (level.long().cumsum(dim=0) <= room))


def without_nan(x):
    """x with infinity for NaN."""  # differs: Jittor sorts with std::sort, which NaN sends out of bounds
    return jt.where(x == x, x, jt.full_like(x, np.inf))


class DynamicSoftLabelAssigner:
    """cfg: AssignerConfig (topk, iou_factor, ignore_iof_thr)."""

    def __init__(self, cfg):
        self.cfg = cfg

    def costs(self, logits, boxes, gt_boxes, gt_labels):
        """Cost and overlap (V, G) of predictions (V, C) and (V, 4) against boxes (G, 4) with labels (G,)."""
        overlap = pairwise_overlap(boxes, gt_boxes)
        classes = jt.arange(logits.shape[1])
        one_hot = (gt_labels[:, None] == classes[None]).cast(logits.dtype)
        target = one_hot[None] * overlap[:, :, None]  # (V, G, C)
        logit = logits[:, None].expand(target.shape)
        cross_entropy = binary_cross_entropy_with_logits(logit, target)
        class_cost = (cross_entropy * (target - logit.sigmoid()).abs().pow(2.0)).sum(dim=2)
        # differs: see without_nan
        return without_nan(class_cost + -(overlap + 1e-7).log() * self.cfg.iou_factor), without_nan(overlap)

    def match(self, cost, overlap):
        """Box number (V,), 0 for none, overlap with that box (V,), and the sum of each box's best overlaps (G,)."""
        # differs: returns (values, indices) as a tuple; ties do not matter in a sum
        topk_sum = jt.topk(overlap, min(self.cfg.topk, overlap.shape[0]), dim=0)[0].sum(dim=0)
        k = topk_sum.int().clamp(1, overlap.shape[0]).long()  # truncated, not rounded
        numbers = jt.arange(cost.shape[1])[None]
        matching = lowest(cost, k)
        cheapest = numbers == jt.argmin(cost, dim=1)[0][:, None]  # differs: returns (index, value)
        matching = jt.where((matching.long().sum(dim=1) > 1)[:, None], cheapest, matching)
        return (matching.long() * (numbers + 1)).sum(dim=1), (matching.cast(overlap.dtype) * overlap).sum(dim=1), topk_sum

    @jt.no_grad()
    def assign_batch(self, logits, boxes, priors, gt_boxes, gt_labels, ignored, limit=0.0, evidence=False):
        """A list of B Assignments: what training uses. Costs are computed in double and rounded once, see docs/kernels.md.

        # differs: one operation for the batch instead of `assign` for each image, which remains as what it is timed against

        logits (B, P, C) and boxes (B, P, 4): Vars; lists of B NumPy arrays (ignored: None where there are none); limit: see `launch`.
        """
        found = self.launch(logits, boxes, priors, gt_boxes, gt_labels, ignored, limit)
        index, iou = found.gt_index.numpy(), found.iou.numpy()
        if not evidence:
            return [Assignment(*pair) for pair in zip(index, iou)]
        held, cost, overlap, sums = (x.numpy() for x in (found.candidate, found.cost, found.overlap, found.topk_sum))
        seen = []
        for i, boxes_of in enumerate(gt_boxes):
            rows, count = np.flatnonzero(held[i]), len(boxes_of)
            parts = (np.ascontiguousarray(x[i, :count, rows]) for x in (cost, overlap))
            seen.append(Evidence(rows, *parts, sums[i, :count].copy()) if len(rows) else None)
        return [Assignment(*triple) for triple in zip(index, iou, seen)]

    def launch(self, logits, boxes, priors, gt_boxes, gt_labels, ignored, limit):
        """The kernels' BatchAssignment, for which nothing waits yet; limit: upper end of a distance target, in strides.

        # differs: see assign_batch
        """
        nothing = np.zeros((0, 4), np.float32)
        return kernels.assign_batch(
            logits, boxes, jt.array(priors), gt_boxes, gt_labels, [nothing if b is None else b for b in ignored],
            topk=self.cfg.topk, iou_factor=self.cfg.iou_factor, ignore_threshold=self.cfg.ignore_iof_thr, limit=limit)

    @jt.no_grad()
    def assign(self, logits, boxes, priors, gt_boxes, gt_labels, ignored=None, evidence=False):
        """The Assignment of one image.

        logits (P, C) and boxes (P, 4): predictions; NumPy: priors (P, 4), gt_boxes (G, 4), gt_labels (G,), ignored (I, 4) or None.
        With `ignore_iof_thr` > 0, every prior whose predicted box lies in an ignored box by more than that share gets −1, matched
        or not, inside a box or not: what upstream's last lines mean, where it stops with an indexing error.
        """
        gt_index = np.zeros(len(priors), np.int32)
        iou = np.zeros(len(priors), np.dtype(str(boxes.dtype).split(".")[-1]))
        gt_boxes = gt_boxes.astype(iou.dtype, copy=False)
        candidates = inside_any(priors[:, :2], gt_boxes) if len(gt_boxes) else np.zeros(0, np.int64)
        seen = None
        if len(candidates):
            rows = jt.array(candidates)
            gts, labels = jt.array(gt_boxes), jt.array(gt_labels)
            cost, overlap = self.costs(logits[rows], boxes[rows], gts, labels)
            number, matched, topk_sum = (x.numpy() for x in self.match(cost, overlap))
            gt_index[candidates] = number
            iou[:] = UNMATCHED
            iou[candidates[number > 0]] = matched[number > 0]
            if evidence:
                seen = Evidence(candidates, cost.numpy(), overlap.numpy(), topk_sum)
        if self.cfg.ignore_iof_thr > 0 and ignored is not None and len(ignored):
            held = jt.array(ignored.astype(iou.dtype, copy=False))
            share = pairwise_overlap(boxes, held, "iof").max(dim=1)  # differs: returns values alone
            gt_index[(share > self.cfg.ignore_iof_thr).numpy()] = -1
        return Assignment(gt_index, iou, seen)

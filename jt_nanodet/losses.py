"""Losses of NanoDet-Plus and the targets they are computed against.

B images, P priors, C classes, R = reg_max + 1 bins a side, M positive priors of the whole batch. Sources: Generalized Focal Loss
(arXiv:2006.04388), Generalized IoU (arXiv:1902.09630), `nanodet/model/loss/{gfocal_loss,iou_loss}.py` and the loss part of
`nanodet/model/head/nanodet_plus_head.py`.
"""
from dataclasses import dataclass

import numpy as np
import jittor as jt

from .boxes import aligned_giou, distance_to_xyxy
from .decode import center_priors


@dataclass
class Targets:
    """NumPy, the batch flattened to B·P rows: `label` (class, C where negative), `quality` (IoU), `weight` (0 where ignored);
    of the M positive `rows`: `boxes` (M, 4) and `distance` (M·4,) from the prior to each side, in strides."""

    label: np.ndarray
    quality: np.ndarray
    weight: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    distance: np.ndarray


def build_targets(assignments, priors, gt_boxes, gt_labels, cfg, dtype=np.float32):
    """Targets of a batch from its Assignments; priors (P, 4), per image gt_boxes (G, 4) and gt_labels (G,); cfg: HeadConfig."""
    index = np.concatenate([a.gt_index for a in assignments])
    rows = np.flatnonzero(index > 0)
    image, prior = rows // len(priors), rows % len(priors)
    label = np.full(len(index), cfg.num_classes, np.int32)
    quality = np.zeros(len(index), dtype)
    quality[rows] = np.concatenate([a.iou for a in assignments])[rows]
    boxes = np.zeros((len(rows), 4), dtype)
    for i in np.unique(image):
        mine = image == i
        chosen = index[rows[mine]] - 1
        label[rows[mine]] = gt_labels[i][chosen]
        boxes[mine] = gt_boxes[i][chosen]
    at = priors[prior].astype(dtype)
    distance = np.concatenate((at[:, :2] - boxes[:, :2], boxes[:, 2:] - at[:, :2]), axis=1) / at[:, 2:3]
    distance = distance.clip(0, dtype(cfg.reg_max - 0.1)).reshape(-1)
    return Targets(label, quality, (index >= 0).astype(dtype), rows, boxes, distance)


class BinaryCrossEntropy(jt.Function):
    """Element-wise cross entropy of logits x with targets t; the gradient goes to x alone."""
    # differs: Jittor's own takes log(1 + exp(-|x|)) of a rounded sum and loses half of its digits where |x| > 8

    def execute(self, x, t):
        self.saved = x, t
        y = (-x.abs()).exp()
        one = y + 1
        log1p = one.log() - ((one - 1) - y) / one  # the second term is what the rounding of 1 + y lost
        return x.maximum(0.0) - x * t + log1p

    def grad(self, gradient):
        x, t = self.saved
        return gradient * (x.sigmoid() - t), None


def binary_cross_entropy_with_logits(x, t):
    """Element-wise, x and t of one shape."""
    return BinaryCrossEntropy.apply(x, t)  # differs: as said there


def cross_entropy(logits, label):
    """(N,) from logits (N, R) and label (N,)."""  # differs: Jittor's own returns the mean
    shifted = logits - logits.max(dim=1, keepdims=True).detach()
    chosen = (label[:, None] == jt.arange(logits.shape[1])[None]).cast(logits.dtype)
    return shifted.exp().sum(dim=1).log() - (shifted * chosen).sum(dim=1)


def quality_focal_loss(logits, label, quality, beta):
    """(N,) from logits (N, C), label (N,) and quality (N,): the target is `quality` at the label's class, 0 elsewhere."""
    classes = jt.arange(logits.shape[1])[None]
    target = (label[:, None] == classes).cast(logits.dtype) * quality[:, None]
    entropy = binary_cross_entropy_with_logits(logits, target)
    return (entropy * (target - logits.sigmoid()).abs().pow(beta)).sum(dim=1)


def distribution_focal_loss(logits, distance):
    """(N,) from logits (N, R) and distances (N,): cross entropy with the bins on both sides, each weighted by its nearness."""
    left = distance.long()
    weight_left = (left + 1).cast(distance.dtype) - distance
    weight_right = distance - left.cast(distance.dtype)
    loss_left = cross_entropy(logits, left)
    loss_right = cross_entropy(logits, left + 1)
    return loss_left * weight_left + loss_right * weight_right


def total_of(values):
    """Sum of all elements."""
    # differs: Jittor adds one number after the other, which loses two digits over thousands of priors; PyTorch adds in blocks
    return values.float64().sum().cast(values.dtype)


def giou_loss(boxes, targets):
    """(N,): one minus the generalised IoU of boxes (N, 4) with targets (N, 4)."""
    return 1 - aligned_giou(boxes, targets)


def alone(value):
    """The normaliser of one process: at least 1."""
    return value.clamp(1)


def over_processes(value):
    """The normaliser of a distributed run: the mean over its processes, where the sum counts as at least 1.

    So the averaged gradients are those of one process with the whole batch, to the last case. Upstream means to average too, with the
    bound on the mean, but its `reduce_mean` hands back each process's own value: it sums a temporary.
    """
    if jt.in_mpi:
        return value.mpi_all_reduce("add").clamp(1) / jt.world_size  # differs: MPI is part of Jittor
    return value.clamp(1)


def detection_loss(raw, targets, priors, integral, cfg, normalise=over_processes):
    """{"loss_qfl", "loss_bbox", "loss_dfl"}: weighted scalars of one head's raw output (B, P, C + 4·R) against Targets.

    priors (P, 4): a tensor; integral: the head's `distribution_project`; cfg: HeadConfig; normalise: a sum over this
    process to the number it is divided by. Without a positive prior the box losses are 0, with a gradient of 0.
    """
    def tensor(array):
        return jt.array(array)

    logits = raw[..., :cfg.num_classes].reshape(-1, cfg.num_classes)
    sides = raw[..., cfg.num_classes:].reshape(-1, 4 * (cfg.reg_max + 1))
    count = normalise(jt.full((1,), float(len(targets.rows)), dtype=raw.dtype))
    qfl = quality_focal_loss(logits, tensor(targets.label), tensor(targets.quality), cfg.loss.loss_qfl.beta)
    loss_qfl = total_of(qfl * tensor(targets.weight)) / count
    if len(targets.rows):
        rows = tensor(targets.rows)
        score = logits[rows].detach().sigmoid().max(dim=1)  # differs: returns values alone
        total = normalise(total_of(score).reshape(1))
        boxes = distance_to_xyxy(priors[:, :2], integral(raw[..., cfg.num_classes:]) * priors[:, 2:3]).reshape(-1, 4)
        loss_bbox = total_of(giou_loss(boxes[rows], tensor(targets.boxes)) * score) / total
        dfl = distribution_focal_loss(sides[rows].reshape(-1, cfg.reg_max + 1), tensor(targets.distance))
        loss_dfl = total_of(dfl * score[:, None].expand(-1, 4).reshape(-1)) / (4.0 * total)
    else:
        normalise(jt.zeros(1, dtype=raw.dtype))  # every process takes part in every sum
        loss_bbox = loss_dfl = sides.sum().reshape(1) * 0
    weights = cfg.loss
    return {
        "loss_qfl": loss_qfl * weights.loss_qfl.loss_weight,
        "loss_bbox": loss_bbox * weights.loss_bbox.loss_weight,
        "loss_dfl": loss_dfl * weights.loss_dfl.loss_weight,
    }


def training_losses(raw, aux_raw, batch, assigner, integral, cfg, evidence=False, normalise=over_processes):
    """(loss terms, Assignments) of both heads; the auxiliary predictions decide the assignment for both.

    raw, aux_raw (B, P, C + 4·R); batch: a dictionary with `img` (B, 3, H, W) and, per image, NumPy `gt_bboxes` (G, 4), `gt_labels` (G,)
    and `gt_bboxes_ignore` (I, 4) or None; cfg: HeadConfig. The six terms come in upstream's order; their sum is the loss.
    """
    priors = center_priors(batch["img"].shape[2:], cfg.strides)
    ignored = batch.get("gt_bboxes_ignore") or [None] * len(batch["gt_bboxes"])
    gt_boxes = [np.asarray(b, np.float32).reshape(-1, 4) for b in batch["gt_bboxes"]]
    gt_labels = [np.asarray(x, np.int64).reshape(-1) for x in batch["gt_labels"]]
    ignored = [None if b is None else np.asarray(b, np.float32).reshape(-1, 4) for b in ignored]
    guide = aux_raw.detach()
    at = jt.array(priors)
    boxes = distance_to_xyxy(at[:, :2], integral(guide[..., cfg.num_classes:]) * at[:, 2:3])
    # differs: the whole batch at once
    assignments = assigner.assign_batch(guide[..., :cfg.num_classes], boxes, priors, gt_boxes, gt_labels, ignored, evidence=evidence)
    targets = build_targets(assignments, priors, gt_boxes, gt_labels, cfg, assignments[0].iou.dtype.type)
    terms = detection_loss(raw, targets, at, integral, cfg, normalise)
    terms.update({f"aux_{k}": v for k, v in detection_loss(aux_raw, targets, at, integral, cfg, normalise).items()})
    return terms, assignments

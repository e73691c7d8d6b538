"""The dynamic soft label assigner of both sides against loops over priors and boxes, and at its edges."""
import importlib
import math

import numpy as np
import pytest

from jt_nanodet.config import AssignerConfig


def side_tools(side, request):
    """(assigner module, array to tensor) of one side; a third entry for the kernel the port trains with."""
    if side != "torch_ref":
        jt = request.getfixturevalue("jittor")
        return importlib.import_module("jt_nanodet.assigner"), jt.array, *(["kernel"] if side == "kernel" else [])
    import torch

    return importlib.import_module("torch_ref.assigner"), torch.from_numpy


@pytest.fixture(params=[pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor),
                        pytest.param("kernel", marks=pytest.mark.jittor)])
def side(request):
    return side_tools(request.param, request)


def overlap_of(a, b, iof=False):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area, other = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return w * h / max(area if iof else area + other - w * h, 1e-6)


def by_loops(logits, boxes, priors, gt_boxes, gt_labels, cfg):
    """gt_index (P,) as the paper's loops give it, in double; ties by the lower row."""
    inside = [i for i, p in enumerate(priors) if any(min(p[0] - g[0], p[1] - g[1], g[2] - p[0], g[3] - p[1]) > 0 for g in gt_boxes)]
    index = np.zeros(len(priors), np.int64)
    cost, iou = np.zeros((len(inside), len(gt_boxes))), np.zeros((len(inside), len(gt_boxes)))
    for row, i in enumerate(inside):
        for g, box in enumerate(gt_boxes):
            iou[row, g] = overlap_of(boxes[i].astype(float), box.astype(float))
            for c, x in enumerate(logits[i].astype(float)):
                target, p = (iou[row, g] if c == gt_labels[g] else 0.0), 1 / (1 + math.exp(-x))
                cost[row, g] += -(target * math.log(p) + (1 - target) * math.log(1 - p)) * (target - p) ** 2
            cost[row, g] += -cfg.iou_factor * math.log(iou[row, g] + 1e-7)
    taken = np.zeros(cost.shape, bool)
    for g in range(len(gt_boxes) if inside else 0):
        k = max(1, int(sum(sorted(iou[:, g], reverse=True)[:cfg.topk])))
        taken[sorted(range(len(inside)), key=lambda r: (cost[r, g], r))[:k], g] = True
    for row, i in enumerate(inside):
        if taken[row].sum() > 1:
            index[i] = 1 + int(np.argmin(cost[row]))
        elif taken[row].any():
            index[i] = 1 + int(np.argmax(taken[row]))
    return index


def scene(seed, count, classes=4):
    """Priors on a grid of 8 pixels, predictions near them, `count` boxes."""
    r = np.random.RandomState(seed)
    y, x = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    priors = np.stack([x.ravel() * 8, y.ravel() * 8, np.full(64, 8.0), np.full(64, 8.0)], 1).astype(np.float32)
    reach = r.rand(64, 4) * 20
    boxes = np.concatenate([priors[:, :2] - reach[:, :2], priors[:, :2] + reach[:, 2:]], 1).astype(np.float32)
    size = 8 + r.rand(count, 2) * 40
    corner = r.rand(count, 2) * (64 - size)
    gt = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return r.randn(64, classes).astype(np.float32) * 2, boxes, priors, gt, r.randint(0, classes, count)


def assign(side, logits, boxes, priors, gt, labels, ignored=None, **cfg):
    module, tensor, *kernel = side
    if kernel:
        assigner = module.DynamicSoftLabelAssigner(AssignerConfig(**cfg))
        return assigner.assign_batch(tensor(logits[None]), tensor(boxes[None]), priors, [gt], [labels], [ignored], evidence=True)[0]
    return module.DynamicSoftLabelAssigner(AssignerConfig(**cfg)).assign(tensor(logits), tensor(boxes), priors, gt, labels, ignored, True)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_equals_the_loops(side, count):
    for seed in range(6):
        data = scene(100 * count + seed, count)
        result = assign(side, *data)
        np.testing.assert_array_equal(result.gt_index, by_loops(*data, AssignerConfig()), err_msg=f"seed {seed}")


def test_iou_of_matched_priors_and_filler(side):
    data = scene(3, 4)
    result = assign(side, *data)
    matched = np.flatnonzero(result.gt_index)
    want = [overlap_of(data[1][i], data[3][result.gt_index[i] - 1]) for i in matched]
    np.testing.assert_array_almost_equal_nulp(result.iou[matched], np.array(want, np.float32), 8)
    assert (np.delete(result.iou, matched) == -1e8).all()


def test_no_box_and_no_prior_inside(side):
    logits, boxes, priors, gt, labels = scene(1, 3)
    nothing = assign(side, logits, boxes, priors, gt[:0], labels[:0])
    outside = assign(side, logits, boxes, priors, gt[:1] * 0 + np.float32([1, 1, 7, 7]), labels[:1])
    for result in (nothing, outside):
        assert not result.gt_index.any() and not result.iou.any()


def test_equal_costs_go_to_the_lower_prior(side):
    module, tensor = side[:2]
    cost = np.float32([[2, 1], [1, 1], [1, 1], [1, 5], [3, 1]])
    got = np.asarray(module.lowest(tensor(cost), tensor(np.int64([2, 3])))).astype(bool)
    want = np.array([[0, 1], [1, 1], [1, 1], [0, 0], [0, 0]], bool)
    np.testing.assert_array_equal(got, want)


def test_identical_boxes_share_no_prior(side):
    logits, boxes, priors, gt, labels = scene(5, 1)
    result = assign(side, logits, boxes, priors, np.concatenate([gt, gt]), np.concatenate([labels, labels]))
    assert set(result.gt_index) <= {0, 1}, "of two equal boxes the first wins every prior"


def test_ignored_boxes_take_priors_out(side):
    logits, boxes, priors, gt, labels = scene(7, 3)
    ignored = np.float32([[0, 0, 30, 30]])
    free = assign(side, logits, boxes, priors, gt, labels, ignored, ignore_iof_thr=-1.0)
    held = assign(side, logits, boxes, priors, gt, labels, ignored, ignore_iof_thr=0.5)
    covered = np.array([overlap_of(b, ignored[0], iof=True) > 0.5 for b in boxes])
    assert covered.any() and not covered.all()
    assert (held.gt_index[covered] == -1).all()
    np.testing.assert_array_equal(held.gt_index[~covered], free.gt_index[~covered])
    alone = assign(side, logits, boxes, priors, gt[:0], labels[:0], ignored, ignore_iof_thr=0.5)
    assert (alone.gt_index[covered] == -1).all() and not alone.gt_index[~covered].any()


def test_evidence_explains_the_number_of_priors(side):
    result = assign(side, *scene(9, 4))
    evidence = result.evidence
    best = np.sort(evidence.overlap, axis=0)[::-1][:13].sum(axis=0)
    assert np.abs(best - evidence.topk_sum).max() < len(best) * 13 * np.finfo(np.float32).eps
    assert evidence.cost.shape == evidence.overlap.shape == (len(evidence.candidates), 4)


def test_nan_predictions_do_not_crash(side):
    logits, boxes, priors, gt, labels = scene(2, 3)
    result = assign(side, logits * np.nan, boxes * np.nan, priors, gt, labels)
    assert result.gt_index.shape == (64,)

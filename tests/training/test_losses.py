"""Losses against their formulas in double, and the edges of targets and normalisers; both sides."""
import importlib

import numpy as np
import pytest

from jt_nanodet.config import load_config
from tests.training.tiny import SHAPES

HEAD = load_config(SHAPES).model.arch.head
EPS = float(np.finfo(np.float32).eps)


class Side:
    """The names of both frameworks that these tests need, under one set of words."""

    def __init__(self, name, request):
        if name == "jt_nanodet":
            jt = request.getfixturevalue("jittor")
            self.tensor, self.grad = jt.array, lambda y, x: jt.grad(y, x).numpy()
            self.array = lambda x: x.numpy()
        else:
            torch = pytest.importorskip("torch")
            self.tensor = lambda x: torch.from_numpy(x).requires_grad_(x.dtype == np.float32)
            self.grad = lambda y, x: torch.autograd.grad(y, x)[0].numpy()
            self.array = lambda x: x.detach().numpy()
        self.losses, self.boxes = (importlib.import_module(f"{name}.{m}") for m in ("losses", "boxes"))
        self.assigner = importlib.import_module(f"{name}.assigner")
        self.integral = importlib.import_module(f"{name}.layers").Integral(HEAD.reg_max)


@pytest.fixture(params=[pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor)])
def side(request):
    return Side(request.param, request)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(x, t):
    return np.logaddexp(0, x) - x * t


def test_quality_focal(side):
    r = np.random.RandomState(0)
    x = (r.randn(50, 3) * 6).astype(np.float32)
    label, quality = r.randint(0, 4, 50).astype(np.int32), r.rand(50).astype(np.float32)
    quality[label == 3] = 0
    target = np.zeros((50, 3))
    target[np.flatnonzero(label < 3), label[label < 3]] = quality[label < 3]
    d = x.astype(np.float64)
    terms = cross_entropy(d, target) * (target - sigmoid(d)) ** 2
    logits = side.tensor(x)
    loss = side.losses.quality_focal_loss(logits, side.tensor(label), side.tensor(quality.copy()), 2.0)
    # the modulating factor is a difference of two numbers below 1, squared: its absolute rounding counts
    bound = 64 * EPS * (terms + cross_entropy(d, target) * (np.abs(target - sigmoid(d)) + EPS) + EPS)
    assert (np.abs(side.array(loss) - terms.sum(1)) <= bound.sum(1)).all()
    z, s = target - sigmoid(d), sigmoid(d)
    want = (s - target) * z**2 - cross_entropy(d, target) * 2 * z * s * (1 - s)
    got = side.grad(loss.sum(), logits)
    assert (np.abs(got - want) <= 64 * EPS * (np.abs(want) + cross_entropy(d, target) * s + EPS)).all()


def test_distribution_focal(side):
    r = np.random.RandomState(1)
    x, distance = (r.randn(40, 8) * 3).astype(np.float32), (r.rand(40) * 6.9).astype(np.float32)
    distance[:3] = [0, 3, 6.9]
    d = x.astype(np.float64)
    logp = d - np.log(np.exp(d).sum(1, keepdims=True))
    left, rows = distance.astype(int), np.arange(40)
    want = -(logp[rows, left] * (left + 1 - distance.astype(float)) + logp[rows, left + 1] * (distance.astype(float) - left))
    got = side.array(side.losses.distribution_focal_loss(side.tensor(x), side.tensor(distance)))
    assert (np.abs(got - want) <= 64 * EPS * (np.abs(d).max(1) + np.abs(want))).all()


def test_giou_by_hand(side):
    boxes = np.float32([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])
    others = np.float32([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 3, 1], [0, 0, 0, 0]])
    got = side.array(side.losses.giou_loss(side.tensor(boxes), side.tensor(others)))
    # equal; half overlapping: 1/3; apart by one: 0 − 1/3; two points: denominators are held at 1e-6, so the GIoU is 0
    np.testing.assert_array_almost_equal_nulp(got, np.float32([0, 2 / 3, 4 / 3, 1]), 4)


def test_overlaps_by_hand(side):
    a, b = side.tensor(np.float32([[0, 0, 4, 4], [10, 10, 11, 11]])), side.tensor(np.float32([[0, 0, 4, 2], [2, 2, 6, 6]]))
    np.testing.assert_array_almost_equal_nulp(side.array(side.boxes.pairwise_overlap(a, b)), np.float32([[0.5, 4 / 28], [0, 0]]), 2)
    np.testing.assert_array_almost_equal_nulp(side.array(side.boxes.pairwise_overlap(a, b, "iof")), np.float32([[0.5, 0.25], [0, 0]]), 2)
    center = side.tensor(np.float32([[1, 2]]))
    there = side.boxes.xyxy_to_distance(center, side.tensor(np.float32([[0, 0, 4, 5]])))
    np.testing.assert_array_equal(side.array(there), [[1, 2, 3, 3]])
    np.testing.assert_array_equal(side.array(side.boxes.distance_to_xyxy(center, there)), [[0, 0, 4, 5]])


def batch_of(images, boxes_an_image):
    r = np.random.RandomState(images)
    boxes = [np.float32([[4, 4, 40, 44]])[:n] for n in boxes_an_image]
    batch = {"img": np.zeros((images, 3, 64, 64), np.float32), "gt_bboxes": boxes,
             "gt_labels": [np.full(len(b), 2, np.int64) for b in boxes], "gt_bboxes_ignore": None}
    raw, aux = (r.randn(images, 85, HEAD.num_classes + 4 * (HEAD.reg_max + 1)).astype(np.float32) for _ in range(2))
    return batch, raw, aux


def training_losses(side, batch, raw, aux, cfg=HEAD, **more):
    return side.losses.training_losses(raw, aux, batch, side.assigner.DynamicSoftLabelAssigner(cfg.assigner_cfg), side.integral, cfg, **more)


def test_without_a_box_only_classification_counts(side):
    batch, raw, aux = batch_of(2, [0, 0])
    raw, aux = side.tensor(raw), side.tensor(aux)
    terms, assignments = training_losses(side, batch, raw, aux)
    values = {k: float(side.array(v).reshape(())) for k, v in terms.items()}
    assert list(values) == ["loss_qfl", "loss_bbox", "loss_dfl", "aux_loss_qfl", "aux_loss_bbox", "aux_loss_dfl"]
    assert values["loss_bbox"] == values["loss_dfl"] == values["aux_loss_bbox"] == 0 and values["loss_qfl"] > 0
    assert not any(a.gt_index.any() for a in assignments)
    gradient = side.grad(terms["loss_bbox"] + terms["loss_dfl"], raw)
    assert gradient.shape == (2, 85, 37) and not gradient.any()


def test_an_empty_image_changes_nothing_but_its_own_negatives(side):
    batch, raw, aux = batch_of(2, [1, 0])
    alone = {**batch, "img": batch["img"][:1], "gt_bboxes": batch["gt_bboxes"][:1], "gt_labels": batch["gt_labels"][:1]}
    both, _ = training_losses(side, batch, side.tensor(raw), side.tensor(aux))
    one, _ = training_losses(side, alone, side.tensor(raw[:1].copy()), side.tensor(aux[:1].copy()))
    for name in ("loss_bbox", "loss_dfl", "aux_loss_bbox", "aux_loss_dfl"):
        a, b = (float(side.array(x[name]).reshape(())) for x in (both, one))
        assert abs(a - b) <= 8 * EPS * abs(b), name
    assert float(side.array(both["loss_qfl"]).reshape(())) > float(side.array(one["loss_qfl"]).reshape(()))


def test_targets(side):
    assignment = side.assigner.Assignment
    index = np.array([0, 1, -1, 2], np.int32)
    priors = np.float32([[0, 0, 8, 8], [8, 8, 8, 8], [16, 8, 8, 8], [8, 0, 8, 8]])
    boxes = np.float32([[4, 4, 12, 80], [0, -8, 16, 8]])
    t = side.losses.build_targets([assignment(index, np.float32([-1e8, 0.5, -1e8, 0.25]))], priors, [boxes], [np.array([3, 1])], HEAD)
    assert t.label.tolist() == [5, 3, 5, 1] and t.quality.tolist() == [0, 0.5, 0, 0.25] and t.weight.tolist() == [1, 1, 0, 1]
    assert t.rows.tolist() == [1, 3] and t.boxes.tolist() == boxes.tolist()
    # 72 pixels are 9 strides: held at reg_max − 0.1
    assert t.distance.tolist() == [0.5, 0.5, 0.5, float(np.float32(6.9)), 1.0, 1.0, 1.0, 1.0]


def test_ignored_priors_carry_no_loss(side):
    import dataclasses

    batch, raw, aux = batch_of(1, [1])
    cfg = dataclasses.replace(HEAD, assigner_cfg=dataclasses.replace(HEAD.assigner_cfg, ignore_iof_thr=0.01))
    batch["gt_bboxes_ignore"] = [np.float32([[0, 0, 64, 64]])]
    raw_tensor = side.tensor(raw)
    terms, assignments = training_losses(side, batch, raw_tensor, side.tensor(aux), cfg)
    held = assignments[0].gt_index == -1
    assert held.any()
    gradient = side.grad(terms["loss_qfl"], raw_tensor)[0]
    assert not gradient[held].any() and gradient[~held].any() == (~held).any()


def test_the_normaliser_of_several_processes(side):
    """Twice the sum halves the class loss, and the sum over all counts as at least 1."""
    batch, raw, aux = batch_of(1, [1])
    one, assignments = training_losses(side, batch, side.tensor(raw), side.tensor(aux))
    two, _ = training_losses(side, batch, side.tensor(raw), side.tensor(aux), normalise=lambda x: side.losses.alone(x * 2))
    none, _ = training_losses(side, batch, side.tensor(raw), side.tensor(aux), normalise=lambda x: side.losses.alone(x * 0))
    count = (assignments[0].gt_index > 0).sum()
    a, b, c = (float(side.array(x["loss_qfl"]).reshape(())) for x in (one, two, none))
    assert count > 1 and abs(a / b - 2) <= 8 * EPS * 2 and abs(c / a - count) <= 8 * EPS * count

"""A fault planted in one step of training is found in that step, under its own name."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from alignment.reasons import Verdict  # noqa: E402
from tests.alignment_train.harness import Pair, constant_predictions, tie_batch  # noqa: E402
from torch_ref import assigner, ema, losses, optim, schedule  # noqa: E402


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("pair"))


@contextlib.contextmanager
def patched(owner, name, value):
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def update_first(self, name, p, g, group):
    """AdamW with the decay after the update."""
    old, kept = p.clone(), group.weight_decay
    group.weight_decay = 0.0
    original_update(self, name, p, g, group)
    group.weight_decay = kept
    del old
    p.mul_(1 - group.lr * kept)


def decay_in_the_gradient(self, name, p, g, group):
    """Adam with L2: the decay goes through the moments."""
    kept, group.weight_decay = group.weight_decay, 0.0
    original_update(self, name, p, g + kept * p, group)
    group.weight_decay = kept


original_update = optim.AdamW.update
original_factor = ema.ExpMovingAverager.factor
original_before = schedule.LearningRate.before_step
original_giou = losses.giou_loss


@contextlib.contextmanager
def momentum(pair, path):
    module = dict(pair.candidate.main.step.model.named_modules())[path]
    module.momentum = 0.9
    try:
        yield
    finally:
        module.momentum = 0.1


def biased_forward(self, x):
    """The biased variance in the running statistics."""
    old = self.running_var.clone()
    y = original_norm(self, x)
    count, m = x.numel() // x.shape[1], self.momentum
    with torch.no_grad():  # through .data: the backward pass holds on to the buffer's version
        self.running_var.data.copy_(old * (1 - m) + (self.running_var - old * (1 - m)) * ((count - 1) / count))
    return y


original_norm = torch.nn.BatchNorm2d.forward


@contextlib.contextmanager
def half_backward(pair, path):
    module = dict(pair.candidate.main.step.model.named_modules())[path]
    handle = module.register_forward_hook(lambda m, i, y: y * 0.5 + y.detach() * 0.5)
    try:
        yield
    finally:
        handle.remove()


def test_no_fault_no_alarm(pair):
    for index in (0, 1):
        judged = pair.take(index)
        assert [row.name_ref for row in judged.rows if row.verdict not in (Verdict.PASS, Verdict.WARN)] == []
        assert len(judged.rows) > 1000 and not judged.branches


FAULTS = {
    "decay after the update": (lambda pair: patched(optim.AdamW, "update", update_first), "weights", "after/model/backbone.conv1.0.weight"),
    "decay in the gradient": (lambda pair: patched(optim.AdamW, "update", decay_in_the_gradient), "optimizer", "after/optimizer/exp_avg/"),
    "averages one update ahead": (lambda pair: patched(ema.ExpMovingAverager, "factor", lambda self, i: original_factor(self, i + 1)), "ema", "after/ema/"),
    "warm-up one step ahead": (lambda pair: patched(schedule.LearningRate, "before_step", lambda self, groups, step: original_before(self, groups, step + 1)),
                               "schedule", "rate"),
    "momentum of one BatchNorm": (lambda pair: momentum(pair, "backbone.stage3.2.branch2.1"), "statistics", "after/model/backbone.stage3.2.branch2.1.running_mean"),
    "biased variance": (lambda pair: patched(torch.nn.BatchNorm2d, "forward", biased_forward), "statistics", "after/model/backbone.conv1.1.running_var"),
    "a loss term halved": (lambda pair: patched(losses, "giou_loss", lambda a, b: 0.5 * original_giou(a, b)), "loss", "loss/loss_bbox"),
    "a backward pass halved": (lambda pair: half_backward(pair, "fpn.reduce_layers.1"), "backward", "gradient/fpn.reduce_layers.1.bn.bias"),
    "dynamic k rounded": (lambda pair: patched(assigner.DynamicSoftLabelAssigner, "match", rounded_match), "assignment", "/rule"),
}


def rounded_match(self, cost, overlap):
    topk_sum = overlap.topk(min(self.cfg.topk, overlap.shape[0]), dim=0).values.sum(dim=0)
    k = (topk_sum + 0.999).int().clamp(1, overlap.shape[0]).long()
    numbers = torch.arange(cost.shape[1])[None]
    matching = assigner.lowest(cost, k)
    cheapest = numbers == cost.argmin(dim=1)[:, None]
    matching = torch.where((matching.long().sum(dim=1) > 1)[:, None], cheapest, matching)
    return (matching.long() * (numbers + 1)).sum(dim=1), (matching.to(overlap.dtype) * overlap).sum(dim=1), topk_sum


@pytest.mark.parametrize("fault", FAULTS)
def test_found_at_its_own_step_and_name(pair, fault):
    plant, stage, name = FAULTS[fault]
    found = pair.first(1, plant(pair))
    assert (found.step, found.stage) == (1, stage)
    assert name in found.name


def higher_index_first(cost, k):
    return assigner_lowest(cost.flip(0), k).flip(0)


assigner_lowest = assigner.lowest


def test_ties_by_the_higher_index(tmp_path):
    pair = Pair(tmp_path, change=constant_predictions, batches=[tie_batch])
    assert not [row for row in pair.take(0).rows if row.failed]
    found = pair.first(0, patched(assigner, "lowest", higher_index_first))
    assert found.stage == "assignment" and found.name.endswith("/rule") and "rounding cannot explain" in found.hint



"""Faults in the rules around a training step: on which parameters, in which epoch, at which edge. Each is found in its step, in its stage, at its tensor."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from alignment.reasons import Verdict  # noqa: E402
from tests.alignment_train.harness import Pair, drawn_batch  # noqa: E402
from torch_ref import assigner, losses, schedule, training_step  # noqa: E402


def strict(tree):
    """No decay on biases, gradients that are clipped, an auxiliary branch that is cut off from the second epoch on."""
    tree["schedule"]["optimizer"]["no_bias_decay"] = True
    tree["grad_clip"] = 0.5
    tree["model"]["arch"]["detach_epoch"] = 1


def detached(tree):
    """Cut off from the first epoch on; and so few bins that every side of a large box lies beyond the last."""
    tree["model"]["arch"]["detach_epoch"] = 0
    for head in ("head", "aux_head"):
        tree["model"]["arch"][head]["reg_max"] = 1


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("strict"), steps=1, tune=strict)


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    """One small box in one of two pictures, so that the scores of all positive priors sum to less than 1; and one box that reaches beyond the last bin."""
    return Pair(tmp_path_factory.mktemp("edges"), tune=detached, batches=[drawn_batch("few", [[40, 40, 52, 52]], []), drawn_batch("large", [[2, 2, 126, 126]], [])])


@contextlib.contextmanager
def patched(*changes):
    """(owner, name, value) each."""
    with pytest.MonkeyPatch.context() as patch:
        for change in changes:
            patch.setattr(*change)
        yield


@contextlib.contextmanager
def decay_on_biases(pair):
    spared = [group for group in pair.candidate.main.step.optimizer.groups if group.weight_decay == 0]
    assert spared and all(name.endswith("bias") for group in spared for name in group.names)
    for group in spared:
        group.weight_decay = 0.5
    yield
    for group in spared:
        group.weight_decay = 0.0


def cosine_by_iteration(self, groups, step):
    before_step(self, groups, step)
    self.end_epoch(groups, step + 1)


def lighter_iou_cost(self, *given):
    kept, self.cfg = self.cfg, dataclasses.replace(self.cfg, iou_factor=1.0)
    try:
        return costs(self, *given)
    finally:
        self.cfg = kept


def not_clamped(assignments, priors, gt_boxes, gt_labels, cfg, dtype):
    return build_targets(assignments, priors, gt_boxes, gt_labels, dataclasses.replace(cfg, reg_max=1000), dtype)


def last_bins(logits, distance):
    """What is left of the loss where a too large distance does not stop it: the index ends at the last bins, the weights do not."""
    left = distance.long().clamp(max=logits.shape[1] - 2)
    nearness = distance - left.to(distance.dtype)
    return losses.cross_entropy(logits, left) * (1 - nearness) + losses.cross_entropy(logits, left + 1) * nearness


before_step, costs, build_targets = schedule.LearningRate.before_step, assigner.DynamicSoftLabelAssigner.costs, losses.build_targets
FAULTS = {
    "decay on biases": (decay_on_biases, "weights", "after/model/", "bias"),
    "clipping by value for norm": (lambda pair: patched((training_step, "clip_by_norm", lambda gradients, norm, limit: [g.clamp(-limit, limit) for g in gradients])),
                                   "optimizer", "after/optimizer/exp_avg/", ""),
    "cosine stepped by iteration": (lambda pair: patched((schedule.LearningRate, "before_step", cosine_by_iteration)), "schedule", "rate", ""),
    "detach epoch off by one": (lambda pair: patched((training_step.TrainingStep, "detach", property(lambda self: self.epoch >= self.cfg.model.arch.detach_epoch - 1))),
                                "backward", "gradient/", ""),
    "IoU cost weight 1 for 3": (lambda pair: patched((assigner.DynamicSoftLabelAssigner, "costs", lighter_iou_cost)), "assignment", "assigned/0/", ""),
}
EDGES = {
    "auxiliary head fed the un-detached pyramid": (0, lambda: patched((training_step.TrainingStep, "detach", property(lambda self: False))), "backward", "gradient/fpn."),
    "normaliser without its lower bound": (0, lambda: patched((losses.training_losses, "__defaults__", (False, lambda value: value))), "loss", "loss/loss_bbox"),
    "distribution target not clamped": (1, lambda: patched((losses, "build_targets", not_clamped), (losses, "distribution_focal_loss", last_bins)), "loss", "loss/loss_dfl"),
}


def test_no_fault_no_alarm(pair, edges):
    for judged in (pair.take(0), edges.take(0), edges.take(1)):
        assert [row.name_ref for row in judged.rows if row.verdict not in (Verdict.PASS, Verdict.WARN)] == []
        assert len(judged.rows) > 1000


@pytest.mark.parametrize("fault", FAULTS)
def test_found_in_its_own_stage(pair, fault):
    plant, stage, name, end = FAULTS[fault]
    found = pair.first(0, plant(pair))
    assert found.stage == stage and found.name.startswith(name) and found.name.endswith(end), found


@pytest.mark.parametrize("fault", EDGES)
def test_found_at_its_edge(edges, fault):
    step, plant, stage, name = EDGES[fault]
    found = edges.first(step, plant())
    assert found.stage == stage and found.name.startswith(name), found

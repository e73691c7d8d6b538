"""Order within a step, state out and in, the two regimes, frozen statistics, the clear stop; both sides on the tiny configuration."""
import dataclasses
import importlib

import numpy as np
import pytest

from jt_nanodet.errors import UserError
from jt_nanodet.weight_rules import lively_weights
from tests.training.tiny import tiny_config


class Side:
    def __init__(self, name, request):
        if name == "jt_nanodet":
            request.getfixturevalue("jittor")
        self.detector, self.module = (importlib.import_module(f"{name}.{m}") for m in ("detector", "training_step"))

    def start(self, config, seed=1, **more):
        model = self.detector.build_model(config.model.arch)
        shapes = {k: v.shape for k, v in self.detector.state_arrays(model).items()}
        self.detector.load_state(model, lively_weights(shapes, seed))
        return self.module.TrainingStep(model, config, **more)

    def state(self, step):
        return self.module.training_state(step)


@pytest.fixture(scope="module", params=[pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor)])
def side(request):
    return Side(request.param, request)


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def batch_of(seed, count=(2, 0, 3, 1)):
    r = np.random.RandomState(seed)
    size = [8 + r.rand(n, 2) * 40 for n in count]
    corner = [r.rand(n, 2) * (64 - s) for n, s in zip(count, size)]
    return {"img": r.randn(len(count), 3, 64, 64).astype(np.float32), "gt_bboxes_ignore": None,
            "gt_bboxes": [np.concatenate([c, c + s], 1).astype(np.float32) for c, s in zip(corner, size)],
            "gt_labels": [r.randint(0, 5, n) for n in count]}


def test_state_goes_out_and_in_bit_for_bit(side, config):
    one, two = side.start(config), side.start(config, seed=2)
    for i in range(2):
        one.step(batch_of(i))
    one.end_epoch()
    side.module.load_training_state(two, side.state(one))
    for i in (2, 3):
        a, b = one.step(batch_of(i)), two.step(batch_of(i))
        assert a.terms == b.terms and a.lr == b.lr and a.grad_norm == b.grad_norm
    first, second = side.state(one), side.state(two)
    assert list(first) == list(second) and int(first["epoch"]) == 1 and int(first["global_step"]) == 4
    for k, v in first.items():
        assert v.dtype == second[k].dtype and np.array_equal(v, second[k]), k


def test_order_within_a_step(side, config):
    step = side.start(config)
    before = side.state(step)
    report = step.step(batch_of(0), keep_gradients=True)
    after = side.state(step)
    assert report.lr == pytest.approx(0.002 * 0.01, rel=1e-12) and int(after["global_step"]) == 1 and int(after["optimizer/steps"]) == 1
    assert report.loss == pytest.approx(sum(report.terms.values()), rel=1e-6)
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in report.gradients.values()))
    assert report.grad_norm == pytest.approx(norm, rel=1e-5) and norm > 35, "the case must clip"
    name = "head.gfl_cls.0.weight"
    clipped = report.gradients[name] * (35 / norm)
    assert after[f"optimizer/exp_avg/{name}"] == pytest.approx(clipped * 0.1, rel=1e-4, abs=1e-9)
    # the average takes the new value with i = 1
    share = step.ema.factor(1)
    want = before[f"model/{name}"] * (1 - share) + after[f"model/{name}"] * share
    np.testing.assert_array_almost_equal_nulp(after[f"ema/{name}"], want.astype(np.float32), 4)
    bn = "backbone.conv1.1.num_batches_tracked"
    assert int(after[f"model/{bn}"]) == 1 and after[f"model/{bn}"].shape == ()


def test_detached_branch_leaves_backbone_and_pyramid_alone(side, config):
    reports = {}
    for epoch in (0, 1):
        step = side.start(config)
        step.epoch = epoch
        assert step.detach == (epoch == 1), "detach_epoch is 1 here"
        reports[epoch] = step.compute(batch_of(0), keep_gradients=True)[0]
    assert reports[0].loss == reports[1].loss
    for k, attached in reports[0].gradients.items():
        same = np.array_equal(attached, reports[1].gradients[k])
        if k.startswith(("aux_", "head.")):
            # the port fuses the two graphs differently; only the reference promises the same bits
            assert same or side.detector.__name__.startswith("jt_"), k
        elif k in ("backbone.conv1.0.weight", "fpn.reduce_layers.0.conv.weight"):
            assert not same, k


def test_frozen_statistics(side, config):
    step = side.start(config, freeze_norm=True)
    before = side.state(step)
    step.step(batch_of(0))
    after = side.state(step)
    kept = [k for k in before if k.startswith("model/") and k.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(kept) > 100 and all(np.array_equal(before[k], after[k]) for k in kept)
    assert not np.array_equal(before["model/backbone.conv1.1.weight"], after["model/backbone.conv1.1.weight"]), "its weight still learns"


def test_nan_stops_before_anything_is_updated(side, config):
    step = side.start(config)
    batch = batch_of(0)
    batch["img"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"step 0: loss_qfl is nan.*--resume"):
        step.step(batch)
    state = side.state(step)
    assert int(state["optimizer/steps"]) == 0 and np.isfinite(state["model/head.gfl_cls.0.weight"]).all()


def test_state_of_another_optimiser_is_refused(side, config):
    state = side.state(side.start(config))
    sgd = dataclasses.replace(config.schedule, optimizer=dataclasses.replace(config.schedule.optimizer, name="SGD"))
    with pytest.raises(UserError, match="another optimiser"):
        side.module.load_training_state(side.start(dataclasses.replace(config, schedule=sgd)), state)


def test_training_goes_down(side, config):
    """Ten steps on one batch."""
    step = side.start(config)
    losses = [step.step(batch_of(0)).loss for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]


def test_loss_scale():
    from torch_ref.training_step import LossScale

    scale = LossScale(True)
    assert not scale.update(False) and scale.value == 32768
    assert all(scale.update(True) for _ in range(2000)) and scale.value == 65536
    off = LossScale(False)
    assert off.update(False) and off.value == 1

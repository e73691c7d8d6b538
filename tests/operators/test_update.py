"""Clipping, AdamW and averages in one pass: float64 twin, the ordinary way, memory of its own, state in and out."""
import numpy as np
import pytest

from jt_nanodet.operators import update_reference as twin
from tests.training.tiny import tiny_config

RULE = {"clip": 0.25, "lr": 0.01, "decay": 0.05, "betas": (0.9, 0.999), "eps": 1e-8, "steps": 3, "share": 0.3}


@pytest.mark.torch
def test_the_twin_is_adamw():
    torch = pytest.importorskip("torch")
    r = np.random.RandomState(0)
    p, m, v, e = r.randn(50), np.zeros(50), np.zeros(50), r.randn(50)
    held = torch.nn.Parameter(torch.from_numpy(p.copy()))
    theirs = torch.optim.AdamW([held], RULE["lr"], RULE["betas"], RULE["eps"], RULE["decay"])
    for steps in range(1, 4):
        g, before = r.randn(50), e
        held.grad = torch.from_numpy(g) * RULE["clip"]
        theirs.step()
        p, m, v, e = twin.update(p, g, m, v, e, **{**RULE, "steps": steps})
        np.testing.assert_allclose(p, held.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(e, before * 0.7 + p * 0.3, rtol=1e-12)
    assert twin.norm([np.array([3.0]), np.array([[4.0]])]) == 5


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def start(config):
    from jt_nanodet import detector, training_step
    from jt_nanodet.weight_rules import lively_weights

    model = detector.build_model(config.model.arch)
    detector.load_state(model, lively_weights({k: v.shape for k, v in detector.state_arrays(model).items()}, 1))
    return training_step.TrainingStep(model, config)


def steps(config, ordinary, count=2):
    """State and report after every step from equal starts."""
    from jt_nanodet import training_step
    from tests.training.test_training_step import batch_of

    step, found = start(config), []
    if ordinary:
        step.fused.usable = lambda: False
    for i in range(count):
        report = step.step(batch_of(i))
        found.append((training_step.training_state(step), report))
    return found


@pytest.mark.jittor
def test_one_pass_equals_the_ordinary_way(config, jittor):
    eps = np.finfo(np.float32).eps
    for (ours, mine), (plain, theirs) in zip(steps(config, False), steps(config, True)):
        assert mine.grad_norm == theirs.grad_norm and mine.lr == theirs.lr
        assert list(ours) == list(plain)
        for k, want in plain.items():
            assert ours[k].dtype == want.dtype and ours[k].shape == want.shape, k
            # where the compiler joins a product and a sum into one rounding is its own choice
            assert np.abs(ours[k].astype(np.float64) - want).max() <= 4 * eps * np.abs(want).max(), k


@pytest.mark.jittor
def test_clipped_gradients_and_float64(config, jittor):
    """The first update of a weight, an average and a counter, from the gradient that the step reports."""
    from jt_nanodet import training_step
    from tests.training.test_training_step import batch_of

    step = start(config)
    before = training_step.training_state(step)
    report = step.step(batch_of(0), keep_gradients=True)
    after = training_step.training_state(step)
    assert report.grad_norm == pytest.approx(twin.norm(report.gradients.values()), rel=1e-6) and report.grad_norm > config.grad_clip
    for k, g in report.gradients.items():
        p = before[f"model/{k}"].astype(np.float64)
        optimizer = config.schedule.optimizer
        want = twin.update(p, g, 0 * p, 0 * p, before[f"ema/{k}"], clip=config.grad_clip / (report.grad_norm + 1e-6), lr=report.lr, steps=1,
                           decay=optimizer.decay, betas=optimizer.betas, eps=optimizer.eps, share=step.ema.factor(1))
        names = (f"model/{k}", f"optimizer/exp_avg/{k}", f"optimizer/exp_avg_sq/{k}", f"ema/{k}")
        for name, truth in zip(names, want):
            assert np.abs(after[name] - truth).max() <= 8 * np.finfo(np.float32).eps * np.abs(truth).max() + 1e-12, name
    assert after["ema/backbone.conv1.1.num_batches_tracked"] == int(np.float32(step.ema.factor(1))), "truncated, as upstream's"


@pytest.mark.jittor
def test_shared_memory_is_parted(jittor):
    from jt_nanodet.operators.update import unshared

    one = jittor.array(np.float32([1, 2, 3]))
    copies = [one, one.detach().clone(), jittor.array(np.float32([4]))]
    jittor.sync(copies)
    unshared(copies)
    assert len({t.raw_ptr for t in copies}) == 3
    assert [t.numpy().tolist() for t in copies] == [[1, 2, 3], [1, 2, 3], [4]]


@pytest.mark.jittor
def test_norm_of_every_size(jittor):
    from jt_nanodet.operators.update import global_norm

    r = np.random.RandomState(0)
    arrays = [r.randn(*s).astype(np.float32) for s in ((1,), (7, 3), (40000,), (16384,), (5, 1, 3, 3))]
    assert global_norm([jittor.array(a) for a in arrays]).item() == pytest.approx(twin.norm(arrays), rel=1e-7)

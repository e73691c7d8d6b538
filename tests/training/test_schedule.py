"""Warm-up by step and cosine by epoch against PyTorch's scheduler driven as upstream drives it; no tensor involved."""
import importlib

import pytest

from jt_nanodet.config import LrScheduleConfig, OptimizerConfig, ScheduleConfig, WarmupConfig
from tests.golden.training_case import RATE, relative

torch = pytest.importorskip("torch")


def groups(rates):
    return [type("Group", (), {"lr": r, "initial_lr": r})() for r in rates]


@pytest.mark.parametrize("side", ["torch_ref", pytest.param("jt_nanodet", marks=pytest.mark.jittor)])
@pytest.mark.parametrize("kind", ["linear", "constant", "exp"])
@pytest.mark.parametrize("steps", [0, 7, 25])
def test_equals_upstreams_interplay(side, kind, steps):
    """25 warm-up steps outlive an epoch of 10, 0 means a single warm-up step; T_max 4 is passed, so the cosine turns."""
    cfg = ScheduleConfig(OptimizerConfig("SGD", 0.1), WarmupConfig(kind, steps, 0.01), 10, LrScheduleConfig("CosineAnnealingLR", 4, 0.001))
    ours = groups([0.1, 0.02])
    rate = importlib.import_module(f"{side}.schedule").LearningRate(cfg)
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in ours]
    theirs = torch.optim.SGD([{"params": [p], "lr": g.lr} for p, g in zip(params, ours)], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 4, 0.001)
    step = 0
    for epoch in range(1, 11):
        for _ in range(10):
            rate.before_step(ours, step)
            if step <= steps:
                part = step / steps if steps else 1.0
                k = {"linear": 1 - (1 - part) * 0.99, "constant": 0.01, "exp": 0.01 ** (1 - part)}[kind]
                for group in theirs.param_groups:
                    group["lr"] = group["initial_lr"] * k
            assert relative([g.lr for g in ours], [g["lr"] for g in theirs.param_groups]) <= RATE, f"step {step}"
            theirs.step()
            step += 1
        rate.end_epoch(ours, epoch)
        cosine.step()


def test_first_step_runs_at_the_ratio_and_warm_up_ends_after_its_last_step():
    from torch_ref.schedule import LearningRate

    cfg = ScheduleConfig(OptimizerConfig("SGD", 1.0), WarmupConfig("linear", 4, 0.1), 2, LrScheduleConfig("CosineAnnealingLR", 2))
    (group,), rate = groups([1.0]), LearningRate(cfg)
    seen = []
    for step in range(6):
        rate.before_step([group], step)
        seen.append(group.lr)
        group.lr = group.lr if step < 5 else -1
    assert seen[0] == pytest.approx(0.1, abs=0, rel=RATE) and seen[4] == 1.0 and seen[5] == 1.0
    group.lr = 0.25
    rate.before_step([group], 5)
    assert group.lr == 0.25, "after warm-up the rate is the cosine's alone"

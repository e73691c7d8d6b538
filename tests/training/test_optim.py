"""AdamW, SGD, groups and clipping: the reference against PyTorch's own, bit for bit; the port against the same numbers."""
import importlib

import numpy as np
import pytest

from jt_nanodet.config import OptimizerConfig, ParamLevelConfig

torch = pytest.importorskip("torch")
CONFIGS = {
    "AdamW": OptimizerConfig("AdamW", 0.01, 0.05),
    "AdamW default decay": OptimizerConfig("AdamW", 0.003),
    "SGD": OptimizerConfig("SGD", 0.1, 0.001),
    "SGD momentum": OptimizerConfig("SGD", 0.1, 0.001, momentum=0.9),
    "SGD nesterov": OptimizerConfig("SGD", 0.1, momentum=0.9, nesterov=True),
}
STEPS = 5


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Conv2d(4, 2, 1)


def gradients(shapes, step):
    r = np.random.RandomState(step)
    return {k: r.randn(*s).astype(np.float32) * 10.0 ** r.randint(-3, 2) for k, s in shapes.items()}


def theirs(model, cfg):
    """PyTorch's own optimiser over the same parameters."""
    if cfg.name == "AdamW":
        return torch.optim.AdamW(model.parameters(), cfg.lr, cfg.betas, cfg.eps, cfg.decay)
    return torch.optim.SGD(model.parameters(), cfg.lr, cfg.momentum, weight_decay=cfg.decay, nesterov=cfg.nesterov)


@pytest.mark.torch
@pytest.mark.parametrize("name", CONFIGS)
def test_reference_equals_pytorch(name):
    from torch_ref.optim import build_optimizer

    cfg = CONFIGS[name]
    torch.manual_seed(0)
    one, two = Small(), Small()
    two.load_state_dict(one.state_dict())
    ours, reference = build_optimizer(one, cfg), theirs(two, cfg)
    shapes = {k: tuple(p.shape) for k, p in one.named_parameters()}
    for step in range(STEPS):
        grads = {k: torch.from_numpy(g) for k, g in gradients(shapes, step).items()}
        rate = cfg.lr * (step + 1) / STEPS
        for group in [*ours.groups]:
            group.lr = rate
        reference.param_groups[0]["lr"] = rate
        ours.step(grads)
        for k, p in two.named_parameters():
            p.grad = grads[k].clone()
        reference.step()
        for (k, a), b in zip(one.named_parameters(), two.parameters()):
            assert torch.equal(a, b), f"step {step}: {k}"


@pytest.mark.jittor
@pytest.mark.parametrize("name", CONFIGS)
def test_port_equals_reference_in_rounding(name, jittor):
    """The port's update is the reference's formula; it may differ by a few roundings of the terms it adds."""
    from jt_nanodet import optim as port
    from torch_ref import optim as reference

    cfg = CONFIGS[name]
    torch.manual_seed(0)
    model = Small()
    shapes = {k: tuple(p.shape) for k, p in model.named_parameters()}
    names = list(shapes)
    module = type("Fake", (), {})()
    module.state_dict = lambda: twin
    module.named_modules = list
    twin = {k: jittor.array(p.detach().numpy()) for k, p in model.named_parameters()}
    ours, theirs_ = port.build_optimizer(module, cfg), reference.build_optimizer(model, cfg)
    for step in range(STEPS):
        grads = gradients(shapes, step)
        before = {k: p.detach().numpy().copy() for k, p in model.named_parameters()}
        theirs_.step({k: torch.from_numpy(g) for k, g in grads.items()})
        ours.step({k: jittor.array(g) for k, g in grads.items()})
        jittor.sync_all()
        eps = np.finfo(np.float32).eps
        for k in names:
            got, want = twin[k].numpy(), theirs_.params[k].detach().numpy()
            moved = np.abs(want - before[k]) + np.abs(want)
            # a handful of roundings a step, each of the size of what is added; they add up over the steps
            assert (np.abs(got - want) <= 8 * (step + 1) * eps * moved + 8 * (step + 1) * eps * cfg.lr).all(), f"step {step}: {k}"


@pytest.mark.torch
def test_groups_follow_upstream():
    from torch_ref.optim import parameter_groups

    cfg = OptimizerConfig("AdamW", 0.1, 0.05, no_norm_decay=True, no_bias_decay=True,
                          param_level_cfg={"head": ParamLevelConfig(0.5, 2.0), "conv": ParamLevelConfig(0.1)})
    found = {n: (g.lr, g.weight_decay) for g in parameter_groups(Small(), cfg) for n in g.names}
    want = {"conv.weight": (0.1 * 0.1, 0.05), "bn.weight": (0.1, 0.0), "bn.bias": (0.1, 0.0), "head.weight": (0.05, 0.1), "head.bias": (0.05, 0.0)}
    assert found == want
    assert [g.names for g in parameter_groups(Small(), OptimizerConfig("SGD", 0.1))] == [list(found)], "equal settings share a group"


@pytest.mark.torch
def test_clipping_equals_pytorch():
    from torch_ref.optim import clip_by_norm, global_norm

    grads = [torch.from_numpy(g) for g in gradients({"a": (5, 7), "b": (300,)}, 1).values()]
    for limit in (0.5, 1e6):
        holders = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
        for p, g in zip(holders, grads):
            p.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(holders, limit)
        ours = global_norm(grads)
        assert torch.equal(ours.reshape(()), norm)
        assert all(torch.equal(a, p.grad) for a, p in zip(clip_by_norm(grads, ours, limit), holders))


@pytest.mark.parametrize("side", [pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor)])
def test_moments_go_out_and_in(side, request):
    if side == "jt_nanodet":
        jt = request.getfixturevalue("jittor")
        tensor, model = jt.array, type("Fake", (), {"named_modules": lambda self: [], "state_dict": lambda self: self.values})()
        model.values = {"w": jt.ones((2, 3))}
    else:
        tensor, model = torch.from_numpy, torch.nn.Linear(3, 2, bias=False)
    build = importlib.import_module(f"{side}.optim").build_optimizer
    one, two = build(model, CONFIGS["AdamW"]), build(model, CONFIGS["AdamW"])
    one.step({k: tensor(np.full((2, 3), 0.5, np.float32)) for k in one.params})
    two.load_state(one.state())
    assert two.steps == 1
    for k, v in one.state().items():
        np.testing.assert_array_equal(two.state()[k], v, err_msg=k)

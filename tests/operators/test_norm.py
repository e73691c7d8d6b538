"""Normalisation with its activation: float64 twin, PyTorch's error, running statistics, fusion that changes no bit."""
import numpy as np
import pytest

from jt_nanodet.operators import norm_reference as twin
from tests.operators.measure import check_gradient, no_worse

SHAPES = {"odd": (2, 6, 7, 5), "several vectors": (4, 16, 20, 20), "large mean": (8, 32, 10, 10)}


def case(shape, seed=0):
    r = np.random.RandomState(seed)
    centre = 100 if shape == SHAPES["large mean"] else 1
    return [a.astype(np.float32) for a in (
        r.randn(*shape) * 3 + centre, r.rand(shape[1]) + 0.5, r.randn(shape[1]), r.randn(*shape))]


@pytest.mark.parametrize("groups", [0, 3])
@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_the_twin_is_right(groups, slope):
    r = np.random.RandomState(3)
    x, weight, bias, gy = (a.astype(np.float64) for a in case(SHAPES["odd"]))
    found = twin.backward(x, weight, bias, gy, groups, 1e-5, slope)
    check_gradient(lambda *a: twin.forward(*a, groups, 1e-5, slope)[0], found, [x, weight, bias], gy, r)


@pytest.mark.jittor
@pytest.mark.torch
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_no_worse_than_pytorch(name, groups, slope, jittor):
    torch = pytest.importorskip("torch")
    from jt_nanodet.operators import norm

    x, weight, bias, gy = case(SHAPES[name])
    c = len(weight)
    held = [jittor.array(a) for a in (x, weight, bias)]
    if groups:
        y = norm.group_norm(*held, groups, 1e-5)
    else:
        y, *statistics = norm.batch_norm(*held, jittor.zeros(c), jittor.ones(c), jittor.zeros(1, dtype="int32"), 1e-5, 0.1)
    y = y if slope == 1 else norm.followed_by(y, slope)
    ours = [a.numpy() for a in (y, *jittor.grad((y * jittor.array(gy)).sum(), held))]
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, weight, bias)]
    mean, var = torch.zeros(c), torch.ones(c)
    if groups:
        out = torch.nn.functional.group_norm(tensors[0], groups, *tensors[1:], 1e-5)
    else:
        out = torch.nn.functional.batch_norm(tensors[0], mean, var, *tensors[1:], True, 0.1, 1e-5)
    out = torch.nn.functional.leaky_relu(out, slope)
    out.backward(torch.from_numpy(gy))
    theirs = [a.detach().numpy() for a in (out, *(t.grad for t in tensors))]
    truth = [twin.forward(x, weight, bias, groups, 1e-5, slope)[0], *twin.backward(x, weight, bias, gy, groups, 1e-5, slope)]
    # an element within rounding of the kink may fall on either side, on either side
    z = twin.forward(x, weight, bias, groups, 1e-5, slope)[1]
    assert np.abs(z).min() > 0 if slope == 1 else True
    near = np.abs(z) < 1e-4
    if not (slope < 1 and near.any()):
        no_worse(ours, theirs, truth, ("output", "input", "weight", "bias"))
    else:
        no_worse(ours[:1], theirs[:1], truth[:1], ("output",))
    if not groups:
        no_worse([a.numpy() for a in statistics[:2]], [mean.numpy(), var.numpy()], twin.running(x, np.zeros(c), np.ones(c), 0.1), ("mean", "variance"))
        assert statistics[2].numpy().tolist() == [1]


@pytest.mark.jittor
def test_one_pass_or_two_give_the_same_bits(jittor):
    """The activation finds its normalisation only through the very output; a copy goes the long way, and differs in no bit."""
    from jt_nanodet.layers import BatchNorm2d, LeakyReLU

    x, weight, bias, gy = case(SHAPES["several vectors"])
    found = []
    for apart in (False, True):
        bn, act = BatchNorm2d(len(weight)), LeakyReLU(0.1)
        bn.train()
        bn.weight.update(jittor.array(weight)), bn.bias.update(jittor.array(bias))
        given = jittor.array(x)
        y = bn(given)
        z = act(y.reshape(y.shape) if apart else y)
        found.append([a.numpy() for a in (z, *jittor.grad((z * jittor.array(gy)).sum(), [given, bn.weight, bn.bias]), bn.running_mean, bn.running_var)])
    for one, two in zip(*found):
        np.testing.assert_array_equal(one, two)


@pytest.mark.jittor
def test_threads_change_no_bit(jittor):
    from jt_nanodet import runtime
    from jt_nanodet.operators import norm

    x, weight, bias, gy = case(SHAPES["several vectors"])
    before, found = runtime.info().threads, []
    try:
        for threads in (1, 3):
            runtime.set_threads(threads)
            held = [jittor.array(a) for a in (x, weight, bias)]
            y = norm.group_norm(*held, 4, 1e-5)
            found.append([a.numpy() for a in (y, *jittor.grad((y * jittor.array(gy)).sum(), held))])
    finally:
        runtime.set_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found))


@pytest.mark.jittor
def test_not_a_number_stays_one(jittor):
    from jt_nanodet.operators import norm

    x, weight, bias, _ = case(SHAPES["odd"])
    x[0, 2, 3, 1] = np.nan
    y = norm.group_norm(*(jittor.array(a) for a in (x, weight, bias)), 2, 1e-5)
    bad = np.isnan(norm.followed_by(y, 0.1).numpy())
    assert bad[0, :3].all() and not bad[0, 3:].any() and not bad[1].any()

"""Depthwise convolution and max-pooling: float64 twin, PyTorch's error, ties, NaN, threads."""
import numpy as np
import pytest

from jt_nanodet.operators import window_reference as twin
from tests.operators.measure import check_gradient, no_worse

#: kernel, stride, padding, height, width: NanoDet's own, and what could go wrong at the edges
CASES = {"3x3": (3, 1, 1, 7, 9), "3x3 by 2": (3, 2, 1, 20, 20), "odd by 2": (3, 2, 1, 9, 8), "5x5": (5, 1, 2, 40, 40), "5x5 by 2": (5, 2, 2, 10, 11),
         "smaller than its kernel": (5, 1, 2, 2, 1), "7x7": (7, 1, 3, 13, 40), "no padding by 3": (3, 3, 0, 11, 10)}


def case(name):
    k, s, p, h, w = CASES[name]
    r = np.random.RandomState(len(name))
    x, weight = r.randn(2, 6, h, w).astype(np.float32), r.randn(6, 1, k, k).astype(np.float32)
    return x, weight, r.randn(2, 6, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1).astype(np.float32), s, p


@pytest.mark.parametrize("name", ["3x3", "5x5 by 2", "no padding by 3"])
def test_the_twins_are_right(name):
    x, weight, gy, s, p = case(name)
    x, weight, r = x.astype(np.float64), weight.astype(np.float64), np.random.RandomState(0)
    check_gradient(lambda *a: twin.depthwise(*a, s, p), twin.depthwise_backward(x, weight, gy, s, p), [x, weight], gy, r)
    k = weight.shape[2]
    check_gradient(lambda a: twin.max_pool(a, k, s, p)[0], [twin.max_pool_backward(x, gy, k, s, p)], [x], gy, r)


@pytest.mark.jittor
@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_depthwise_is_no_worse_than_pytorch(name, jittor):
    torch = pytest.importorskip("torch")
    from jt_nanodet.operators import window

    x, weight, gy, s, p = case(name)
    held = [jittor.array(a) for a in (x, weight)]
    y = window.depthwise(*held, s, p)
    ours = [a.numpy() for a in (y, *jittor.grad((y * jittor.array(gy)).sum(), held))]
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, weight)]
    out = torch.nn.functional.conv2d(*tensors, None, s, p, groups=x.shape[1])
    out.backward(torch.from_numpy(gy))
    theirs = [a.detach().numpy() for a in (out, *(t.grad for t in tensors))]
    no_worse(ours, theirs, [twin.depthwise(x, weight, s, p), *twin.depthwise_backward(x, weight, gy, s, p)], ("output", "input", "weight"))


@pytest.mark.jittor
@pytest.mark.torch
@pytest.mark.parametrize("values", ["drawn", "ties", "not a number"])
@pytest.mark.parametrize("name", [n for n in CASES if CASES[n][2] * 2 <= CASES[n][0]])
def test_max_pool_equals_pytorch(name, values, jittor):
    torch = pytest.importorskip("torch")
    from jt_nanodet.operators import window

    x, weight, gy, s, p = case(name)
    k = weight.shape[2]
    if values == "ties":
        x = np.round(x)
    elif values == "not a number":
        x[0, 1, x.shape[2] // 2, 0] = np.nan
    given = jittor.array(x)
    y = window.max_pool(given, k, s, p)
    tensor = torch.from_numpy(x).requires_grad_()
    out = torch.nn.functional.max_pool2d(tensor, k, s, p)
    out.backward(torch.from_numpy(gy))
    np.testing.assert_array_equal(y.numpy(), out.detach().numpy())
    found = jittor.grad((y * jittor.array(gy)).sum(), [given])[0]
    # up to nine gradients meet in one element, in another order
    np.testing.assert_allclose(found.numpy(), tensor.grad.numpy(), rtol=0, atol=k * k * np.finfo(np.float32).eps * np.abs(gy).max() * 4)


@pytest.mark.jittor
def test_threads_change_no_bit(jittor):
    from jt_nanodet import runtime
    from jt_nanodet.operators import window

    x, weight, gy, s, p = case("5x5")
    before, found = runtime.info().threads, []
    try:
        for threads in (1, 3):
            runtime.set_threads(threads)
            held = [jittor.array(a) for a in (x, weight)]
            y = window.depthwise(*held, s, p)
            found.append([a.numpy() for a in (y, *jittor.grad((y * jittor.array(gy)).sum(), held))])
    finally:
        runtime.set_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found))

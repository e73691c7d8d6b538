"""Bilinear interpolation to twice the size: float64 twin, PyTorch's error."""
import numpy as np
import pytest

from jt_nanodet.operators import upsample_reference as twin
from tests.operators.measure import check_gradient, no_worse


def case(h, w):
    r = np.random.RandomState(h)
    return r.randn(2, 3, h, w).astype(np.float32), r.randn(2, 3, 2 * h, 2 * w).astype(np.float32)


def test_the_twin_is_right():
    x, gy = (a.astype(np.float64) for a in case(5, 4))
    check_gradient(twin.upsample, [twin.upsample_backward(gy)], [x], gy, np.random.RandomState(0))


@pytest.mark.jittor
@pytest.mark.torch
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 7), (10, 10), (20, 20)])
def test_no_worse_than_pytorch(size, jittor):
    torch = pytest.importorskip("torch")
    from jt_nanodet.operators import upsample

    x, gy = case(*size)
    given, tensor = jittor.array(x), torch.from_numpy(x).requires_grad_()
    y = upsample.upsample(given)
    out = torch.nn.functional.interpolate(tensor, scale_factor=2, mode="bilinear", align_corners=False)
    out.backward(torch.from_numpy(gy))
    ours = [y.numpy(), jittor.grad((y * jittor.array(gy)).sum(), [given])[0].numpy()]
    no_worse(ours, [out.detach().numpy(), tensor.grad.numpy()], [twin.upsample(x), twin.upsample_backward(gy)], ("output", "input"))

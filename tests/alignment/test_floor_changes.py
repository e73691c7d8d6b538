"""The harmless changes are changes: a small image goes to another algorithm too, and an honest convolution that adds in one chain stays within the floor."""

from __future__ import annotations

import numpy as np
import pytest

from alignment import backward
from alignment.compare import compare_tensors
from alignment.layers import tolerance
from alignment.reasons import Reason, Verdict

torch = pytest.importorskip("torch")


def operators(function):
    """What `function` returns, and the names of PyTorch's operators below it."""
    with torch.autograd.profiler.profile() as profile:
        found = function()
    return found, {event.name for event in profile.function_events}


def convolved(images, kernel, stride=1, groups=1, shift=None):
    """Output and gradients of a convolution, the input's among them where it has one."""
    y = torch.nn.functional.conv2d(images, kernel, shift, padding=kernel.shape[-1] // 2, stride=stride, groups=groups)
    return (y, *torch.autograd.grad((y * torch.cos(y.detach())).sum(), [t for t in (images, kernel, shift) if t is not None and t.requires_grad]))


@pytest.mark.torch
@pytest.mark.parametrize(("count", "size", "kernel", "stride", "groups"), [(1, 8, 3, 1, 1), (1, 8, 1, 1, 1), (1, 9, 3, 2, 8), (2, 8, 3, 1, 1), (3, 5, 1, 1, 1)])
@pytest.mark.parametrize("learns", [True, False])
def test_channels_last_is_another_algorithm_for_every_convolution(count, size, kernel, stride, groups, learns):
    """PyTorch alone computes one small image without oneDNN, so that neither switching oneDNN off nor the memory format moved a bit."""
    from alignment.runners.torch_changes import channels_last

    random = torch.Generator().manual_seed(0)
    images = torch.randn(count, 8, size, size, generator=random).requires_grad_(learns)
    weight, shift = (torch.randn(shape, generator=random).requires_grad_() for shape in ((16, 8 // groups, kernel, kernel), (16,)))
    threads = torch.get_num_threads()
    plain = convolved(images, weight, stride, groups, shift)
    with channels_last():
        moved, names = operators(lambda: convolved(images, weight, stride, groups, shift))
    assert "aten::mkldnn_convolution" in names and torch.get_num_threads() == threads
    assert len(moved) == len(plain) == 3 + learns
    for one, other in zip(plain, moved):
        assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_only_the_convolution_changes_its_memory_format(count, last):
    """A slice of channels is contiguous in neither format and keeps the one it comes from."""
    from alignment.runners.torch_changes import channels_last

    kind = torch.channels_last if last else torch.contiguous_format
    whole, weight = torch.randn(count, 8, 5, 5).contiguous(memory_format=kind), torch.randn(6, 4, 3, 3)
    for images in (whole[:, :4], whole[:, :4].contiguous(memory_format=kind).requires_grad_()):
        with channels_last():
            y = torch.nn.functional.conv2d(images, weight)
            given = torch.autograd.grad(y.sum(), images)[0] if images.requires_grad else y
        assert y.is_contiguous(memory_format=kind) and given.is_contiguous(memory_format=kind)


@pytest.mark.torch
def test_what_is_no_plain_float32_convolution_is_left_alone():
    from alignment.runners.torch_changes import channels_last

    wide, row = torch.randn(1, 4, 6, 6, dtype=torch.float64), torch.randn(1, 4, 9)
    with channels_last():
        double = torch.nn.functional.conv2d(wide, torch.ones(2, 4, 3, 3, dtype=torch.float64))
        line = torch.nn.functional.conv1d(row, torch.ones(2, 4, 3))
    assert torch.equal(double, torch.nn.functional.conv2d(wide, torch.ones(2, 4, 3, 3, dtype=torch.float64)))
    assert torch.equal(line, torch.nn.functional.conv1d(row, torch.ones(2, 4, 3)))


def floor_of(images, weight):
    """(PyTorch's result, its float64 run, the tolerance by all harmless changes) of a 3x3 convolution."""
    from alignment.runners.torch_changes import harmless_changes, nudged_model
    from alignment.runners.torch_runner import floor

    layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
    layer.weight.data.copy_(torch.from_numpy(weight))
    nudged, given, names = nudged_model(layer.requires_grad_(False), 0), torch.from_numpy(images), ["as is"]
    runs = [layer(given).numpy()]
    for change in harmless_changes(0):
        with change.around():
            runs.append(np.ascontiguousarray(change.after((nudged if change.weights else layer)(change.before(given))).numpy()))
        names.append(change.name)
    truth = layer.double()(given.double()).numpy()
    return runs[0], truth, tolerance(floor(truth, runs, tuple(names)))


@pytest.mark.jittor
@pytest.mark.torch
@pytest.mark.parametrize("seed", [0, 3])
def test_a_long_sum_in_another_order_is_no_fault_and_shortened_weights_are(jittor, seed):
    """Jittor's oneDNN adds 1,728 products one after the other, PyTorch sixteen channels at a time: on one small image that was called a fault."""
    random = np.random.RandomState(seed)
    images = np.maximum(random.randn(1, 192, 8 + 4 * (seed > 0), 8), random.randn(1, 192, 8 + 4 * (seed > 0), 8) * 0.1).astype(np.float32)
    weight = (random.randn(192, 192, 3, 3) / np.sqrt(1728)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ref, ref64, bound = floor_of(images, weight)
    finally:
        torch.set_num_threads(threads)

    def judged(given):
        with jittor.no_grad():
            return compare_tensors("conv", ref, jittor.nn.conv2d(jittor.array(images), jittor.array(given), padding=1).numpy(), tolerance=bound, ref64=ref64)

    honest, shortened = judged(weight), judged(weight.astype(np.float16).astype(np.float32))
    assert honest.verdict is Verdict.PASS and honest.floor_from
    assert shortened.failed and shortened.max_abs > 5 * shortened.tolerance


def alone(off: float, whole_scale: float):
    """The row of a bias whose gradient, for the call alone, is 1e-6 with a floor of 15 % of that; in the whole run it is `whole_scale` with a floor of 1e-6."""
    def floor(max_abs, scale):
        return {"max_abs": max_abs, "rmse": max_abs / 2, "scale": scale, "size": 96, "dtype": "float32", "repeats": 6}

    truth = np.linspace(-1e-6, 1e-6, 96)
    ref = {"own/bn/bias": truth.astype(np.float32), "param/bn.bias": np.full(96, whole_scale, np.float32), "grad/bn": np.ones(96, np.float32)}
    cand = {**ref, "own/bn/bias": (truth + off).astype(np.float32)}
    double = {name: array.astype(np.float64) for name, array in ref.items()}
    about = {"order": ["bn"], "types": {"bn": "BatchNorm2d"}, "floors": {"own/bn/bias": floor(1.5e-7, 1e-6), "param/bn.bias": floor(1e-6, whole_scale), "grad/bn": floor(1e-7, 1.0)}}
    rows, _ = backward.judge(ref, cand, double, about, {"count": 0, "worst": 0.0})
    return {row.name_ref: row for row in rows}["backward/bn/bias"]


def test_a_gradient_that_vanishes_in_the_whole_run_is_rounding_alone_too():
    """A bias in front of a BatchNorm: what the call alone is handed sums up to the rounding of a zero."""
    assert alone(1e-7, whole_scale=1e-16).verdict is Verdict.PASS
    beyond = alone(1e-4, whole_scale=1e-16)
    assert beyond.failed and beyond.tolerance < 2e-6


def test_elsewhere_so_wide_a_floor_still_decides_nothing():
    undecided = alone(1e-7, whole_scale=1e-3)
    assert (undecided.verdict, undecided.reason) == (Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE)

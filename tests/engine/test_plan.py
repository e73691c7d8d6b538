"""Folding, memory and packing of the engine, without running it."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet.engine.fold import fold
from jt_nanodet.engine.memory import ALIASING, merged, place, plane_floats
from jt_nanodet.engine.pack import blocked
from jt_nanodet.engine.plan import Buffer, Plan, Step


def test_folding_is_convolution_then_normalisation():
    r = np.random.RandomState(0)
    weight, bias, x = r.randn(4, 3, 1, 1).astype("f4"), r.randn(4).astype("f4"), r.randn(3)
    norm = {"weight": r.randn(4), "bias": r.randn(4), "running_mean": r.randn(4), "running_var": r.rand(4) + 0.1}
    w, b = fold(weight, bias, norm, 1e-5)
    want = (weight[:, :, 0, 0] @ x + bias - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    np.testing.assert_allclose(w[:, :, 0, 0] @ x + b, want, rtol=1e-5)
    np.testing.assert_array_equal(fold(weight, None, None)[1], np.zeros(4))


def chain(sizes):
    plan, before = Plan(8, 8), ()
    for channels, height in sizes:
        out = plan.buffer(channels, height, height)
        plan.steps.append(Step("pointwise", "x", height, height, before, out))
        before = out
    return plan


def test_buffers_alive_together_do_not_overlap():
    plan = chain([(4, 8), (16, 8), (2, 4), (8, 8), (4, 8), (30, 4)])
    plan.steps[-1].residual = plan.steps[0].outputs  # the first lives to the end
    offsets, total = place(plan)
    born = {p.buffer: k for k, s in enumerate(plan.steps) for p in s.outputs}
    dead = {p.buffer: k for k, s in enumerate(plan.steps) for p in s.inputs + s.residual + s.outputs}
    spans = [(born[i], dead[i], offsets[i], offsets[i] + b.channels * plane_floats(b)) for i, b in enumerate(plan.buffers)]
    for i, (b0, d0, o0, e0) in enumerate(spans):
        assert 0 <= o0 and e0 <= total
        for b1, d1, o1, e1 in spans[i + 1:]:
            assert not (b0 <= d1 and b1 <= d0) or e0 <= o1 or e1 <= o0
    assert total < sum(e - o for _, _, o, e in spans)  # and places are used again


def test_planes_are_whole_vectors_and_not_a_power_of_two_apart():
    assert plane_floats(Buffer(1, 5, 5)) == 32
    assert all(plane_floats(Buffer(1, n, n)) % ALIASING for n in range(1, 130))
    assert merged([(8, 4), (0, 8), (20, 1)]) == [(0, 12), (20, 1)]


def test_blocks_of_output_channels():
    found = blocked(np.arange(14.0, dtype="f4").reshape(7, 2))
    assert found.shape == (2, 2, 6) and found[0, 1, 3] == 7 and found[1, 0, 0] == 12 and not found[1, :, 1:].any()


@pytest.mark.jittor
@pytest.mark.parametrize("size", ["0.5x", "1.0x", "1.5x", "2.0x"])
def test_every_backbone_has_a_plan_of_the_networks_work(jittor, size):
    import dataclasses

    from jt_nanodet.backbone import STAGE_CHANNELS
    from jt_nanodet.detector import build_model
    from jt_nanodet.engine.build import build
    from tests.engine.conftest import small_arch

    arch = small_arch()
    channels = STAGE_CHANNELS[size][1:4]
    arch = dataclasses.replace(arch, backbone=dataclasses.replace(arch.backbone, model_size=size), fpn=dataclasses.replace(arch.fpn, in_channels=channels))
    plan = build(build_model(arch), 64, 96)
    text = str(plan)
    assert text.count("\n") == len(plan.steps) and "backbone.stage4.3.branch2.5" in text and "head.gfl_cls.3" in text
    assert plan.priors == 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 and plan.outputs == 112

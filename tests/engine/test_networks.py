"""The engine against the ordinary graph on every network it is for: the four configurations and all widths of the backbone, in batches, by teams of any
size, on inputs of any shape. The bound is the measured floor's, by the rules of `alignment.noise`."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest

from alignment.compare import compare_tensors
from alignment.noise import measure_floor, tolerance_from_floor
from alignment.reasons import Verdict
from tests.engine.conftest import ROOT, lively_model, plain

pytestmark = pytest.mark.jittor

SIZE = (64, 96)  # height, width
#: name -> configuration, width of the backbone if not its own
NETWORKS = {"m_320": ("m_320", None), "m_416": ("m_416", None), "m-1.5x_320": ("m-1.5x_320", None), "m-1.5x_416": ("m-1.5x_416", None),
            "0.5x": ("m_320", "0.5x"), "1.0x": ("m_416", "1.0x"), "2.0x": ("m-1.5x_416", "2.0x")}


@contextlib.contextmanager
def threads(number):
    from jt_nanodet import runtime

    before = runtime.info().threads
    runtime.set_threads(number)
    try:
        yield
    finally:
        runtime.set_threads(before)


def network(name):
    """The detector of a configuration, with weights drawn from a seed of its own."""
    from jt_nanodet.backbone import STAGE_CHANNELS
    from jt_nanodet.config import load_config

    config, size = NETWORKS[name]
    arch = load_config(ROOT / "configs" / f"nanodet-plus-{config}.yml").model.arch
    if size:
        backbone, fpn = dataclasses.replace(arch.backbone, model_size=size), dataclasses.replace(arch.fpn, in_channels=STAGE_CHANNELS[size][1:4])
        arch = dataclasses.replace(arch, backbone=backbone, fpn=fpn)
    return lively_model(arch, list(NETWORKS).index(name))


def floor_of(jt, model, images):
    """(float64 run, ordinary run, tolerance): the floor is the ordinary graph's own distance from float64 under harmless changes."""
    from tests.engine.float64 import forward

    truth, runs = forward(model, images), {"as is": plain(jt, model, images)}
    with threads(1):
        runs["1 thread"] = plain(jt, model, images)
    runs["each alone"] = np.concatenate([plain(jt, model, images[i:i + 1]) for i in range(len(images))])
    runs["input moved by one ULP"] = plain(jt, model, np.nextafter(images, np.where(images > 0, np.inf, -np.inf).astype("f4")))
    floor = measure_floor(truth, list(runs.values()), list(runs), channel_axis=2)
    return truth, runs["as is"], tolerance_from_floor(floor, float64_ratio=1.5)


def judged(ref, fast, tolerance, truth):
    return compare_tensors("raw", ref, fast, tolerance=tolerance, ref64=truth)


@pytest.mark.parametrize("name", NETWORKS)
def test_network(jittor, name):
    from jt_nanodet.engine import engine

    model, images = network(name), np.random.RandomState(5).randn(3, 3, *SIZE).astype(np.float32)
    truth, ordinary, tolerance = floor_of(jittor, model, images)
    assert tolerance.undecidable is None and truth.std() > 0.1
    whole = engine.forward(model, images)
    row = judged(ordinary, whole, tolerance, truth)
    assert row.verdict == Verdict.PASS, row
    assert row.max_abs > 0  # it is not the ordinary graph that was computed twice
    assert np.sqrt(np.mean((whole - truth) ** 2)) <= 1.5 * np.sqrt(np.mean((ordinary - truth) ** 2))
    for number, batch in ((1, 1), (2, 1), (2, 3), (3, 2), (5, 1)):
        with threads(number):
            np.testing.assert_array_equal(engine.forward(model, images[:batch]), whole[:batch], err_msg=f"{number} threads, batch {batch}")
    # the twin that must fail: one weight of the last convolution, moved by a thousandth of the largest
    weight = model.head.gfl_cls[1].weight
    moved = weight.numpy()
    moved[3, 5, 0, 0] += 1e-3 * np.abs(moved).max()
    weight.update(jittor.array(moved))
    assert judged(ordinary, engine.forward(model, images), tolerance, truth).verdict == Verdict.FAIL


#: Maps of one cell, of a row and of a column; widths around every vector's (16, 8, 4) and their remainders.
SHAPES = [(32, 32), (32, 96), (224, 32), (96, 160), (160, 224), (64, 544)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_shape(jittor, model, shape):
    from jt_nanodet.engine import engine

    images = np.random.RandomState(shape[0] * shape[1]).randn(2, 3, *shape).astype(np.float32)
    truth, ordinary, tolerance = floor_of(jittor, model, images)
    for number in (1, 2, 3):
        with threads(number):
            for batch in (1, 2):
                row = judged(ordinary[:batch], engine.forward(model, images[:batch]), tolerance, truth[:batch])
                assert row.verdict == Verdict.PASS, (number, batch, row)


@pytest.mark.parametrize("shape", [(64, 80), (33, 64), (1, 1)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_other_sides_are_refused_with_a_sentence(model, shape):
    from jt_nanodet.engine.build import Unsupported, build

    with pytest.raises(Unsupported, match="multiples of 32"):
        build(model, *shape)

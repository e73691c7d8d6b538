"""The engine against the ordinary graph and against float64: any batch, size and thread count, changed weights, unknown layers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.conftest import SIZE, lively_model, plain, small_arch

pytestmark = pytest.mark.jittor


@pytest.fixture(scope="module")
def truth(jittor, model, images):
    """The network in float64, through Jittor's generic operators."""
    from tests.engine.float64 import forward

    return forward(model, images)


@pytest.fixture(scope="module")
def ordinary(jittor, model, images):
    return plain(jittor, model, images)


def test_errors_against_float64_are_the_ordinary_graphs(model, images, truth, ordinary):
    from jt_nanodet.engine import engine

    fast = engine.forward(model, images)
    assert fast.shape == ordinary.shape and np.abs(truth).std() > 0.1
    own, other = (np.sqrt(np.mean((x - truth) ** 2)) for x in (fast, ordinary))
    assert 0 < own <= 1.5 * other


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batch_and_threads_do_not_matter(jittor, model, images, truth, ordinary, batch, threads):
    from jt_nanodet import runtime
    from jt_nanodet.engine import engine

    before = runtime.info().threads
    runtime.set_threads(threads)
    try:
        fast = engine.forward(model, images[:batch])
    finally:
        runtime.set_threads(before)
    assert np.abs(fast - truth[:batch]).max() <= 1.5 * np.abs(ordinary - truth).max()
    np.testing.assert_array_equal(fast, engine.forward(model, images)[:batch])  # bit for bit


def test_decoded_as_the_ordinary_decoder_does(jittor, model, images, ordinary):
    from jt_nanodet.decode import decode
    from jt_nanodet.engine import engine

    boxes, scores = engine.detect(model, images)
    want_boxes, want_scores = decode(jittor.array(engine.forward(model, images)), model.head.distribution_project, model.cfg.head, SIZE)
    ulp = np.finfo(np.float32).eps
    assert np.abs(boxes - want_boxes.numpy()).max() <= 8 * ulp * max(SIZE) and boxes.min() >= 0 and boxes.max() <= max(SIZE)
    assert np.abs(scores - want_scores.numpy()).max() <= 4 * ulp


@pytest.mark.parametrize("size", [(64, 64), (32, 160), (160, 32)])
def test_other_sizes(jittor, model, size):
    from jt_nanodet.engine import engine

    images = np.random.RandomState(1).randn(1, 3, *size).astype(np.float32)
    want = plain(jittor, model, images)
    assert np.abs(engine.forward(model, images) - want).max() < 1e-5 * np.abs(want).max()


def test_changed_weights_are_packed_again(jittor, images):
    from jt_nanodet.engine import engine

    model = lively_model(small_arch())
    before = engine.forward(model, images[:1])
    weight = model.head.gfl_cls[0].bias
    weight.update(weight + 1)
    changed = engine.forward(model, images[:1]) - before
    first = SIZE[0] * SIZE[1] // 64
    assert np.allclose(changed[:, :first], 1, atol=1e-4) and not changed[:, first:].any()


def test_a_wrong_plan_is_seen(jittor, model, images, truth, ordinary):
    """The twin that must fail: two channels of one step exchanged."""
    from jt_nanodet.engine import operation
    from jt_nanodet.engine.build import build
    from jt_nanodet.engine.pack import pack

    plan = build(model, *SIZE)
    step = next(s for s in plan.steps if s.kind == "pointwise")
    step.inputs = (step.inputs[1], step.inputs[0], *step.inputs[2:])
    raw = operation.run(*operation.as_vars(*pack(plan)), images[:1], (1, plan.priors, plan.outputs), operation.RAW, (10**6, 0))
    assert np.abs(raw - truth[:1]).max() > 100 * np.abs(ordinary - truth).max()


def test_an_unknown_layer_falls_back_with_a_sentence(jittor, images, capsys):
    from jt_nanodet import tester
    from jt_nanodet.engine import choice

    model = lively_model(small_arch(activation="SiLU"))
    assert choice.attempt(model, images[:1]) is None
    said = capsys.readouterr().err
    assert "backbone.conv1.2 is a" in said and "ordinary graph" in said
    assert tester.path_taken(model, False).startswith("computed by the ordinary graph: backbone.conv1.2")
    choice.attempt(model, images[:1])
    assert capsys.readouterr().err == ""  # once is enough


def test_training_mode_and_plain_take_the_ordinary_graph(jittor, model, images):
    from jt_nanodet import tester
    from jt_nanodet.engine import choice

    fast, slow = (tester.detect(model, model.cfg.head, images, plain=p)[1] for p in (False, True))
    assert 0 < np.abs(fast - slow).max() < 1e-5
    assert tester.path_taken(model, False) == "computed by the CPU engine" and "as asked" in tester.path_taken(model, True)
    model.train()
    try:
        assert "training mode" in choice.objection(model)
    finally:
        model.eval()

"""``alignment.layers --backward``: gradients of every call on both sides, and that looking at them changes none."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

from alignment import layers
from tests.alignment_train.harness import small_config


@pytest.mark.torch
@pytest.mark.jittor
@pytest.mark.slow
def test_every_gradient_of_both_sides_agrees_alone_and_in_the_whole_pass(tmp_path):
    code = layers.main(["--backward", "--config", str(small_config(tmp_path)), "--output", str(tmp_path / "out"), "-q"])
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    rows = {row["name_ref"]: row for row in result["tensors"]}
    assert (code, result["failed"]) in ((0, 0), (3, 0)) and result["backward"]["first_divergence"] is None
    assert all(rows[f"observer/{side}{part}"]["verdict"] == "pass" for side in ("pytorch", "jittor") for part in ("", "/backward"))
    judged = [row for name, row in rows.items() if name.startswith("backward/")]
    assert len(judged) > 500 and {"BatchNorm2d", "Conv2d", "LeakyReLU", "MaxPool2d", "Scale"} <= {row["module_type"] for row in judged}
    # the port joins a normalisation with the activation after it; apart, what lies between them has a gradient, and it is the reference's
    assert [row["name_ref"] for row in judged if row["inherited_verdict"] == "fail"] == []
    assert rows["backward/backbone.maxpool/input"]["verdict"] == "pass"
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith("backward")) == []


@pytest.mark.jittor
def test_only_apart_has_the_output_between_a_normalisation_and_its_activation_a_gradient(jittor):
    from jt_nanodet.layers import BatchNorm2d, LeakyReLU
    from jt_nanodet.operators import norm

    r, found = np.random.RandomState(0), {}
    x, gy = (r.randn(2, 8, 6, 6).astype(np.float32) for _ in range(2))
    for joined in (True, False):
        bn, act = BatchNorm2d(8), LeakyReLU(0.1)
        bn.train()
        before = norm.join(joined)
        given = jittor.array(x)
        between = bn(given)
        found[joined] = [a.numpy() for a in jittor.grad((act(between) * jittor.array(gy)).sum(), [between, given, bn.weight, bn.bias])]
        assert norm.join(before) is joined
    assert not found[True][0].any() and np.array_equal(found[False][0] != 0, gy != 0)
    assert all(np.array_equal(one, other) for one, other in zip(found[True][1:], found[False][1:]))


@pytest.fixture
def torch_side(tmp_path):
    """The reference with weights of seed 0, and one image."""
    from alignment.runners import torch_runner
    from jt_nanodet.config import load_config
    from jt_nanodet.weight_rules import lively_weights

    backend, config = torch_runner.TorchBackend({}), load_config(small_config(tmp_path))
    backend.load(config, lively_weights(backend.shapes(config), 0), training_branch=False)
    return backend, np.random.RandomState(1).randn(1, 3, 128, 128).astype(np.float32)


@pytest.mark.torch
def test_a_recording_that_changes_one_gradient_is_seen(torch_side):
    from alignment.runners import backward_tasks, train_tasks

    backend, images = torch_side
    _, recorded = backward_tasks.whole(backend, backend.model, images, 0, train_tasks.Signs(backend), True)
    assert backward_tasks.observer_equal(backend, images, 0, True) and backward_tasks.observer_equal(backend, images, 0, True, recorded)
    name = "param/head.gfl_cls.0.bias"
    changed = {**recorded, name: np.nextafter(recorded[name], np.float32(np.inf))}
    assert not backward_tasks.observer_equal(backend, images, 0, True, changed)
    honest = backend.intercept

    @contextlib.contextmanager
    def intercept(replace):
        with honest(lambda path, module, inputs, output: output * 1.001 if path == "head.gfl_cls.0" else replace(path, module, inputs, output)):
            yield

    backend.intercept = intercept
    assert not backward_tasks.observer_equal(backend, images, 0, True)


@pytest.mark.torch
def test_an_input_moved_by_one_ulp_keeps_the_choice_of_a_maximum():
    from alignment.runners.backward_tasks import moved

    array = np.float32([1, 1, -2, 0, 3, 3, np.nextafter(np.float32(3), np.float32(4))])
    kept = moved("MaxPool2d", array, np.random.RandomState(0))
    assert (kept > array).all() and np.array_equal(np.argsort(kept, kind="stable"), np.argsort(array, kind="stable")) and kept[0] == kept[1] and kept[4] == kept[5]
    other = [moved("Conv2d", array, np.random.RandomState(seed)) for seed in range(8)]
    assert {float(np.sign(one[0] - array[0])) for one in other} == {-1.0, 1.0} and all(one[3] == 0 for one in other)


@pytest.mark.torch
def test_calls_are_taken_in_groups_of_bounded_size(monkeypatch):
    from alignment.runners import backward_tasks

    monkeypatch.setattr(backward_tasks, "GROUP_BYTES", 100)
    given = {f"in/{k}": np.zeros(size, np.uint8) for k, size in enumerate((60, 60, 60, 500, 1, 1))}
    found = list(backward_tasks.groups([str(k) for k in range(6)], given))
    assert found == [(0, ["0", "1"]), (2, ["2", "3"]), (4, ["4", "5"])]
    assert list(backward_tasks.groups([], {})) == []

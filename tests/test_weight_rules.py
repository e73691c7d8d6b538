"""jt_nanodet.weight_rules: what fits a model, and the weights a training or a comparison starts from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jt_nanodet.errors import UserError
from jt_nanodet.weight_rules import CLASS_PRIOR_BIAS, check_fit, initial_weights, lively_weights

SHAPES = {
    "backbone.conv1.0.weight": (24, 3, 3, 3),
    "backbone.conv1.1.weight": (24,), "backbone.conv1.1.bias": (24,), "backbone.conv1.1.running_mean": (24,), "backbone.conv1.1.running_var": (24,),
    "backbone.conv1.1.num_batches_tracked": (),
    "fpn.reduce_layers.0.conv.weight": (96, 116, 1, 1),
    "fpn.top_down_blocks.0.blocks.0.ghost1.primary_conv.0.weight": (48, 192, 1, 1),
    "head.distribution_project.project": (8,),
    "head.cls_convs.0.0.depthwise.weight": (96, 1, 5, 5),
    "head.gfl_cls.0.weight": (112, 96, 1, 1), "head.gfl_cls.0.bias": (112,),
    "aux_fpn.reduce_layers.0.conv.weight": (96, 116, 1, 1),
    "aux_fpn.top_down_blocks.0.blocks.0.ghost1.primary_conv.0.weight": (48, 192, 1, 1),
    "aux_head.gfl_cls.weight": (80, 192, 3, 3), "aux_head.gfl_cls.bias": (80,), "aux_head.scales.0.scale": (),
}


def whole(**changes):
    return {**initial_weights(SHAPES, 0), **changes}


def without(*parts):
    return {name: value for name, value in whole().items() if not any(part in name for part in parts)}


@pytest.mark.parametrize("training_branch", [True, False])
def test_the_whole_fits(training_branch):
    check_fit(SHAPES, whole(), training_branch)


@pytest.mark.parametrize("weights", [without("aux_"), without("num_batches_tracked"), without("aux_", "num_batches_tracked")])
def test_inference_takes_released_files(weights):
    check_fit(SHAPES, weights, training_branch=False)
    with pytest.raises(UserError, match="missing"):
        check_fit(SHAPES, weights)


@pytest.mark.parametrize(("weights", "text"), [
    (without("head.gfl_cls.0.bias"), "1 missing (first: head.gfl_cls.0.bias)"),
    (without("aux_head.scales"), "1 missing (first: aux_head.scales.0.scale)"),  # half a branch is no branch
    (whole(more=np.ones(2, np.float32)), "1 unexpected (first: more)"),
    (whole(**{"head.gfl_cls.0.bias": np.ones(111, np.float32)}), "1 of another shape (first: head.gfl_cls.0.bias is (111,), not (112,))"),
    (whole(**{"aux_head.scales.0.scale": np.ones(1, np.float32)}), "is (1,), not ()"),
    (whole(**{"head.gfl_cls.0.bias": np.full(112, np.inf, np.float32)}), "1 not finite (first: head.gfl_cls.0.bias)"),
    ({"a": np.ones(1), "b": np.ones(1)}, "missing (first: backbone.conv1.0.weight); 2 unexpected (first: a)"),
])
@pytest.mark.parametrize("training_branch", [True, False])
def test_misfits_are_counted_and_named(weights, text, training_branch):
    with pytest.raises(UserError) as error:
        check_fit(SHAPES, weights, training_branch)
    assert text in str(error.value) and str(error.value).endswith("with --config") and "\n" not in str(error.value)


@pytest.mark.parametrize("draw", [initial_weights, lively_weights])
def test_drawn_weights_fit_and_repeat(draw):
    first, again, other = draw(SHAPES, 1), draw(SHAPES, 1), draw(SHAPES, 2)
    check_fit(SHAPES, first)
    for name, value in first.items():
        assert value.dtype == (np.int64 if name.endswith("tracked") else np.float32) and np.array_equal(value, again[name])
    assert not np.array_equal(first["head.gfl_cls.0.weight"], other["head.gfl_cls.0.weight"])


@pytest.mark.parametrize("draw", [initial_weights, lively_weights])
def test_an_entry_does_not_depend_on_its_neighbours(draw):
    alone = draw({"head.gfl_cls.0.weight": SHAPES["head.gfl_cls.0.weight"]}, 5)
    assert np.array_equal(alone["head.gfl_cls.0.weight"], draw(SHAPES, 5)["head.gfl_cls.0.weight"])


@pytest.mark.parametrize(("name", "spread"), [
    ("backbone.conv1.0.weight", 1 / 3),
    ("head.gfl_cls.0.weight", 0.01),
    ("head.cls_convs.0.0.depthwise.weight", 0.01),
    ("aux_head.gfl_cls.weight", 0.01),
    ("fpn.reduce_layers.0.conv.weight", math.sqrt(2 / 96)),
    ("fpn.top_down_blocks.0.blocks.0.ghost1.primary_conv.0.weight", 1 / math.sqrt(192) / math.sqrt(3)),  # uniform within 1 / sqrt(fan in)
])
def test_initial_spread_is_upstreams(name, spread):
    values = initial_weights(SHAPES, 0)[name]
    # the standard deviation of n draws is known to 1 / sqrt(2 n); four of these
    assert abs(values.std() / spread - 1) < 4 / math.sqrt(2 * values.size) and abs(values.mean()) < 4 * spread / math.sqrt(values.size)


def test_initial_constants():
    drawn = initial_weights(SHAPES, 0)
    want = {
        "backbone.conv1.1.weight": 1, "backbone.conv1.1.bias": 0.0001, "backbone.conv1.1.running_mean": 0, "backbone.conv1.1.running_var": 1,
        "head.gfl_cls.0.bias": CLASS_PRIOR_BIAS, "aux_head.gfl_cls.bias": CLASS_PRIOR_BIAS, "aux_head.scales.0.scale": 1,
    }
    for name, value in want.items():
        assert np.array_equal(drawn[name], np.full(SHAPES[name], value, np.float32)), name
    assert drawn["head.distribution_project.project"].tolist() == list(range(8))
    assert 1 / (1 + math.exp(-CLASS_PRIOR_BIAS)) == pytest.approx(0.01, rel=1e-2)


def test_the_auxiliary_pyramid_starts_as_a_copy():
    drawn = initial_weights(SHAPES, 3)
    for name, value in drawn.items():
        if name.startswith("aux_fpn."):
            assert np.array_equal(value, drawn[name.removeprefix("aux_")])


def test_lively_weights_leave_nothing_at_its_start():
    plain, lively = initial_weights(SHAPES, 0), lively_weights(SHAPES, 0)
    still = [name for name in SHAPES if np.array_equal(plain[name], lively[name])]
    assert still == ["backbone.conv1.1.num_batches_tracked", "head.distribution_project.project"]
    assert all(value.min() > 0 for name, value in lively.items() if name.endswith("running_var"))

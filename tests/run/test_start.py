"""Starting weights: drawn, taken, or refused."""
import numpy as np
import pytest

from jt_nanodet.errors import UserError
from jt_nanodet.run.start import starting_weights
from jt_nanodet.weight_rules import initial_weights

SHAPES = {
    "backbone.conv1.0.weight": (24, 3, 3, 3),
    "backbone.conv1.1.num_batches_tracked": (),
    "fpn.reduce_layers.0.conv.weight": (4, 24, 1, 1),
    "head.gfl_cls.0.weight": (37, 8, 1, 1),
    "aux_fpn.reduce_layers.0.conv.weight": (4, 24, 1, 1),
    "aux_head.gfl_cls.weight": (5, 8, 3, 3),
    "aux_head.gfl_reg.weight": (32, 8, 3, 3),
}


def test_without_a_file():
    weights, remarks = starting_weights(SHAPES, 3, None, 5)
    assert remarks == [] and all(np.array_equal(v, initial_weights(SHAPES, 3)[k]) for k, v in weights.items())


def test_a_whole_file_is_taken_whole():
    given = initial_weights(SHAPES, 9)
    weights, remarks = starting_weights(SHAPES, 3, given, 5)
    assert remarks == [] and all(np.array_equal(v, given[k]) for k, v in weights.items())


def test_a_released_file_lacks_branch_and_counters():
    given = {k: v for k, v in initial_weights(SHAPES, 9).items() if not k.startswith("aux_") and "num_batches" not in k}
    weights, remarks = starting_weights(SHAPES, 3, given, 5)
    assert np.array_equal(weights["aux_fpn.reduce_layers.0.conv.weight"], given["fpn.reduce_layers.0.conv.weight"])
    assert np.array_equal(weights["aux_head.gfl_reg.weight"], initial_weights(SHAPES, 3)["aux_head.gfl_reg.weight"])
    assert len(remarks) == 2 and "auxiliary branch" in remarks[0] and "num_batches_tracked" in remarks[1]


def test_another_class_count_is_said():
    given = initial_weights({**SHAPES, "head.gfl_cls.0.weight": (112, 8, 1, 1), "aux_head.gfl_cls.weight": (80, 8, 3, 3)}, 9)
    weights, remarks = starting_weights(SHAPES, 3, given, 5)
    assert weights["head.gfl_cls.0.weight"].shape == (37, 8, 1, 1) and "for 80 classes, the model for 5: 2 arrays" in remarks[0]


@pytest.mark.parametrize(("change", "words"), [
    (lambda w: w.pop("fpn.reduce_layers.0.conv.weight"), "is missing"),
    (lambda w: w.update(extra=np.zeros(1, np.float32)), "extra is unexpected"),
    (lambda w: w.update({"backbone.conv1.0.weight": np.zeros((24, 3, 1, 1), np.float32)}), r"\(24, 3, 1, 1\), not \(24, 3, 3, 3\)"),
    (lambda w: w["aux_head.gfl_reg.weight"].fill(np.nan), "NaN"),
])
def test_refusals(change, words):
    given = initial_weights(SHAPES, 9)
    change(given)
    with pytest.raises(UserError, match=words):
        starting_weights(SHAPES, 3, given, 5)

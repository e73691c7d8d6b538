"""weights_convert.layouts: which entries are the weights, by rule; everything else has a reason or is refused."""

import pytest

from jt_nanodet.errors import UserError
from weights_convert.layouts import TRAINING_RECORDS, UNKNOWN_RECORD, find_state, select

NAMES = ["backbone.conv1.0.weight", "head.scale"]
RAW = [f"model.{n}" for n in NAMES]
EMA = [f"avg_model.{n}" for n in NAMES]
TENSOR = object()


def is_tensor(value):
    return value is TENSOR


def bare(selection):
    return [name for name, _ in selection.taken.values()]


@pytest.mark.parametrize(
    ("names", "which", "taken", "set_", "layout"),
    [
        (NAMES, "auto", NAMES, "only", "plain"),
        (RAW, "auto", RAW, "raw", "Lightning"),
        (RAW, "raw", RAW, "raw", "Lightning"),
        (EMA, "auto", EMA, "ema", "Lightning"),
        (RAW + EMA, "auto", EMA, "ema", "Lightning"),
        (RAW + EMA, "raw", RAW, "raw", "Lightning"),
        (EMA + RAW, "ema", EMA, "ema", "Lightning"),
        ([f"module.{n}" for n in NAMES], "auto", [f"module.{n}" for n in NAMES], "only", "DataParallel plain"),
        ([f"module.{n}" for n in RAW], "auto", [f"module.{n}" for n in RAW], "raw", "DataParallel Lightning"),
    ],
)
def test_layouts(names, which, taken, set_, layout):
    selection = select(names, which, "x.ckpt")
    assert (list(selection.taken), selection.which, selection.layout) == (taken, set_, layout)
    assert bare(selection) == NAMES
    assert set(selection.taken) | set(selection.left) == set(names)
    assert all(reason for _, reason in selection.taken.values()) and all(selection.left.values())


@pytest.mark.parametrize(
    ("names", "which", "match"),
    [
        (NAMES, "raw", "does not say.*--weights auto"),
        (NAMES, "ema", "does not say.*--weights auto"),
        (RAW, "ema", "holds no EMA weights, only raw weights"),
        (EMA, "raw", "holds no raw weights, only EMA weights"),
        (NAMES, "mean", "auto, raw, ema"),
        (RAW + ["criterion.weight"], "auto", "1 names that no rule knows .criterion.weight"),
        (RAW + EMA[:1], "auto", "under different names"),
        (["model."], "auto", "empty or not printable"),
    ],
)
def test_refusals(names, which, match):
    with pytest.raises(UserError, match=match):
        select(names, which, "x.ckpt")


def test_incomplete_ema_can_still_be_chosen_by_hand():
    assert bare(select(RAW + EMA[:1], "ema", "x")) == NAMES[:1]


def test_no_prefix_is_removed_inside_a_name():
    names = ["head.model.weight", "module_list.0", "models.0", "avg_model_2.x"]
    assert bare(select(names, "auto", "x")) == names


def test_prefix_is_removed_once():
    assert bare(select(["model.model.weight"], "auto", "x")) == ["model.weight"]


def test_state_dict_and_training_records():
    top = {"state_dict": {"a": TENSOR}, **dict.fromkeys(TRAINING_RECORDS), "optimizer": {"x": TENSOR}, "date": "today"}
    state, left = find_state(top, is_tensor, "x")
    assert state == {"a": TENSOR} and left == {**TRAINING_RECORDS, "date": UNKNOWN_RECORD}


def test_bare_dict_of_tensors():
    assert find_state({"a": TENSOR, "b": TENSOR}, is_tensor, "x") == ({"a": TENSOR, "b": TENSOR}, {})


@pytest.mark.parametrize(
    ("top", "match"),
    [
        (["list"], "one pickled 'list'"),
        ({}, "empty dict"),
        ({3: TENSOR}, "'3', whose name is not printable text"),
        ({"a\x1b[31m": TENSOR}, r"'a\\x1b\[31m', whose name"),
        ({"state_dict": {"a\nb": TENSOR}}, r"no tensor as 'a\\nb'"),
        ({"model": {"a": TENSOR}, "epoch": 3}, "no 'state_dict' among its entries .model, epoch"),
        ({"a": TENSOR, "epoch": 3}, "no 'state_dict'"),
        ({"state_dict": {}}, "empty 'state_dict'"),
        ({"state_dict": TENSOR, "epoch": 1}, "no 'state_dict'"),
        ({"state_dict": {"a": 1.0}}, "'float' and no tensor as 'a'"),
        ({"state_dict": {2: TENSOR}}, "no tensor as '2'"),
        ({"state_dict": {"a": TENSOR}, "ema_state_dict": {"a": TENSOR}}, "holds tensors in 'ema_state_dict'"),
        ({"state_dict": {"a": TENSOR}, "extra": TENSOR}, "holds tensors in 'extra'"),
    ],
)
def test_what_is_no_checkpoint(top, match):
    with pytest.raises(UserError, match=match) as caught:
        find_state(top, is_tensor, "x.pth")
    assert "torch.save({'state_dict': model.state_dict()}, PATH)" in str(caught.value)

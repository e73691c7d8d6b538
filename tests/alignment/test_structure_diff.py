"""Two module trees: every particular that can differ does so visibly."""

from __future__ import annotations

import copy
import json

import pytest

from alignment.reasons import Reason
from alignment.result import Result
from alignment.structure_diff import HERE, diff_structure


def module(path, kind, params=(), **more):
    return {"path": path, "type": kind, "hyper": more.pop("hyper", {}), "calls": 1, "flops": None, **more,
            "params": [{"name": name, "shape": list(shape), "dtype": "float32"} for name, shape in params]}


REF = [
    module("", "Net"), module("stem", "Sequential"),
    module("stem.0", "Conv2d", [("weight", (8, 3, 3, 3))], hyper={"kernel_size": [3, 3], "stride": (2, 2), "padding": 1, "groups": 1}, flops=1000),
    module("stem.1", "BatchNorm2d", [("weight", (8,)), ("bias", (8,))], hyper={"eps": 1e-5, "momentum": 0.1}),
    module("stem.2", "LeakyReLU", hyper={"negative_slope": 0.1, "inplace": True}),
    module("up", "Upsample", hyper={"scale_factor": 2, "mode": "bilinear", "align_corners": False}),
    module("scale", "Scale", [("scale", ())]),
]


def candidate():
    """The same network as the other framework describes it."""
    cand = copy.deepcopy(REF)
    cand[2]["hyper"] = {"kernel_size": 3, "stride": 2, "padding": (1, 1), "groups": 1}
    cand[2]["type"], cand[3]["type"] = "Conv", "BatchNorm"
    cand[4].update(type="Leaky_relu", hyper={"scale": 0.1})
    cand[6]["params"][0]["shape"] = [1]
    return cand


def test_equal_networks_in_two_dialects():
    diff = diff_structure(REF, candidate())
    assert diff.counts == {"match": 7, "diff": 0, "only_ref": 0, "only_cand": 0} and diff.first_difference is None
    assert diff.totals == {"parameters_ref": 216 + 16 + 1, "parameters_cand": 216 + 16 + 1, "flops_ref": 1000, "flops_cand": 1000}
    assert any("one number either way" in note for note in diff.rows[6].notes) and HERE not in diff.tree()
    assert Result("structure", tensors=diff.results()).exit_code == 0


def changed(index, key, value):
    def apply(cand):
        cand[index]["hyper"][key] = value
    return apply


FAULTS = {
    "stride": changed(2, "stride", 1), "padding": changed(2, "padding", [1, 0]), "groups": changed(2, "groups", 2), "dilation": changed(2, "dilation", 2),
    "eps": changed(3, "eps", 1e-3), "momentum": changed(3, "momentum", 0.9), "slope": changed(4, "scale", 0.01), "mode": changed(5, "mode", "nearest"),
    "align_corners": changed(5, "align_corners", True), "scale_factor": changed(5, "scale_factor", 3),
    "type": lambda cand: cand[6].update(type="Gain"),
    "weight shape": lambda cand: cand[2]["params"][0].update(shape=[8, 3, 1, 1]),
    "weight dtype": lambda cand: cand[2]["params"][0].update(dtype="float16"),
    "bias": lambda cand: cand[3]["params"].pop(),
    "calls": lambda cand: cand[5].update(calls=2),
    "flops": lambda cand: cand[2].update(flops=999),
    "order of parameters": lambda cand: cand[3]["params"].reverse(),
    "place among the common modules": lambda cand: cand.insert(3, cand.pop(4)),
}


@pytest.mark.parametrize("field", FAULTS)
def test_each_particular(field):
    cand = candidate()
    FAULTS[field](cand)
    diff = diff_structure(REF, cand)
    row = diff.first_difference
    assert diff.counts["diff"] == 1 and [one.field for one in row.differences] == [field]
    result = Result("structure", tensors=diff.results())
    assert (result.exit_code, result.reason, result.first_failure.name_ref) == (1, Reason.STRUCTURE_DIFFERS, row.path)
    assert field in result.first_failure.hint
    (marked,) = [line for line in diff.tree().splitlines() if HERE in line]
    assert marked.strip().startswith(row.path.rsplit(".", 1)[-1])


def test_modules_on_one_side_only_stand_at_their_place():
    cand = candidate()
    cand.insert(3, module("stem.extra", "Conv2d"))
    cand.pop(5)
    diff = diff_structure(REF, cand)
    assert [(row.path, row.status) for row in diff.rows if row.status != "match"] == [("stem.extra", "only_cand"), ("stem.2", "only_ref")]
    assert [row.path for row in diff.rows].index("stem.extra") == 3
    assert {row.reason for row in diff.results() if row.failed} == {Reason.MISSING, Reason.EXTRA}
    assert len(diff.tree(only_different=True).splitlines()) == 4


def test_buffers_are_compared_but_not_counted():
    ref, cand = copy.deepcopy(REF), candidate()
    for side in (ref, cand):
        side[3]["params"].append({"name": "running_mean", "shape": [8], "dtype": "float32", "trainable": False})
    assert diff_structure(ref, cand).totals["parameters_ref"] == 233
    cand[3]["params"][-1]["shape"] = [9]
    assert diff_structure(ref, cand).counts["diff"] == 1


def test_a_boolean_is_not_a_number():
    cand = candidate()
    cand[5]["hyper"]["align_corners"] = 0
    assert diff_structure(REF, cand).counts["diff"] == 1


@pytest.mark.parametrize("ref, cand", [([], REF), (REF, []), (REF + REF[:1], REF)])
def test_nonsense_is_refused(ref, cand):
    with pytest.raises(ValueError):
        diff_structure(ref, cand)


def test_json():
    document = json.loads(json.dumps(diff_structure(REF, candidate()).to_json()))
    assert document["counts"]["match"] == 7 and document["first_difference"] is None and len(document["rows"]) == 7

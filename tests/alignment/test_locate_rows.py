"""alignment.locate, field by field: the divergence and the combined row as whole records."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from alignment.locate import HINTS, Divergence, combine, first_divergence
from alignment.noise import AMPLIFIES, FACTOR, OWN_REL_L2_CAP
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult


def row(name, verdict=Verdict.PASS, reason=Reason.OK, gate=Gate.BOUND, **more) -> TensorResult:
    return TensorResult(name, name, verdict, reason, gate, **{"refed": True, "inherited_verdict": Verdict.PASS, **more})


BAD = {"verdict": Verdict.FAIL, "reason": Reason.BEYOND_TOLERANCE, "max_abs": 3.0, "tolerance": 2.0, "hint": "many", "stage": "forward"}
INHERITS = {"inherited_verdict": Verdict.FAIL, "inherited": 5.0, "tolerance": 2.0, "origin": "inherited"}


def found(*rows, **more) -> dict:
    return dataclasses.asdict(first_divergence(rows, **more))


def expected(**more) -> dict:
    fields = {"name": "b", "kind": "own", "position": 1, "step": None, "stage": "forward", "error": 3.0, "tolerance": 2.0, "ratio": 1.5, "reason": Reason.BEYOND_TOLERANCE, "hint": "many", "causes": (),
              "before": "a", "after": "c", "confirmed": True, "note": "", "others": ()}
    assert set(fields) == {f.name for f in dataclasses.fields(Divergence)}
    return {**fields, **more}


def without(document, *names):
    return {key: value for key, value in document.items() if key not in names}


def test_an_own_error_among_its_neighbours():
    assert without(found(row("a"), row("b", **BAD), row("c", **INHERITS)), "causes") == without(expected(note="a before it is clean; c after it only inherits"), "causes")
    assert found(row("a"), row("b", **BAD), row("c"))["note"] == "a before it is clean; the error has vanished again at c"
    assert found(row("a"), row("b", **BAD), row("c", inherited_verdict=None))["note"] == "a before it is clean"
    alone = found(row("b", **BAD))
    assert (alone["before"], alone["after"], alone["position"], alone["note"], alone["confirmed"]) == (None, None, 0, "nothing comes before it; nothing comes after it", True)
    several = found(row("a"), row("b", **BAD), row("c", **BAD), row("d", **BAD))
    assert (several["note"], several["others"]) == ("a before it is clean; c after it has an error of its own as well", ("c", "d"))
    dirty = found(row("a", **INHERITS), row("b", **BAD))
    assert (dirty["note"], dirty["confirmed"]) == ("a before it is not clean in the whole run; nothing comes after it", False)
    warned = found(row("a", Verdict.WARN), row("b", **BAD))
    assert warned["confirmed"] and warned["note"].startswith("a before it is clean")


def test_between_modules():
    first = found(row("a"), row("b", **INHERITS), row("c", **INHERITS))
    note = "a before it is clean; every node agrees on the reference's input, so the code that connects them differs"
    assert first == expected(kind="between", error=5.0, ratio=2.5, reason=Reason.OK, hint="", causes=(HINTS["between"],), note=note)
    assert HINTS["between"] == "a function called outside a module (concatenation, addition, resize, slicing), or modules called in another order"


@pytest.mark.parametrize(("entering", "kind"), [(OWN_REL_L2_CAP, "amplification"), (OWN_REL_L2_CAP * 1.001, "between")])
def test_amplification(entering, kind):
    more = {**INHERITS, "origin": "amplified", "entering_rel_l2": entering, "inherited_rel_l2": 2e-3}
    first = found(row("a"), row("b", **more))
    assert (first["kind"], first["causes"], first["error"]) == (kind, (HINTS[kind],), 5.0)
    if kind == "amplification":
        assert first["note"] == "a before it is clean; a relative difference of 1e-05 enters and 0.002 leaves it"


def test_without_own_errors():
    plain = {"refed": False, "inherited_verdict": None}
    first = found(row("a", **plain), row("b", **{**BAD, **plain}), row("c", **{**BAD, **plain}))
    assert without(first, "causes") == without(expected(kind="whole", confirmed=False, note="own errors were not measured, so the node may inherit this difference"), "causes")
    mixed = found(row("a"), row("b", **{**BAD, **plain}))
    assert mixed["kind"] == "whole"
    lost = found(row("a"), row("b", **{**BAD, **plain, "gate": Gate.KEYS, "reason": Reason.MISSING}), row("c"))
    assert (lost["name"], lost["kind"]) == ("b", "own")


@pytest.mark.parametrize(("count", "words"), [(1, "u0"), (2, "u0, u1"), (3, "u0, u1, u2"), (4, "u0, u1, u2 ...")])
def test_what_was_not_decided_before_it(count, words):
    unknown = [row(f"u{k}", Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE) for k in range(count)]
    first = found(*unknown, row("a"), row("b", **BAD))
    assert not first["confirmed"] and first["note"] == f"a before it is clean; nothing comes after it; not decided before it: {words}"


def test_neighbours_are_of_the_same_step_and_were_looked_at():
    skipped = row("s", Verdict.SKIP, Reason.NOT_RUN)
    first = found(row("a", step=1), skipped, row("b", step=1, **BAD), row("c", step=2))
    assert (first["before"], first["after"], first["step"]) == ("a", None, 1)
    first = found(row("a"), skipped, skipped, row("b", **BAD), skipped, skipped, row("c"))
    assert (first["before"], first["after"]) == ("a", "c")


def test_earlier_steps_come_first_and_what_has_none_before_them():
    assert found(row("x", step=2, **BAD), row("y", step=1, **BAD), row("z", step=0, **BAD))["name"] == "z"
    assert found(row("x", step=0, **BAD), row("y", **BAD))["name"] == "y"


@pytest.mark.parametrize(("error", "bound", "ratio"), [(3.0, 2.0, 1.5), (3.0, 0.0, math.inf), (None, 2.0, None), (3.0, None, None), (None, None, None)])
def test_error_over_bound(error, bound, ratio):
    assert found(row("b", **{**BAD, "max_abs": error, "tolerance": bound}))["ratio"] == ratio


def test_the_evidence_of_the_named_row_reaches_its_causes():
    rows = row("a"), row("b", **BAD, module_type="BatchNorm")
    growing = ((0, 0.5, False), (1, 1.0, False), (2, 3.0, True))
    for more, hints in (
        ({}, (False, False)), ({"training": True}, (False, False)), ({"evaluated": {"b": row("b")}}, (False, False)), ({"training": True, "evaluated": {"a": row("a")}}, (False, False)),
        ({"training": True, "evaluated": {"b": row("b")}}, (True, False)), ({"histories": {"b": growing}}, (False, True)), ({"histories": {"a": growing}}, (False, False)),
    ):
        causes = found(*rows, **more)["causes"]
        assert tuple(any(one.startswith(words) for one in causes) for words in ("equal in evaluation mode", "clean at first and growing")) == hints


def test_nothing_diverges():
    assert first_divergence([]) is None and first_divergence([row("a"), row("u", Verdict.INCONCLUSIVE)]) is None


OWN = row("b", refed=False, inherited_verdict=None, max_abs=0.5, rel_l2=0.25, floor=1e-6, dtype="float32", module_type="Conv2d")
WHOLE = row("b", refed=False, inherited_verdict=None, max_abs=4.0, rel_l2=2.0, rmse=1.0)


def test_a_combined_row():
    assert combine(OWN, None) == dataclasses.replace(OWN, refed=True, own=0.5, own_rel_l2=0.25)
    assert combine(OWN, None, module_type="BatchNorm2d").module_type == "BatchNorm2d" and combine(OWN, None).module_type == "Conv2d"
    both = combine(OWN, WHOLE, [dataclasses.replace(WHOLE, rel_l2=0.5), dataclasses.replace(WHOLE, rel_l2=None), dataclasses.replace(WHOLE, rel_l2=0.125)])
    assert both == dataclasses.replace(OWN, refed=True, own=0.5, own_rel_l2=0.25, inherited=4.0, inherited_rel_l2=2.0, inherited_verdict=Verdict.PASS, entering_rel_l2=0.5, amplification=4.0)
    nothing = combine(OWN, WHOLE)
    assert (nothing.entering_rel_l2, nothing.amplification) == (0.0, None)
    assert combine(OWN, WHOLE, [WHOLE], entering=0.5).amplification == 4.0 and combine(OWN, dataclasses.replace(WHOLE, rel_l2=None), entering=0.5).amplification is None


FAILED = {"verdict": Verdict.FAIL, "reason": Reason.BEYOND_TOLERANCE}


def test_where_an_error_comes_from():
    whole = dataclasses.replace(WHOLE, **FAILED)
    own = dataclasses.replace(OWN, **FAILED)
    assert [combine(*pair).origin for pair in ((OWN, WHOLE), (own, None), (own, whole), (own, WHOLE), (OWN, whole))] == ["", "own", "own", "own", "inherited"]


@pytest.mark.parametrize(("leaves", "ulps", "rmse", "origin"), [
    (AMPLIFIES, 4.0, 1.0, "amplified"), (AMPLIFIES * 0.999, 4.0, 1.0, "inherited"), (AMPLIFIES, 4.0, 1.0000001, "inherited"), (AMPLIFIES, 0.5, 0.25, "amplified"), (AMPLIFIES, 0.5, 0.2500001, "inherited"),
])
def test_an_amplifying_node(leaves, ulps, rmse, origin):
    """What enters is so many units of float32's last place; the node's floor is an eighth a unit: FACTOR x units x floor may leave it, at least one unit's."""
    entering = ulps * float(np.finfo(np.float32).eps)
    whole = dataclasses.replace(WHOLE, **FAILED, rel_l2=leaves * entering, rmse=rmse)
    assert FACTOR == 2.0 and combine(dataclasses.replace(OWN, floor=0.125), whole, entering=entering).origin == origin
    for lacking in ({"floor": None}, {"dtype": None}):
        assert combine(dataclasses.replace(OWN, **{"floor": 0.125, **lacking}), whole, entering=entering).origin == "inherited"
    assert combine(dataclasses.replace(OWN, floor=0.125), dataclasses.replace(whole, rmse=None), entering=entering).origin == "inherited"

"""The verdict follows from the rows, never from silence."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from alignment.noise import EXACT, Tolerance
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult, check_row, plain, read_result
from jt_nanodet.errors import UserError


def row(name="x", verdict=Verdict.PASS, reason=Reason.OK, **more):
    return TensorResult(name, name, verdict, reason, Gate.BOUND, **more)


PASS, FAIL = row("p"), row("f", Verdict.FAIL, Reason.TRANSPOSED)
WARN, SKIP = row("w", Verdict.WARN, Reason.ABOVE_REL_L2_CAP), row("s", Verdict.SKIP, Reason.NOT_RUN)
UNCLEAR, APART = row("u", Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE), row("n", Verdict.NOT_COMPARABLE, Reason.NOTHING_COMPARED)


@pytest.mark.parametrize("rows, verdict, code, line", [
    ([PASS], Verdict.PASS, 0, "PASSED | 1 compared, 0 failed, 0 skipped"),
    ([PASS, WARN], Verdict.PASS, 0, "PASSED | 2 compared, 0 failed, 0 skipped"),
    ([PASS, FAIL], Verdict.FAIL, 1, "FAILED | 2 compared, 1 failed, 0 skipped"),
    ([FAIL, UNCLEAR, APART, SKIP], Verdict.FAIL, 1, "FAILED | 2 compared, 1 failed, 2 skipped"),
    ([PASS, UNCLEAR], Verdict.INCONCLUSIVE, 3, "INCONCLUSIVE | 2 compared, 0 failed, 0 skipped"),
    ([PASS, SKIP], Verdict.INCONCLUSIVE, 3, "INCONCLUSIVE | 1 compared, 0 failed, 1 skipped"),
    ([PASS, APART], Verdict.NOT_COMPARABLE, 3, "NOT COMPARABLE | 1 compared, 0 failed, 1 skipped"),
    ([], Verdict.NOT_COMPARABLE, 3, "NOT COMPARABLE | 0 compared, 0 failed, 0 skipped"),
    ([SKIP], Verdict.NOT_COMPARABLE, 3, "NOT COMPARABLE | 0 compared, 0 failed, 1 skipped"),
], ids=lambda value: None)
def test_verdict(rows, verdict, code, line):
    result = Result("layers", tensors=rows)
    assert (result.verdict, result.exit_code, result.last_line) == (verdict, code, line)
    assert (result.reason is Reason.OK) == (verdict is Verdict.PASS)


def test_an_objection_outranks_a_failure():
    result = Result("layers", tensors=[FAIL])
    result.object(Reason.WEIGHTS_DIFFER, "other weights")
    assert (result.verdict, result.reason, result.exit_code) == (Verdict.NOT_COMPARABLE, Reason.WEIGHTS_DIFFER, 3)


def test_no_coverage_limit_makes_nothing_pass():
    result = Result("layers", min_coverage=0.0, tensors=[SKIP])
    assert result.verdict is Verdict.NOT_COMPARABLE


def test_what_was_left_out_is_shown_and_does_not_count():
    result = Result("layers", tensors=[PASS])
    result.leave_out("cuda", "no GPU")
    assert result.verdict is Verdict.PASS and result.to_json()["not_run"] == [{"name": "cuda", "reason": "no GPU"}]


def test_first_failure_is_the_first_in_order_of_execution():
    result = Result("layers", tensors=[PASS, FAIL, row("z", Verdict.FAIL, Reason.MISSING)])
    document = result.to_json()
    assert document["first_failure"] == "f" and document["first_failure_detail"]["reason"] == "transposed"
    assert Result("layers", tensors=[PASS]).to_json()["first_failure"] is None


def test_an_announced_check_that_never_ran_fails():
    result = Result("layers")
    result.expect(["p", "never"])
    result.add(PASS)
    assert (result.verdict, result.reason, result.compared, result.failed) == (Verdict.FAIL, Reason.NOT_CHECKED, 2, 1)
    assert result.first_failure.name_ref == "never"


@pytest.mark.parametrize("first, second", [(Verdict.FAIL, Verdict.PASS), (Verdict.PASS, Verdict.PASS)])
def test_a_second_verdict_for_one_tensor_never_counts(first, second):
    result = Result("layers")
    result.add(row("x", first, Reason.ISOLATED if first is Verdict.FAIL else Reason.OK))
    result.add(row("x", second))
    assert result.verdict is Verdict.FAIL and result.tensors[-1].reason is Reason.CHECKED_TWICE


def test_the_same_name_in_another_step_or_stage_is_another_tensor():
    result = Result("train", tensors=[row("x", step=0), row("x", step=1), row("x", stage="backward", step=1)])
    assert result.verdict is Verdict.PASS


def test_a_tolerance_other_than_the_declared_one_fails():
    declared = {"x": Tolerance(bound=1e-6, source="measured", floor=5e-7)}
    assert Result("layers", tolerances=declared, tensors=[row("x", tolerance=1e-6)]).verdict is Verdict.PASS
    for name, bound in (("x", 1e-3), ("y", 1e-6)):
        result = Result("layers", tolerances=declared, tensors=[row(name, tolerance=bound)])
        assert (result.verdict, result.reason) == (Verdict.FAIL, Reason.TOLERANCE_CHANGED)


def test_a_tolerance_cannot_be_edited():
    with pytest.raises(AttributeError):
        EXACT.bound = 1.0


def test_json_is_strict(tmp_path):
    result = Result("layers", tensors=[row("x", max_rel=np.inf, sqnr_db=-np.inf, cosine=float("nan"), max_abs=np.float32(0.5), shape=(1, 2))])
    result.parts["metrics"] = {"pytorch": {"mAP": np.float64("nan")}, "counts": np.arange(2)}
    path = result.write(tmp_path / "new" / "folder")

    def refuse(word):
        raise AssertionError(word)

    document = json.loads(path.read_text(), parse_constant=refuse)
    tensor = document["tensors"][0]
    assert (tensor["max_rel"], tensor["sqnr_db"], tensor["cosine"], tensor["max_abs"]) == ("Infinity", "-Infinity", "NaN", 0.5)
    assert document["metrics"] == {"pytorch": {"mAP": "NaN"}, "counts": [0, 1]} and document["schema_version"] == 1
    assert os.listdir(path.parent) == ["result.json"] and read_result(tmp_path / "new" / "folder") == document


def test_parts_cannot_cover_the_verdict():
    with pytest.raises(ValueError, match="verdict"):
        Result("layers", parts={"verdict": "pass"}).to_json()


def test_plain_keeps_booleans_and_integers():
    assert plain({"a": np.bool_(True), "b": np.int64(3), "c": {1, 2}, "d": Verdict.PASS}) == {"a": True, "b": 3, "c": [1, 2], "d": "pass"}


def test_check_row():
    assert check_row("a", True, Reason.METRIC_DIFFERS).reason is Reason.OK
    assert check_row("a", False, Reason.METRIC_DIFFERS, "why").hint == "why"


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="--output"):
        Result("layers", tensors=[PASS]).write(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 1}'])
def test_a_damaged_result_is_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match="again"):
        read_result(tmp_path)


def test_a_missing_or_contradictory_result_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_result(tmp_path)
    document = Result("layers", tensors=[PASS]).to_json()
    for change in ({"compared": 0}, {"failed": 1}, {"schema_version": 2}):
        (tmp_path / "result.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(UserError):
            read_result(tmp_path)

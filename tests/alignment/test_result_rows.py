"""alignment.result, field by field: the rows that it makes itself, the words of result.json, and what of a damaged one is said."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

import alignment
from alignment import reasons
from alignment.noise import Tolerance
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult, check_row, plain, read_result, write_json
from jt_nanodet.errors import UserError

OK = TensorResult("x", "x", Verdict.PASS, Reason.OK, Gate.BOUND)


def checked(name, cand, verdict, reason, gate=Gate.EXACT, **more):
    return TensorResult(name, cand, verdict, reason, gate, **more)


def test_check_rows():
    assert check_row("a", True, Reason.METRIC_DIFFERS) == checked("a", "a", Verdict.PASS, Reason.OK, stage="check")
    assert check_row("a", False, Reason.METRIC_DIFFERS, "why", stage="data", step=4) == checked("a", "a", Verdict.FAIL, Reason.METRIC_DIFFERS, stage="data", step=4, hint="why")


def test_checks_skips_and_announcements_of_a_result():
    result = Result("layers")
    result.check("a", True, Reason.KIND)
    result.check("b", False, Reason.KIND, "why", stage="data")
    result.skip("c", "no time")
    result.skip("d", "no time", stage="post")
    result.expect(["e", "a"])
    assert result.rows() == [
        checked("a", "a", Verdict.PASS, Reason.OK, stage="check"), checked("b", "b", Verdict.FAIL, Reason.KIND, stage="data", hint="why"),
        checked("c", None, Verdict.SKIP, Reason.NOT_RUN, Gate.RUN, stage="check", hint="no time"), checked("d", None, Verdict.SKIP, Reason.NOT_RUN, Gate.RUN, stage="post", hint="no time"),
        checked("e", None, Verdict.FAIL, Reason.NOT_CHECKED, Gate.RUN, stage="check", hint="this check was announced and never made")]
    assert (result.compared, result.failed, result.skipped, result.coverage) == (3, 2, 2, 0.6)
    assert result.row("b").reason is Reason.KIND and result.row("e") is None


def test_a_tensor_judged_twice():
    found = Result("layers", tensors=[OK, OK]).tensors[1]
    assert found == checked("x", "x", Verdict.FAIL, Reason.CHECKED_TWICE, Gate.RUN, hint="a tensor may be judged once; a repeated check hides a flaky one")


@pytest.mark.parametrize(("declared", "used", "hint"), [
    (1e-6, 1e-6, None), (1e-6, math.nextafter(1e-6, 1), "judged by 1e-06, but the declared bound is 1e-06"), (1.23456e-6, 1.2345e-3, "judged by 0.00123, but the declared bound is 1.23e-06"),
    (1e300, 1e301, "judged by 1e+301, but the declared bound is 1e+300"), (None, 0.0, None), (None, 1e-9, "judged by 1e-09, but the declared bound is absent"),
])
def test_another_bound_than_the_declared_one(declared, used, hint):
    table = {} if declared is None else {"x": Tolerance(bound=declared, source="", floor=0.0)}
    (found,) = Result("layers", tolerances=table, tensors=[checked("x", "x", Verdict.PASS, Reason.OK, tolerance=used)]).tensors
    if hint is None:
        assert found == checked("x", "x", Verdict.PASS, Reason.OK, tolerance=used)
    else:
        assert found == checked("x", "x", Verdict.FAIL, Reason.TOLERANCE_CHANGED, Gate.RUN, tolerance=used, hint=hint)


def test_a_bound_is_held_to_the_table_only_where_there_are_both():
    judged = checked("x", "x", Verdict.PASS, Reason.OK, tolerance=1.0)
    assert Result("layers", tensors=[judged]).tensors == [judged] and Result("layers", tolerances={}, tensors=[OK]).tensors == [OK]


@pytest.mark.parametrize(("least", "verdict", "reason"), [(0.5, Verdict.PASS, Reason.OK), (0.5000001, Verdict.INCONCLUSIVE, Reason.COVERAGE)])
def test_coverage_at_its_limit_and_below(least, verdict, reason):
    result = Result("layers", min_coverage=least, tensors=[OK])
    result.skip("s", "why")
    assert (result.verdict, result.reason) == (verdict, reason)


@pytest.mark.parametrize(("rows", "reason"), [
    ([], Reason.NOTHING_COMPARED), ([OK], Reason.OK), ([checked("u", "u", Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE), checked("f", "f", Verdict.FAIL, Reason.SHAPE)], Reason.SHAPE),
    ([checked("u", "u", Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE), checked("n", "n", Verdict.NOT_COMPARABLE, Reason.KIND)], Reason.KIND),
])
def test_the_one_reason(rows, reason):
    assert Result("layers", tensors=rows).reason is reason


def test_the_whole_document():
    result = Result("layers", device="cuda", seeds={"seed": 3}, versions={"numpy": "1"}, hashes={"inputs": "ab"}, durations={"total": 1.5}, min_coverage=0.25,
                    tensors=[OK, TensorResult("f", None, Verdict.FAIL, Reason.SHAPE, Gate.SHAPE, constant=True, shape=(1, 2))], parts={"more": {"p": Path("a/b")}})
    result.object(Reason.STALE, "old")
    result.leave_out("gpu", "none")
    document = result.to_json()
    tensors = document.pop("tensors")
    assert document == {
        "schema_version": 1, "command": "layers", "verdict": "not_comparable", "reason": "stale", "compared": 2, "failed": 1, "skipped": 0, "first_failure": "f",
        "first_failure_detail": tensors[1], "objections": [{"reason": "stale", "text": "old"}], "coverage": 1.0, "min_coverage": 0.25, "constant_tensors": 1, "device": "cuda",
        "seeds": {"seed": 3}, "versions": {"numpy": "1"}, "hashes": {"inputs": "ab"}, "durations": {"total": 1.5}, "not_run": [{"name": "gpu", "reason": "none"}], "more": {"p": "a/b"}}
    fields = {"name_ref": "f", "name_cand": None, "verdict": "fail", "reason": "shape", "gate": "shape", "match_method": "exact", "stage": "forward", "shape": [1, 2], "size": 0, "less_accurate": "",
              "refed": False, "origin": "", "floor_from": "", "constant": True, "hint": "", "module_type": ""}
    empty = ("step dtype max_abs max_rel index value_ref value_cand beyond rel_l2 rmse cosine sqnr_db ulp_p99 worst_channel err_ref_fp64 err_cand_fp64 float64_rel_l2 own own_rel_l2 inherited "
             "inherited_rel_l2 inherited_verdict entering_rel_l2 amplification floor scale tolerance tolerance_source").split()
    assert tensors[1] == {**fields, **dict.fromkeys(empty)}
    assert Result("layers").to_json()["first_failure_detail"] is None and Result("layers").coverage == 0.0  # of nothing, nothing was covered


@pytest.mark.parametrize("taken", [["tensors"], ["verdict", "device"], ["hashes"]])
def test_parts_that_would_cover_an_entry(taken):
    with pytest.raises(ValueError, match=f"^these entries of result.json are not free: {', '.join(sorted(taken))}$"):
        Result("layers", parts=dict.fromkeys([*taken, "free"], 1)).to_json()


class Word(Enum):
    A = "a"


@pytest.mark.parametrize(("value", "expected"), [
    (math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN"), (0.0, 0.0), (-0.5, -0.5), (np.float32(math.inf), "Infinity"), (np.array([1.5, -math.inf]), [1.5, "-Infinity"]),
    ({"b", "a", "c"}, ["a", "b", "c"]), (frozenset([3, 1, 2]), [1, 2, 3]), ((3, 1, 2), [3, 1, 2]), ({1: (np.int8(-1), True)}, {"1": [-1, True]}), (Reason.STALE, "stale"), (Gate.RUN, "run"),
    (Path("x/y"), "x/y"), (None, None), ("NaN", "NaN"),
])
def test_plain_values(value, expected):
    found = plain(value)
    assert found == expected and type(found) is type(expected) and json.dumps(found, allow_nan=False)


def test_files_are_readable_utf8_and_strict(tmp_path):
    path = write_json(tmp_path / "a" / "b.json", {"name": "名字 ü", "n": [1]})
    assert path.read_bytes() == '{\n "name": "名字 ü",\n "n": [\n  1\n ]\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "c.json", {"a": math.nan})
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["b.json"]


def test_a_result_is_written_into_folders_that_are_not_there_and_read_in_any_locale(tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    result = Result("层", tensors=[OK])
    assert result.write(str(folder)) == folder / "result.json" and read_result(folder) == result.to_json()
    again = "import sys; from alignment.result import *; from pathlib import Path; found = read_result(sys.argv[1]); write_json(Path(sys.argv[1]) / 'again.json', found)"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", again, str(folder)], env=environment, cwd=Path(alignment.__file__).parents[1], check=True)
    assert (folder / "again.json").read_bytes() == (folder / "result.json").read_bytes()


def test_a_result_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none.json does not exist; run the command again with --output .+\.$"):
        read_result(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file/r.json cannot be written \((File exists|Not a directory)\); give a folder you can write to with --output.$"):
        write_json(tmp_path / "file" / "r.json", {})


def read_back(tmp_path, document, place="folder"):
    path = tmp_path / "result.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=False).encode())
    return read_result(tmp_path if place == "folder" else path)


GOOD = {"schema_version": 1, "command": "名", "verdict": "pass", "compared": 1, "failed": 0, "skipped": 0, "first_failure": None}


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_result_is_read_from_its_folder_or_file(tmp_path, place):
    assert read_back(tmp_path, GOOD, place) == GOOD


@pytest.mark.parametrize(("document", "said"), [
    (b"{", r"result.json cannot be read as JSON \(.+\); run the command again with --output .+\.$"), ([], "is not a result of `python -m alignment.X`; run the command again"),
    ({**GOOD, "schema_version": 2}, "has schema version 2, and this program reads 1; run the command again"),
    ({**GOOD, "compared": 0}, "says pass with 0 compared and 0 failed; run the command again"), ({**GOOD, "failed": 3}, "says pass with 1 compared and 3 failed; run the command again"),
    *(({key: value for key, value in GOOD.items() if key != lost}, "is not a result") for lost in GOOD),
])
def test_what_is_no_result(tmp_path, document, said):
    with pytest.raises(UserError, match=said):
        read_back(tmp_path, document)


def test_a_failed_result_may_have_compared_nothing(tmp_path):
    assert read_back(tmp_path, {**GOOD, "verdict": "not_comparable", "compared": 0})["compared"] == 0


def test_the_words_of_result_json():
    """They stand in files that others read; a changed word breaks them."""
    for kind in (Verdict, Gate, Reason):
        assert all(str(one) == one.value == one for one in kind) and len({one.value for one in kind}) == len(kind)
    assert [str(one) for one in Verdict] == ["pass", "warn", "fail", "skip", "inconclusive", "not_comparable"]
    assert [str(one) for one in Gate] == ["keys", "count", "dtype", "shape", "size", "finite", "bound", "channel_rmse", "rel_l2_cap", "float64_ratio", "exact", "run"]
    assert all(one.value == one.name.lower() for one in reasons.Reason)

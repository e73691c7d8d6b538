"""The atlas of operators: its entries, its judge on made-up answers, and both frameworks on a few of them with planted faults."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from alignment import ops
from alignment.atlas import answers, drive, pages
from alignment.atlas.entry import Entry, names_in, normal
from alignment.atlas.judge import judge
from alignment.atlas.table import FAMILIES, entries
from jt_nanodet.errors import UserError
from alignment.runners.child import ROOT

X = {"x": normal(3, 4)}


def test_there_are_enough_entries_and_each_is_code():
    found = entries()
    assert len(found) >= 120 and len({entry.key for entry in found}) == len(found)
    assert {entry.family for entry in found} == set(FAMILIES)
    for entry in found:
        for code in (entry.torch, entry.jittor, "\n".join(entry.drawing("seed 0"))):
            ast.parse(code)
        assert isinstance(ast.parse(entry.jittor).body[-1], ast.Expr), entry.name
        assert "torch" not in entry.jittor and "F." not in entry.jittor, entry.name


def test_names_are_read_from_code():
    assert names_in("m = nn.Conv2d(1, 2, 3)\njt.topk(m(x), 2)[0].sum()") == {"nn.Conv2d", "jt.topk", ".sum"}


def answer(*outputs, gradients=None, error=None, **more):
    found = {"outputs": [answers.pack(np.asarray(one)) for one in outputs], "gradients": {k: answers.pack(v) for k, v in (gradients or {}).items()}, **more}
    return {**found, "error": error} if error else found


ENTRY = Entry("made up", "x", inputs=X)
ONES = np.ones((3, 4), np.float32)


def spoiled(at, value):
    array = ONES.copy()
    array.reshape(-1)[at] = value
    return array


RAISED = {"where": "forward", "type": "AttributeError", "message": "no attribute"}
PLANTED = [
    (answer(ONES), "equal", None),
    (answer(spoiled(3, 1 + 6e-8)), "equal", None),
    (answer(spoiled(3, 1.001)), "differs", "values"),
    (answer(spoiled(3, np.nan)), "differs", "nan"),
    (answer(spoiled(3, -np.inf)), "differs", "infinity"),
    (answer(ONES.reshape(4, 3)), "differs", "shape"),
    (answer(ONES.astype(np.float16)), "differs", "type"),
    (answer(ONES.astype(np.int32)), "differs", "type"),
    (answer(ONES, ONES), "differs", "count"),
    (answer(error=RAISED), "missing", "raises"),
    (answer(error={**RAISED, "where": "process", "type": "crash"}), "crashes", "crash"),
    (answer(error={**RAISED, "where": "process", "type": "hang"}), "crashes", "hang"),
]


@pytest.mark.parametrize(("jittor", "outcome", "how"), PLANTED)
def test_the_judge_on_one_answer(jittor, outcome, how):
    torch = answer(ONES, double=answer(ONES.astype(np.float64)), variants={"1 thread": answer(ONES)})
    judged = judge(ENTRY, {case: torch for case in ENTRY.cases}, {case: jittor for case in ENTRY.cases})
    assert judged.outcome == outcome and (judged.first.how if judged.first else None) == how
    assert judged.first is None or judged.first.text


def test_a_gradient_is_judged_and_none_is_zero():
    torch = answer(ONES, gradients={"x": ONES})
    for theirs, outcome in (({"x": ONES}, "equal"), ({"x": 2 * ONES}, "differs"), ({}, "differs")):
        judged = judge(ENTRY, dict.fromkeys(ENTRY.cases, torch), dict.fromkeys(ENTRY.cases, answer(ONES, gradients=theirs)))
        assert (judged.forward, judged.gradient) == ("equal", outcome)


def test_integers_are_compared_by_value_and_their_width_only_where_it_counts():
    torch, jittor = answer(np.arange(3)), answer(np.arange(3, dtype=np.int32))
    for strict, outcome in ((False, "equal"), (True, "differs")):
        entry = dataclasses.replace(ENTRY, strict=strict)
        assert judge(entry, dict.fromkeys(entry.cases, torch), dict.fromkeys(entry.cases, jittor)).outcome == outcome
    assert judge(ENTRY, dict.fromkeys(ENTRY.cases, torch), dict.fromkeys(ENTRY.cases, answer(np.array([0, 1, 3], np.int32)))).first.how == "exact"


def test_small_numbers_are_judged_by_their_own_size():
    """An error of a thousandth of the smallest of three numbers."""
    ref, cand = np.float32([1, 1e-6, 1e-9]), np.float32([1, 1e-6, 1.001e-9])
    entry = Entry("x", "x", inputs=X, relative=True)
    assert judge(entry, dict.fromkeys(entry.cases, answer(ref)), dict.fromkeys(entry.cases, answer(cand))).outcome != "equal"


def test_what_pytorch_refuses_must_be_refused():
    torch = answer(error=RAISED)
    assert judge(ENTRY, dict.fromkeys(ENTRY.cases, torch), dict.fromkeys(ENTRY.cases, answer(error=RAISED))).outcome == "equal"
    judged = judge(ENTRY, dict.fromkeys(ENTRY.cases, torch), dict.fromkeys(ENTRY.cases, answer(ONES)))
    assert (judged.outcome, judged.first.how) == ("differs", "not_refused")


def test_a_cut_line_is_left_out(tmp_path):
    path = tmp_path / "torch.0.jsonl"
    answers.append(path, {"start": ["a", "b"]})
    path.write_text(path.read_text() + '{"case": ["a", "b"], "outp')
    assert answers.read(path) == [{"start": ["a", "b"]}] and drive.started(path) == ("a", "b")


@pytest.mark.parametrize(("words", "end"), [
    (["--family", "pols"], "did you mean pool"), (["--first", "0"], "give 1 or more"), (["--device", "cuda"], "leave out --device"), (["--workers", "99"], "give 1 to 9"),
    (["--expect", "nowhere.json"], "--record nowhere.json"), (["--plain", "--record", "a.json"], "leave out --family"), (["--seed", "3"], "leave out --config and --seed"),
])
def test_bad_input_is_one_sentence(words, end, tmp_path):
    with pytest.raises(UserError, match=end):
        ops.main(["--output", str(tmp_path / "out"), *words])


def test_a_page_escapes_what_it_shows():
    entry = dataclasses.replace(ENTRY, name="<script>", family="pool")
    judged = judge(entry, dict.fromkeys(entry.cases, answer(ONES)), dict.fromkeys(entry.cases, answer(error={**RAISED, "message": "<b>\n|x"})))
    document = pages.recording([judged], {"torch": "2"}, "2026-01-01", "a <processor>")
    assert "<script>" not in pages.page(document) and "<b>" not in pages.page(document) and "a <processor>" not in pages.page(document)
    assert "\\|x" in pages.markdown(document)


@pytest.mark.jittor
@pytest.mark.torch
def test_planted_faults_are_marked_and_cost_only_themselves(jittor, tmp_path):
    """A wrong factor, a wrong gradient, a name that is not there, a process that dies, one that hangs; what stands behind them is still compared."""
    made = [
        Entry("right", "F.relu(x)", inputs=X),
        Entry("a factor of 1.0001", "F.relu(x)", "nn.relu(x) * 1.0001", X),
        Entry("no gradient", "F.relu(x)", "nn.relu(x.detach())", X),
        Entry("a name that is not there", "F.relu(x)", "nn.no_such_thing(x)", X),
        Entry("a crash", "F.relu(x)", "__import__('os').abort()", X),
        Entry("a hang", "F.relu(x)", "__import__('time').sleep(600)", X),
        Entry("right at the end", "F.relu(x)", inputs=X),
    ]
    made = [dataclasses.replace(entry, family="planted", kind="values") for entry in made]
    known = {entry.key: entry for entry in made}
    both = [drive.run(side, known, tmp_path, timeout=12, verbosity=-1) for side in ("torch", "jittor")]
    found = {entry.name: judge(entry, *({case: side[entry.key, case] for case in entry.cases} for side in both)) for entry in made}
    assert {name: one.outcome for name, one in found.items()} == {
        "right": "equal", "a factor of 1.0001": "differs", "no gradient": "differs", "a name that is not there": "missing", "a crash": "crashes", "a hang": "crashes",
        "right at the end": "equal",
    }
    assert found["a factor of 1.0001"].first.how == "values" and found["no gradient"].forward == "equal" and found["no gradient"].gradient == "differs"
    assert "no_such_thing" in found["a name that is not there"].first.text and found["a hang"].first.how == "hang"
    again = drive.run("jittor", known, tmp_path, timeout=0.001, verbosity=-1)  # nothing is run again: a child would be killed at once
    assert again.keys() == both[1].keys()


@pytest.mark.jittor
@pytest.mark.torch
def test_one_entry_a_family_is_run_and_judged(jittor, tmp_path):
    words = ["--first", "1", "--plain", "--output", str(tmp_path), "--workers", "1"]
    run = subprocess.run([sys.executable, "-m", "alignment.ops", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["verdict"] == "pass" and result["compared"] == len(FAMILIES) and result["failed"] == 0
    assert (tmp_path / "atlas.html").is_file() and "| operator |" in (tmp_path / "atlas.md").read_text()

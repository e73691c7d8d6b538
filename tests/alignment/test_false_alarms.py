"""The rate of false alarms: its bound, its count, and that an alarm is seen when the comparison is not faultless."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alignment import false_alarms, faultless, simulate
from alignment.faultless import KINDS, Kind, Outcome
from alignment.compare import compare_tensors
from alignment.false_alarms import main, upper_bound
from alignment.noise import FALSE_ALARM, measure_floor, tolerance_from_floor
from alignment.result import Result
from jt_nanodet.errors import UserError


def test_without_an_alarm_the_bound_is_the_rule_of_three():
    assert upper_bound(0, 200) == pytest.approx(1 - 0.05 ** (1 / 200)) and upper_bound(0, 200) < 3 / 200
    assert upper_bound(1, 200) == pytest.approx(0.0235, abs=1e-4)  # tables of Clopper and Pearson
    assert upper_bound(5, 5) == 1.0


@pytest.mark.parametrize(("alarms", "comparisons"), [(0, 30), (2, 60)])
def test_at_the_bound_so_few_alarms_come_once_in_twenty(alarms, comparisons):
    from scipy import stats

    assert stats.binom.cdf(alarms, comparisons, upper_bound(alarms, comparisons)) == pytest.approx(0.05)


def test_there_are_two_hundred_and_no_input_comes_twice(tmp_path):
    assert sum(kind.count for kind in KINDS.values()) == 200
    given = [faultless.common(number, tmp_path) for number in range(KINDS["forward"].count)]
    assert len({faultless.drawn_input(one["config"], 1).tobytes() for one in given}) == len({one["seed"] for one in given}) == len(given)
    assert {one["threads"] for one in given} == {1, 2} and len({Path(one["config"]).name.partition("_")[2] for one in given}) == 6


def document(folder):
    return json.loads((folder / "result.json").read_text())


def test_faultless_logs_raise_no_alarm_and_are_not_made_twice(tmp_path, monkeypatch):
    words = ["--only", "curves", "--first", "3", "--output", str(tmp_path), "-q"]
    assert main(words) == 0
    first = document(tmp_path)
    assert first["compared"] == 3 and first["false_alarms"]["counts"]["curves"]["judged"] > 30
    monkeypatch.setitem(KINDS, "curves", Kind(48, "", lambda numbers, folder: pytest.fail("made again")))
    assert main(words) == 0 and document(tmp_path)["false_alarms"]["counts"] == first["false_alarms"]["counts"]


def test_what_other_code_made_is_made_again(tmp_path):
    words = ["--only", "curves", "--first", "1", "--output", str(tmp_path), "-q"]
    main(words)
    before = json.loads((tmp_path / "curves.json").read_text())
    (tmp_path / "curves.json").write_text(json.dumps({"code": "last week's", "outcomes": [{**before["outcomes"][0], "verdict": "fail"}]}))
    assert main(words) == 0 and json.loads((tmp_path / "curves.json").read_text()) == before


def test_a_planted_fault_is_an_alarm(tmp_path, monkeypatch, capsys):
    """The candidate's losses are 10 % higher: the kind is not faultless any more, and its run says so."""
    honest, calls = simulate.make_runs, iter(range(99))
    monkeypatch.setattr(simulate, "make_runs", lambda *given, **more: honest(*given, **more, losses=1.0 + 0.1 * (next(calls) % 2)))
    assert main(["--only", "curves", "--first", "2", "--output", str(tmp_path)]) == 1
    assert "false alarm: curves 0" in capsys.readouterr().out
    counts = document(tmp_path)["false_alarms"]["counts"]["all"]
    assert (counts["false_alarms"], counts["rate"], counts["rate_at_most"]) == (2, 1.0, 1.0)


@pytest.mark.parametrize(("verdict", "code", "alarms", "undecided"), [("pass", 0, 0, 0), ("inconclusive", 0, 0, 1), ("fail", 1, 1, 0), ("not_comparable", 1, 1, 0)])
def test_what_counts_as_an_alarm(tmp_path, monkeypatch, verdict, code, alarms, undecided):
    for name, kind in KINDS.items():
        monkeypatch.setitem(KINDS, name, Kind(1, "x", lambda numbers, folder, name=name: [Outcome(f"{name} 0", verdict if name == "forward" else "pass", "ok", 7)]))
    record = tmp_path / "record.json"
    assert main(["--output", str(tmp_path / "out"), "--record", str(record), "-q"]) == code
    found = json.loads(record.read_text())
    assert (found["counts"]["all"]["false_alarms"], found["counts"]["all"]["undecided"], len(found["alarms"])) == (alarms, undecided, alarms)
    assert len(found["tables"]["false_alarms"]["rows"]) == len(KINDS) + 1


def test_a_comparison_that_never_came_is_no_silent_pass(tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "curves", Kind(3, "x", lambda numbers, folder: [Outcome("curves 0", "pass", "ok", 1)]))
    assert main(["--only", "curves", "--output", str(tmp_path), "-q"]) == 1
    assert document(tmp_path)["reason"] == "not_checked"


@pytest.mark.parametrize(("words", "end"), [
    (["--only", "curve"], "did you mean curves"), (["--first", "0"], "give 1 or more"), (["--seed", "3"], "leave out --device, --config and --seed"),
    (["--first", "1", "--record", "a.json"], "or --record"),
])
def test_bad_input_is_one_sentence(words, end, tmp_path):
    with pytest.raises(UserError, match=end):
        main(["--output", str(tmp_path / "out"), *words])


def test_a_made_up_log_falls_and_its_noise_is_correlated():
    source = faultless.log_source(np.random.default_rng(0))
    assert (source.trend[0] > 1.5 * source.trend[-1]).all() and np.allclose(source.residual.mean(0), 1)
    noise = np.log(source.residual)
    assert np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1] > 0.3 and np.corrcoef(noise.T)[0, 1] > 0.3


def test_how_near_a_comparison_comes_is_kept_and_an_alarm_says_how_far_it_lies_off():
    truth = np.linspace(-1, 1, 4096).reshape(4, 32, 32)
    random = np.random.default_rng(0)
    runs = [(truth + 1e-6 * random.standard_normal(truth.shape)).astype(np.float32) for _ in range(3)]
    bound = tolerance_from_floor(measure_floor(truth, runs, channel_axis=0))
    result = Result("layers")
    result.add([compare_tensors("still", runs[0], runs[0], tolerance=bound), compare_tensors("honest", runs[0], runs[1], tolerance=bound)])
    quiet = faultless.outcome("forward 0", result)
    assert (quiet.verdict, quiet.first, quiet.nearest) == ("pass", "", "honest") and 0.1 < quiet.of_bound < 0.9
    wrong = runs[1].copy()
    wrong[2, 3, 4] += 3 * bound.bound
    result.add([compare_tensors("wrong", runs[0], wrong, tolerance=bound)])
    loud = faultless.outcome("forward 0", result)
    assert (loud.verdict, loud.nearest) == ("fail", "wrong") and 2 < loud.of_bound < 4
    assert loud.first.startswith(f"wrong: isolated, {loud.of_bound:.4g} of its bound (")
    counts = false_alarms.counted([quiet, loud, Outcome("curves 0", "pass", "ok", 1)])
    assert (counts["of_bound"], counts["nearest"]) == (loud.of_bound, "forward 0: wrong") and counts["by_luck"] == pytest.approx(FALSE_ALARM * 6)
    assert false_alarms.counted([Outcome("curves 0", "pass", "ok", 1)])["of_bound"] is None


@pytest.mark.jittor
@pytest.mark.torch
def test_both_sides_run_and_nothing_is_left_behind(jittor, tmp_path):
    assert main(["--only", "forward", "--first", "1", "--output", str(tmp_path), "-q"]) == 0
    counts = document(tmp_path)["false_alarms"]["counts"]["forward"]
    assert counts["judged"] > 300 and 0.05 < counts["of_bound"] < 1 and counts["nearest"].startswith("forward 0: ")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_recording_is_of_all_kinds():
    counts = json.loads((faultless.ROOT / "reports" / "results" / "false_alarms.json").read_text())["counts"]
    assert {name: one["comparisons"] for name, one in counts.items()} == {**{name: kind.count for name, kind in KINDS.items()}, "all": 200}
    assert all(one["rate_at_most"] == upper_bound(one["false_alarms"], one["comparisons"]) for one in counts.values()), false_alarms.LEVEL

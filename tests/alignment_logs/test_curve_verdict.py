"""Verdicts on whole logs, made by the test itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignment.curve_align import align, coverage, pair_series, read_map
from alignment.curve_verdict import compare_sides, rounding
from alignment.curves import CANNOT_TELL, DIFFERENT, EQUIVALENT, Policy
from alignment.log_reader import Run, Series, read_run
from jt_nanodet.errors import UserError
from tests.alignment_logs.logmaker import upstream_log


def runs(tmp_path: Path, name: str, seeds, **options) -> list[Run]:
    made = []
    for seed in seeds:
        path = tmp_path / f"{name}{seed}.txt"
        path.write_text(upstream_log(seed, **options), encoding="utf-8")
        made.append(read_run(path))
    return made


def of_text(tmp_path: Path, name: str, text: str) -> Run:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_run(tmp_path / name)


def test_several_seeds_without_a_difference(tmp_path: Path) -> None:
    ref, cand = runs(tmp_path, "a", range(5)), runs(tmp_path, "b", range(10, 15))
    found = compare_sides(ref, cand, Policy(margin_loss=0.03))
    assert found.verdict == EQUIVALENT and not found.facts and not found.holds


def test_several_seeds_with_a_difference(tmp_path: Path) -> None:
    found = compare_sides(runs(tmp_path, "a", range(3)), runs(tmp_path, "b", range(10, 13), factor=1.1), Policy())
    assert found.verdict == DIFFERENT and found.first_difference["at"] < 2000
    found = compare_sides(runs(tmp_path, "a", range(3)), runs(tmp_path, "c", range(10, 13), score=-0.02), Policy())
    assert found.verdict == DIFFERENT
    assert {h.name.split(",")[0] for h in found.hypotheses if h.outcome == DIFFERENT} <= {"val/mAP", "val/AP_50"}


def test_one_seed_cannot_tell_and_says_what_would(tmp_path: Path) -> None:
    found = compare_sides(runs(tmp_path, "a", [0]), runs(tmp_path, "b", [1]), Policy())
    assert found.verdict == CANNOT_TELL and found.runs_needed is not None
    runs_a_side, verdict = found.runs_needed
    assert runs_a_side is None or runs_a_side > 2 and verdict in (EQUIVALENT, DIFFERENT)


def test_one_against_three(tmp_path: Path) -> None:
    found = compare_sides(runs(tmp_path, "a", [0]), runs(tmp_path, "b", range(10, 14), factor=1.2), Policy())
    assert found.verdict == DIFFERENT
    assert all(h.estimate.freedom == 3 for h in found.hypotheses)


def test_nan_on_both_sides_is_not_equality(tmp_path: Path) -> None:
    text = upstream_log(0)
    lines = text.splitlines(keepends=True)
    broken = "".join(line.replace("loss_dfl:", "loss_dfl:nan|x:") if i > 500 and "Train|" in line else line for i, line in enumerate(lines))
    run = of_text(tmp_path, "a.txt", broken)
    found = compare_sides([run], [of_text(tmp_path, "b.txt", broken)], Policy())
    assert found.verdict == CANNOT_TELL and found.holds[0]["code"] == "not_finite_both"
    found = compare_sides([of_text(tmp_path, "c.txt", text)], [run], Policy())
    assert found.verdict == DIFFERENT and found.facts[0]["code"] == "not_finite"


def test_schedules_are_compared_without_statistics(tmp_path: Path) -> None:
    text = upstream_log(0)
    found = compare_sides([of_text(tmp_path, "a.txt", text)], [of_text(tmp_path, "b.txt", text.replace("/40|", "/300|"))], Policy())
    assert found.verdict == DIFFERENT and found.facts[0]["name"] == "total_epochs"


def test_learning_rates_agree_within_their_rounding(tmp_path: Path) -> None:
    ref = "".join(f"step {i}: loss: {1 + (i * 7919 % 100) / 1000:.3f} lr: {0.1 / (i + 1):.2e}\n" for i in range(200))
    cand = "".join(f"step {i}: loss: {1 + (i * 7919 % 100) / 1000:.3f} lr: {0.1 / (i + 1):.8f}\n" for i in range(200))
    wrong = cand.replace(f"{0.1 / 151:.8f}", f"{0.101 / 151:.8f}")
    a, b, c = of_text(tmp_path, "a", ref), of_text(tmp_path, "b", cand), of_text(tmp_path, "c", wrong)
    assert compare_sides([a], [b], Policy()).facts == []
    fact = compare_sides([b], [c], Policy()).facts[0]
    assert fact["code"] == "learning_rate" and fact["at"] == 150 and fact["points"] == 1


def test_rounding() -> None:
    assert rounding(np.array([5e-4, 4.75e-4, 1.01e-5])) == 0.005
    assert rounding(np.array([1 / 3, 2 / 3])) == 0.0


@pytest.mark.parametrize("interval", [7, 20])
def test_other_intervals_are_compared_by_stretches(tmp_path: Path, interval: int) -> None:
    ref, cand = runs(tmp_path, "a", range(5)), runs(tmp_path, "b", range(10, 15), interval=interval)
    found = compare_sides(ref, cand, Policy(margin_loss=0.05))
    one = found.aligned["train/loss_qfl"]
    assert one.how == ("means of stretches" if interval == 7 else "same positions")
    assert found.verdict == EQUIVALENT and not found.facts


def test_a_log_by_epochs_against_one_by_steps(tmp_path: Path) -> None:
    ref = of_text(tmp_path, "a.txt", upstream_log(0))
    means: dict[int, list[float]] = {}
    series = ref.series["train/loss_qfl"]
    for epoch, value in zip(series.epoch, series.value):
        means.setdefault(int(epoch), []).append(value)
    cand = of_text(tmp_path, "b.txt", "".join(f"Epoch {e}/40: loss_qfl={np.mean(v):.6f}\n" for e, v in means.items()))
    pairs, *_ = pair_series([ref], [cand])
    one = align(next(p for p in pairs if p.ref == "train/loss_qfl"), [ref], [cand])
    assert one.axis == "epoch" and one.how == "means per epoch" and len(one.x) == 40
    assert np.abs(one.a - one.b).max() <= 0.5e-6 * 1.001


def test_validation_passes_of_another_length(tmp_path: Path) -> None:
    text = upstream_log(0)
    a, b = of_text(tmp_path, "a.txt", text), of_text(tmp_path, "b.txt", text.replace("/83)", "/166)"))
    pairs, *_ = pair_series([a], [b])
    one = align(next(p for p in pairs if p.ref == "val/loss_qfl"), [a], [b])
    assert (one.axis, one.how, len(one.x), one.coverage) == ("epoch", "means per epoch", 8, 1.0)
    assert np.array_equal(one.a, one.b)


def test_epochs_counted_from_zero(tmp_path: Path) -> None:
    a = of_text(tmp_path, "a.txt", "".join(f"Epoch {e}: loss=0.{e:02d}1\n" for e in range(1, 31)))
    b = of_text(tmp_path, "b.txt", "".join(f"Epoch {e - 1}: loss=0.{e:02d}1\n" for e in range(1, 31)))
    pairs, *_ = pair_series([a], [b])
    one = align(pairs[0], [a], [b])
    assert np.array_equal(one.a, one.b) and len(one.x) == 30 and "from 0" in one.notes[0]


def test_names_are_bridged_by_spelling_and_by_map_only(tmp_path: Path) -> None:
    a = of_text(tmp_path, "a.txt", "".join(f"step {i}: loss_qfl: 0.5 loss_bbox: 0.4 learning_rate: 0.1\n" for i in range(40)))
    b = of_text(tmp_path, "b.txt", "".join(f"step {i}: qfl_loss: 0.5 reg_loss: 0.4 lr: 0.1\n" for i in range(40)))
    pairs, only_a, only_b = pair_series([a], [b])
    assert {(p.ref, p.cand, p.how) for p in pairs} == {("train/loss_qfl", "train/qfl_loss", "spelling"), ("train/learning_rate", "train/lr", "spelling")}
    assert only_a == ["train/loss_bbox"] and only_b == ["train/reg_loss"]
    assert compare_sides([a], [b], Policy()).holds[0]["code"] == "unpaired"
    pairs, only_a, only_b = pair_series([a], [b], {"loss_bbox": "reg_loss"})
    assert not only_a and not only_b and pairs[0].how == "map"
    with pytest.raises(UserError, match="the map names 'nothing'"):
        pair_series([a], [b], {"nothing": "reg_loss"})
    assert "train/loss_bbox" not in compare_sides([a], [b], Policy(), ignore=("loss_bbox", "reg_loss")).only_ref


@pytest.mark.parametrize("text", ["a: b\nc -> d\n", "# names\na = b\n\nc = d  # two\n", '{\n"a": "b",\n"c": "d"\n}\n'])
def test_map_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text, encoding="utf-8")
    assert read_map(path) == {"a": "b", "c": "d"}


@pytest.mark.parametrize("text, word", [("a\n", "line 1"), ("a: b\na: c\n", "second time"), ("", "no pair")])
def test_bad_map_files(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=word):
        read_map(path)


def test_one_run_named_as_two_seeds_is_refused(tmp_path: Path) -> None:
    ref, cand = runs(tmp_path, "a", [0]), runs(tmp_path, "b", [1])
    copy = of_text(tmp_path, "copy.txt", upstream_log(1).replace("07-22 1", "07-23 1"))
    with pytest.raises(UserError, match="same run"):
        compare_sides(ref, [*cand, copy], Policy())


def test_runs_meet_by_their_seeds(tmp_path: Path) -> None:
    ref, cand = runs(tmp_path, "a", [0, 1, 2]), runs(tmp_path, "b", [2, 0, 1])
    found = compare_sides(ref, cand, Policy())
    assert found.pairing > 0.999 and found.verdict == EQUIVALENT


def test_a_loss_that_is_switched_off(tmp_path: Path) -> None:
    def text(seed: int) -> str:
        rng = np.random.default_rng(seed)
        return "".join(f"step {i}: loss_a: {1 + 0.01 * rng.standard_normal():.5f} loss_b: {(i < 400) * (1 + 0.01 * rng.standard_normal()):.5f}\n" for i in range(800))

    sides = [[of_text(tmp_path, f"{side}{i}", text(10 * side + i)) for i in range(3)] for side in (0, 1)]
    found = compare_sides(*sides, Policy())
    assert found.verdict == EQUIVALENT and any("zero on both sides" in note for note in found.notes)


def test_three_epochs_of_three_seeds(tmp_path: Path) -> None:
    def side(name: str, factor: float) -> list[Run]:
        return [of_text(tmp_path, f"{name}{i}", "".join(f"Epoch {e}: loss={factor * (1 + 0.001 * i) / e:.5f}\n" for e in (1, 2, 3))) for i in range(3)]

    assert compare_sides(side("a", 1.0), side("b", 1.0005), Policy()).verdict == EQUIVALENT
    assert compare_sides(side("c", 1.0), side("d", 1.2), Policy()).verdict == DIFFERENT


def test_coverage() -> None:
    x = np.arange(0, 1000, 10.0)
    assert coverage([x], [x]) == 1.0
    assert coverage([x], [x[::2]]) > 0.99
    assert 0.58 < coverage([x], [x[:60]]) < 0.63
    assert 0.88 < coverage([x], [np.delete(x, range(40, 50))]) < 0.93


def test_percent_on_one_side(tmp_path: Path) -> None:
    position = np.arange(1.0, 31)
    score = 0.5 + 0.001 * np.sin(position * 12.9898) * 10

    def run(values: np.ndarray) -> Run:
        made = Run("x", "x")
        made.series["val/mAP"] = Series("mAP", "val", "metric", np.full(30, np.nan), position, values)
        return made

    found = compare_sides([run(score)], [run(100 * score)], Policy())
    assert any("percent" in note for note in found.notes)
    assert abs(found.hypotheses[0].estimate.difference) < 1e-12


def test_our_own_logs_against_each_other_in_every_form(tmp_path: Path) -> None:
    from alignment.log_reader import find_runs
    from tests.alignment_logs.test_log_reader import own_run

    folder = own_run(tmp_path / "run", 0)
    forms = [read_run(folder / "log.jsonl"), read_run(folder / "logs.txt"), read_run(next(folder.glob("events*")))]
    other = read_run(find_runs([own_run(tmp_path / "other", 1)])[0])
    for ref in forms:
        for cand in forms:
            if ref is cand:
                continue
            found = compare_sides([ref], [cand], Policy())
            # The same training written down thrice: nothing may be missing, and nothing may differ.
            assert not found.facts and found.verdict in (EQUIVALENT, CANNOT_TELL), (ref.format, cand.format, found.facts)
            assert not found.holds and "val/mAP" in found.aligned, (ref.format, cand.format, found.holds)
        assert not compare_sides([ref], [other], Policy()).facts


def test_a_seed_log_by_epochs_against_our_log(tmp_path: Path) -> None:
    from tests.alignment_logs.test_log_reader import own_run

    ours = read_run(own_run(tmp_path / "run", 0) / "logs.txt")
    lines = "".join(f"Epoch {int(e)}/12: loss={v:.4f}, cls_loss={c:.4f}, reg_loss={r:.4f}, lr={0.1 / e:.6g}\n" for e, v, c, r in zip(
        ours.series["epoch/loss"].epoch, *(ours.series[f"epoch/{n}"].value for n in ("loss", "cls_loss", "reg_loss"))))
    seed = of_text(tmp_path, "seed.log", lines)
    pairs, *_ = pair_series([seed], [ours])
    assert {(p.ref, p.cand) for p in pairs} >= {("train/loss", "epoch/loss"), ("train/cls_loss", "epoch/cls_loss"), ("train/reg_loss", "epoch/reg_loss")}
    found = compare_sides([seed], [ours], Policy())
    assert not found.facts and all(abs(h.estimate.difference) < 1e-9 for h in found.hypotheses)

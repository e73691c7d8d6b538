"""The simulation itself, in small, and that the page shows its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alignment.curves import Policy
from alignment.log_alterations import ALTERATIONS
from alignment.log_reader import read_run
from alignment.simulate import COVERAGE_PAIRS, LOSSES, covers, kept, known_to, make_runs, scenarios, simulate, source_of
from alignment.simulate_pages import BEGIN, END, tables, write_docs
from jt_nanodet.errors import UserError
from tests.alignment_logs.logmaker import upstream_log


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "a.txt"
    path.write_text(upstream_log(0, epochs=100), encoding="utf-8")
    return source_of(read_run(path))


def test_runs_keep_the_trend_and_the_noise(source) -> None:
    made = make_runs(source, np.random.default_rng(0), 30)
    values = np.stack([[run.series[f"train/{name}"].value for name in LOSSES] for run in made])
    noise = values / source.trend.T
    assert np.abs(noise.mean((0, 2)) - 1).max() < 0.005
    assert np.abs(noise.std((0, 2)) / source.residual.std(0) - 1).max() < 0.05
    shifted = make_runs(source, np.random.default_rng(0), 30, losses=1.02, score=0.01)
    assert np.allclose(shifted[0].series["train/loss_dfl"].value, 1.02 * made[0].series["train/loss_dfl"].value, rtol=1e-12, atol=0)
    assert np.allclose(shifted[0].series["val/mAP"].value - made[0].series["val/mAP"].value, 0.01, rtol=0, atol=1e-12)


def test_a_scenario_repeats_itself(source) -> None:
    scenario = next(s for s in scenarios() if s.name == "none" and s.runs == 3)
    assert simulate(source, scenario, 5, 0) == simulate(source, scenario, 5, 0)


def test_error_rates_in_small(source) -> None:
    for scenario in scenarios():
        if scenario.name in ("none", "margin, all losses", "none, lockstep", "margin, lockstep"):
            assert kept(simulate(source, scenario, 20, 1)), scenario


def test_the_limits_have_a_twin_that_breaks_them() -> None:
    row = {"equivalent": 0.0, "different": 0.0, "cannot_tell": 1.0, "repeats": 1000}
    assert kept(row | {"limit": ["different", "at most", 0.05]}) and kept(row | {"different": 0.05, "limit": ["different", "at most", 0.05]})
    assert not kept(row | {"different": 0.07, "limit": ["different", "at most", 0.05]})
    assert not kept(row | {"different": 0.85, "limit": ["different", "at least", 0.90]})
    assert kept(row | {"limit": None}) is None
    assert not kept(row | {"different": 0.0505, "limit": ["different", "at most", 0.05]}), "an excess is not put down to chance"
    assert covers(0.95) and covers(0.935) and covers(0.965) and not covers(0.9345) and not covers(0.9655)
    low, high = known_to(row | {"different": 0.05, "limit": ["different", "at most", 0.05]})
    assert 0.035 < low < 0.05 < high < 0.07 and known_to(row | {"limit": None}) is None and known_to(row | {"limit": ["different", "at most", 0.05]})[0] == 0


def test_a_wrong_method_would_be_caught(source) -> None:
    # Bound on seeds 0 where seeds do spread: this must break the promise, or the simulation could not see a broken one.
    import dataclasses

    scenario = next(s for s in scenarios() if s.name == "none, seeds spread" and s.runs == 1)
    wrong = dataclasses.replace(scenario, policy=Policy(seed_sd_loss=0.0, seed_sd_metric=0.0), coverage=False)
    assert not kept(simulate(source, wrong, 60, 0))


@pytest.fixture
def document(repository: Path) -> dict:
    path = repository / "reports" / "results" / "statistics.json"
    if not path.is_file():
        pytest.skip("not run: reports/results/statistics.json has not been measured (python -m alignment.simulate)")
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_page_shows_the_committed_numbers(repository: Path, document: dict) -> None:
    page = (repository / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert page.split(BEGIN)[1].split(END)[0].strip() == tables(document)


def test_the_committed_numbers_keep_the_promises(document: dict) -> None:
    assert 2 * document["repeats"] >= COVERAGE_PAIRS and all(row["kept"] is not False for row in document["rows"])
    assert [(row["name"], row["runs_a_side"]) for row in document["rows"]] == [(s.name, s.runs) for s in scenarios()]
    assert all(covers(rate) for rates in document["coverage"].values() for rate in rates.values())
    assert {row["name"] for row in document["alterations"]} == {a.name for a in ALTERATIONS} and all(row["right"] for row in document["alterations"])


def test_docs_without_markers(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(UserError, match="no lines"):
        write_docs(tmp_path / "a.md", {})


def test_logs_without_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("step 1: loss: 0.5\n", encoding="utf-8")
    with pytest.raises(UserError, match="--log"):
        source_of(read_run(tmp_path / "a.log"))

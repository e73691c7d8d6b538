"""``python -m alignment.simulate``: how often is the verdict on training logs wrong? Measured, at the noise of a real log.

Runs are made from a real log: its trend, times its own residuals drawn in blocks (so that their spread, their correlation in time and between the
losses stay), times one factor a run (the seed). Every pair of sides goes through `alignment.curve_verdict.compare_sides`, the code that judges real
logs. The numbers go to ``statistics.json`` and, with --docs, into the table of ``docs/statistics.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment import curve_align, curve_metrics, curve_verdict, curves, log_alterations
from alignment.curve_verdict import compare_sides
from alignment.curves import CANNOT_TELL, DIFFERENT, EQUIVALENT, Policy
from alignment.log_alterations import ALTERATIONS, smooth_trend
from alignment.log_reader import Run, Series, read_run
from alignment.reasons import Reason
from alignment.logs import compare_runs
from alignment.result import Result, write_json
from alignment.simulate_pages import tables, write_docs
from jt_nanodet.errors import UserError

BLOCK = 13
LOSSES = ("loss_qfl", "loss_bbox", "loss_dfl", "aux_loss_qfl", "aux_loss_bbox", "aux_loss_dfl")
#: Lines at the start of the real log whose residuals are the fall of the loss rather than noise.
FALL = 100


#: What a 95 % interval has to cover, and within what.
COVERAGE, COVERAGE_SLACK = 0.95, 0.015
#: Pairs from which a measured coverage decides: its standard error is then 0.34 points, and an interval that covers 95 % would be seen outside
#: 95 ± 1.5 % once in 70,000 times (4.35 standard errors); at 1,000 pairs it would be once in 34, and over sixty intervals mostly one of them.
COVERAGE_PAIRS = 4000


@dataclass(frozen=True)
class Source:
    """What the simulation takes from the real log: positions, trends and residuals of the losses (n, 6), and of mAP (evaluations,)."""

    step: np.ndarray
    epoch: np.ndarray
    trend: np.ndarray
    residual: np.ndarray
    map_epoch: np.ndarray
    map_trend: np.ndarray
    map_residual: np.ndarray


def source_of(run: Run) -> Source:
    """UserError when the log lacks one of the six losses or mAP."""
    keys = [f"train/{name}" for name in LOSSES] + ["val/mAP"]
    missing = [key for key in keys if key not in run.series]
    if missing:
        raise UserError(f"{run.path} has no {missing[0]}; give a log of upstream's NanoDet-Plus training with --log.")
    values = np.stack([run.series[key].value for key in keys[:-1]], 1)
    trend = smooth_trend(values)
    residual = (values / trend)[FALL:]
    score = run.series["val/mAP"]
    late = score.value[len(score) // 3:]
    t = np.linspace(-1, 1, len(late))
    smooth = np.concatenate([score.value[: len(score) // 3], np.polyval(np.polyfit(t, late, 2), t)])
    first = run.series[keys[0]]
    return Source(first.step, first.epoch, trend, residual / residual.mean(0), score.epoch, smooth, late - np.polyval(np.polyfit(t, late, 2), t))


def _blocks(rng: np.random.Generator, runs: int, count: int, length: int, pool: int) -> np.ndarray:
    """Indices (runs, count) of blocks of `length` drawn from `pool` rows, which are joined end to start."""
    start = rng.integers(0, pool, (runs, -(-count // length)))
    return ((start[:, :, None] + np.arange(length)) % pool).reshape(runs, -1)[:, :count]


def make_runs(source: Source, rng: np.random.Generator, runs: int, *, losses=1.0, score: float = 0.0, seed_sd: float = 0.0, score_sd: float = 0.0) -> list[Run]:
    """`runs` trainings whose losses are multiplied by `losses` (a number or one for each) and whose mAP is raised by `score`. `seed_sd` is the
    spread of the runs' factors, one factor for all losses of a run (the worst case for their sum); `score_sd` the spread of their mAP."""
    count = len(source.trend)
    noise = source.residual[_blocks(rng, runs, count, BLOCK, len(source.residual))]
    factor = 1 + seed_sd * rng.standard_normal((runs, 1))
    values = source.trend * noise * (factor * losses)[:, None, :]
    # A quadratic takes three degrees of freedom from the residuals.
    late = source.map_residual * math.sqrt(len(source.map_residual) / (len(source.map_residual) - 3))
    wobble = late[_blocks(rng, runs, len(source.map_trend), 3, len(late))]
    scores = source.map_trend + wobble + score + score_sd * rng.standard_normal((runs, 1))
    return [_run(source, values[i], scores[i]) for i in range(runs)]


def _run(source: Source, values: np.ndarray, scores: np.ndarray) -> Run:
    run = Run("simulated", "simulated")
    for i, name in enumerate(LOSSES):
        run.series[f"train/{name}"] = Series(name, "train", "loss", source.step, source.epoch, values[:, i])
    unknown = np.full(len(scores), math.nan)
    run.series["val/mAP"] = Series("mAP", "val", "metric", unknown, source.map_epoch, scores)
    return run


@dataclass(frozen=True)
class Scenario:
    """One row of the table. `truth` is the true difference in words; `limit` is (verdict, "at most" or "at least", rate) or None. `lockstep` is the
    share of the noise, in variance, that the two sides do not have in common, or None for independent sides."""

    name: str
    truth: str
    runs: int
    losses: object = 1.0
    score: float = 0.0
    seed_sd: float = 0.0
    score_sd: float = 0.0
    limit: tuple[str, str, float] | None = None
    lockstep: float | None = None
    policy: Policy = Policy()
    coverage: bool = False


def scenarios(policy: Policy = Policy()) -> list[Scenario]:
    """The table: for 1, 3 and 5 runs a side no difference, one margin and two margins; then spread between seeds; then lockstep."""
    m, score = policy.margin_loss, policy.margin_metric
    one = lambda f: np.array([1.0, 1.0, 1.0, f, 1.0, 1.0])  # noqa: E731
    rows = []
    for runs in (1, 3, 5):
        rows += [
            Scenario("none", "no difference", runs, limit=(DIFFERENT, "at most", 0.05), coverage=runs > 1),
            Scenario("margin, all losses", "all losses at the margin", runs, losses=1 + m, limit=(EQUIVALENT, "at most", 0.05)),
        ]
        if runs > 1:
            rows += [
                Scenario("margin, one loss", "the noisiest loss at its margin", runs, losses=one(1 + 2 * m), limit=(EQUIVALENT, "at most", 0.05)),
                Scenario("margin, mAP", "mAP at the margin", runs, score=score, limit=(EQUIVALENT, "at most", 0.05)),
            ]
        power = (DIFFERENT, "at least", 0.90) if runs > 1 else None
        rows += [Scenario("twice, all losses", "all losses at twice the margin", runs, losses=1 + 2 * m, limit=power)]
        if runs > 1:
            rows += [
                Scenario("twice, one loss", "the noisiest loss at twice its margin", runs, losses=one(1 + 4 * m), limit=power),
                Scenario("twice, mAP", "mAP at twice the margin", runs, score=2 * score, limit=power),
            ]
    spread = {"seed_sd": policy.seed_sd_loss, "score_sd": policy.seed_sd_metric}
    for runs in (1, 3, 5):
        rows += [
            Scenario("none, seeds spread", "no difference; seeds spread as far as the stated bound", runs, limit=(DIFFERENT, "at most", 0.05), coverage=True, **spread),
            Scenario("margin, seeds spread", "all losses at the margin; seeds spread as far", runs, losses=1 + m, limit=(EQUIVALENT, "at most", 0.05), **spread),
            Scenario("twice, seeds spread", "all losses at twice the margin; seeds spread as far", runs, losses=1 + 2 * m, **spread),
        ]
    zero = replace(policy, seed_sd_loss=0.0, seed_sd_metric=0.0)
    rows += [
        Scenario("none, no seed term", "no difference; the block bootstrap alone (bound on seeds set to 0)", 1, limit=(DIFFERENT, "at most", 0.05), policy=zero, coverage=True),
        Scenario("margin, no seed term", "all losses at the margin; the block bootstrap alone", 1, losses=1 + m, limit=(EQUIVALENT, "at most", 0.05), policy=zero),
        Scenario("none, lockstep", "no difference; both sides follow one trajectory", 1, limit=(DIFFERENT, "at most", 0.05), lockstep=0.002),
        Scenario("margin, lockstep", "all losses at the margin; one trajectory", 1, losses=1 + m, limit=(EQUIVALENT, "at most", 0.05), lockstep=0.002),
        Scenario("twice, lockstep", "all losses at twice the margin; one trajectory", 1, losses=1 + 2 * m, lockstep=0.002),
    ]
    return rows


def _truth(scenario: Scenario, name: str, level: np.ndarray) -> float:
    """The true difference that the interval of hypothesis `name` should contain."""
    factors = np.broadcast_to(np.asarray(scenario.losses, float), (len(LOSSES),))
    if name.startswith("val/"):
        return scenario.score
    loss = name.split(",")[0].removeprefix("train/")
    return float(factors[LOSSES.index(loss)] - 1) if loss in LOSSES else float(level @ factors / level.sum() - 1)


def simulate(source: Source, scenario: Scenario, repeats: int, seed: int) -> dict:
    """Rates of the three verdicts and coverage of the 95 % intervals over `repeats` pairs of sides, twice as many where coverage is promised."""
    repeats *= 1 + scenario.coverage
    rng = np.random.default_rng([seed, abs(hash_name(scenario.name)), scenario.runs])
    counts = {EQUIVALENT: 0, DIFFERENT: 0, CANNOT_TELL: 0}
    covered: dict[str, int] = {}
    level = source.trend.mean(0)
    for _ in range(repeats):
        ref = make_runs(source, rng, scenario.runs, seed_sd=scenario.seed_sd, score_sd=scenario.score_sd)
        cand = make_runs(source, rng, scenario.runs, losses=scenario.losses, score=scenario.score, seed_sd=scenario.seed_sd, score_sd=scenario.score_sd)
        if scenario.lockstep is not None:
            cand = _follow(ref, cand, scenario)
        found = compare_sides(ref, cand, scenario.policy, details=False)
        counts[found.verdict] += 1
        for h in found.hypotheses:
            if ", whole" in h.name or ", last third" in h.name:
                low, high = h.estimate.interval()
                covered[h.name] = covered.get(h.name, 0) + (low <= _truth(scenario, h.name, level) <= high)
    return {
        "name": scenario.name, "truth": scenario.truth, "runs_a_side": scenario.runs, "seed_sd": scenario.seed_sd, "score_sd": scenario.score_sd, "repeats": repeats,
        **{verdict.replace(" ", "_"): count / repeats for verdict, count in counts.items()},
        "coverage": {name: count / repeats for name, count in covered.items()},
        "limit": list(scenario.limit) if scenario.limit else None,
    }


def _follow(ref: list[Run], cand: list[Run], scenario: Scenario) -> list[Run]:
    """The candidate's curves made of the reference's noise and a small share of its own."""
    share = math.sqrt(scenario.lockstep)
    factors = dict(zip(LOSSES, np.broadcast_to(np.asarray(scenario.losses, float), (len(LOSSES),))))
    for left, right in zip(ref, cand):
        for key, series in right.series.items():
            factor = factors.get(series.name, 1.0)
            own = series.value / factor
            series.value = factor * (math.sqrt(1 - scenario.lockstep) * left.series[key].value + share * own
                                     + (1 - share - math.sqrt(1 - scenario.lockstep)) * (left.series[key].value + own) / 2)
    return cand


def hash_name(name: str) -> int:
    """A number from a name, the same in every process (Python's own hash is not)."""
    return int.from_bytes(name.encode()[:7].ljust(7), "big") ^ sum(name.encode())


def kept(row: dict) -> bool | None:
    """Whether the measured rate itself keeps the limit: no excess is put down to chance."""
    if row["limit"] is None:
        return None
    verdict, side, rate = row["limit"]
    found = row[verdict.replace(" ", "_")]
    return bool(found <= rate if side == "at most" else found >= rate)


def known_to(row: dict) -> list[float] | None:
    """The 95 % interval (Clopper and Pearson) of the rate that the limit is about: what so many pairs know of it."""
    from scipy import stats  # here: it takes half a second to import

    if row["limit"] is None:
        return None
    n = row["repeats"]
    count = round(row[row["limit"][0].replace(" ", "_")] * n)
    low = stats.beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    return [float(low), float(high)]


def coverage_of(rows: list[dict]) -> dict:
    """Coverage of the intervals in the scenarios that promise it: 95 ± 1.5 %."""
    promised = {(s.name, s.runs) for s in scenarios() if s.coverage}
    return {f"{row['name']}, {row['runs_a_side']} a side": row["coverage"] for row in rows if (row["name"], row["runs_a_side"]) in promised}


def alterations(log: Path, folder: Path) -> list[dict]:
    """The verdict on each of the twelve altered copies of the log."""
    text, ref = log.read_text(encoding="utf-8"), read_run(log)
    rows = []
    for alteration in ALTERATIONS:
        path = folder / f"{alteration.name.replace(' ', '_')}.txt"
        path.write_text(alteration.change(text), encoding="utf-8")
        comparison, findings = compare_runs([ref], [read_run(path)], Policy(), alteration.mapping)
        codes = {f.code for f in findings} | {f["code"] for f in comparison.facts} | {h["code"] for h in comparison.holds}
        right = comparison.verdict == alteration.verdict and (alteration.code is None or alteration.code in codes)
        rows.append({"name": alteration.name, "expected": alteration.verdict, "verdict": comparison.verdict, "codes": sorted(codes), "right": right})
        path.unlink()
    return rows


def fingerprint(log: Path) -> str:
    """SHA-256 of the log and of the code whose verdicts are counted: rows of another state are not taken over."""
    digest = hashlib.sha256(log.read_bytes())
    for module in (curve_align, curve_metrics, curve_verdict, curves, log_alterations, sys.modules[__name__]):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


def all_rows(source: Source, arguments: argparse.Namespace, folder: Path) -> list[dict]:
    """Simulate every scenario. Rows are kept in ``folder/rows`` as they come, so that a run that was stopped goes on where it was."""
    state = {"repeats": arguments.repeats, "seed": arguments.seed, "fingerprint": fingerprint(arguments.log)}
    (folder / "rows").mkdir(exist_ok=True)
    rows: list[dict] = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(_one_row, folder / "rows" / f"{number:02d}.json", state, source, scenario, arguments.repeats, arguments.seed)
            for number, scenario in enumerate(scenarios())
        ]
        for job in jobs:
            row = job.result()
            row["kept"], row["interval"] = kept(row), known_to(row)
            rows.append(row)
            say(f"{row['runs_a_side']} a side, {row['name']}: equivalent {row['equivalent']:.1%}, different {row['different']:.1%}", arguments.verbosity)
    return rows


def _one_row(path: Path, state: dict, source: Source, scenario: Scenario, repeats: int, seed: int) -> dict:
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["state"] == state:
            return before["row"]
    row = simulate(source, scenario, repeats, seed)
    write_json(path, {"state": state, "row": row})
    return row


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.simulate", parents=[parent_parser(config_required=False)],
                                     description="Measure how often the verdict of alignment.logs is wrong.",
                                     epilog="example: python -m alignment.simulate --output out/simulate --statistics reports/results/statistics.json --docs docs/statistics.md")
    parser.add_argument("--log", type=Path, default=Path("../shared/data/logs/pytorch_logs.txt"), help="the real log whose noise is used")
    parser.add_argument("--repeats", type=int, default=COVERAGE_PAIRS // 2, metavar="N", help=f"pairs of sides for each row, twice that where intervals are checked (default: {COVERAGE_PAIRS // 2})")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--statistics", type=Path, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="also put the tables between the markers of this document")
    arguments = parser.parse_args(argv)
    folder, began = prepare_output(arguments.output), time.perf_counter()
    if not arguments.log.is_file():
        raise UserError(f"{arguments.log} does not exist; give upstream's training log with --log FILE.")
    if arguments.repeats < 1:
        raise UserError(f"--repeats must be at least 1; leave it out for {COVERAGE_PAIRS // 2}.")
    run = read_run(arguments.log)
    source = source_of(run)
    rows = all_rows(source, arguments, folder)
    document = {
        "schema_version": 1, "command": "simulate", "log": arguments.log.name, "lines": len(source.step), "repeats": arguments.repeats, "seed": arguments.seed,
        "resolution": 1.96 * math.sqrt(0.05 * 0.95 / arguments.repeats), "policy": vars(Policy()), "rows": rows,
        "coverage": coverage_of(rows), "alterations": alterations(arguments.log, folder),
    }
    result = Result("simulate", seeds={"simulation": arguments.seed}, durations={"total_s": time.perf_counter() - began})
    for row in rows:
        if row["kept"] is not None:
            result.check(f"{row['name']}, {row['runs_a_side']} a side", row["kept"], Reason.BEYOND_TOLERANCE, f"{row['limit']}", stage="rate")
    for name, entry in document["coverage"].items():
        for what, rate in entry.items():
            result.check(f"{name}: {what}", covers(rate), Reason.BEYOND_TOLERANCE, f"coverage {rate:.2%}", stage="coverage")
    for row in document["alterations"]:
        result.check(row["name"], row["right"], Reason.METRIC_DIFFERS, f"{row['verdict']} instead of {row['expected']}", stage="alteration")
    result.parts = {"statistics": document}
    if arguments.statistics:
        write_json(arguments.statistics, document)
    if arguments.docs:
        write_docs(arguments.docs, document)
    return finish(result, folder, verbosity=arguments.verbosity)


def covers(rate: float) -> bool:
    """Whether a measured coverage lies within 95 ± 1.5 %; see `COVERAGE_PAIRS`."""
    return abs(rate - COVERAGE) <= COVERAGE_SLACK + 1e-12


if __name__ == "__main__":
    sys.exit(run_cli(main))

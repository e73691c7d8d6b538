"""``python -m alignment.logs``: are these two trainings the same, as far as their logs can tell?

Reads the logs of both sides, shows what it understood, aligns them, compares schedules, curves and metrics, and says ``equivalent``, ``different``
or ``cannot tell`` with the margin and the reason. ``docs/statistics.md`` says what the words mean.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from alignment import curve_pages
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.curve_align import read_map
from alignment.curve_verdict import Comparison, compare_sides
from alignment.curves import CANNOT_TELL, DIFFERENT, EQUIVALENT, Hypothesis, Policy
from alignment.log_reader import Run, find_runs, read_run
from alignment.plausibility import Finding, inspect_pair, inspect_run
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from jt_nanodet.errors import UserError

#: From this many bytes on, logs are read by two processes.
LARGE = 30_000_000
_FACT_REASONS = {"not_finite": Reason.NOT_FINITE_CAND, "schedule": Reason.CONFIG_DIFFERS, "learning_rate": Reason.CONFIG_DIFFERS}
_HOLD_REASONS = {"coverage": Reason.COVERAGE, "unpaired": Reason.MISSING, "not_finite_both": Reason.NOT_FINITE_BOTH, "derived": Reason.ALTERED}


def parser() -> argparse.ArgumentParser:
    """The command line; --config is optional here and turns the check of the learning rates on."""
    p = argparse.ArgumentParser(
        prog="python -m alignment.logs", parents=[parent_parser(config_required=False)], formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare training logs of two programs: schedules, loss curves, metrics.",
        epilog="examples:\n"
               "  python -m alignment.logs --pytorch-log torch.txt --jittor-log jittor.txt --output out/logs\n"
               "  python -m alignment.logs --pytorch-log a1.txt a2.txt a3.txt --jittor-log b1.jsonl b2.jsonl b3.jsonl --map names.txt --output out/logs\n"
               "A map file holds one `pytorch_name: jittor_name` a line.",
    )
    p.add_argument("--pytorch-log", "--ref", dest="ref", nargs="+", type=Path, required=True, metavar="LOG", help="reference: files or folders; each log is a seed")
    p.add_argument("--jittor-log", "--cand", dest="cand", nargs="+", type=Path, required=True, metavar="LOG", help="candidate: files or folders; each log is a seed")
    p.add_argument("--map", type=Path, metavar="FILE", help="pairs of names that differ between the sides")
    p.add_argument("--ignore", nargs="+", default=[], metavar="NAME", help="series to leave out, by name or phase/name")
    p.add_argument("--step-name", metavar="WORD", help="the word that counts the steps, where it is not step, iter, iteration or epoch")
    p.add_argument("--margin-loss", type=float, default=1.0, metavar="PERCENT", help="difference of the total loss that does not matter (default: 1)")
    p.add_argument("--margin-metric", type=float, default=0.3, metavar="POINTS", help="difference of mAP that does not matter, 0-100 scale (default: 0.3)")
    p.add_argument("--seed-sd-loss", type=float, default=1.0, metavar="PERCENT", help="bound on the spread between seeds where it cannot be measured (default: 1)")
    p.add_argument("--seed-sd-metric", type=float, default=0.5, metavar="POINTS", help="the same for mAP, 0-100 scale (default: 0.5)")
    p.add_argument("--alpha", type=float, default=0.05, help="accepted rate of wrong answers of either kind (default: 0.05)")
    p.add_argument("--min-coverage", type=float, default=0.95, metavar="SHARE", help="share of the training both sides must cover (default: 0.95)")
    p.add_argument("--no-plots", action="store_true", help="write no pictures")
    return p


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The margins and bounds the user asked for. UserError for one that makes no sense."""
    for name in ("margin_loss", "margin_metric"):
        if not getattr(arguments, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name):g} must be above 0; leave it out for the default.")
    for name in ("seed_sd_loss", "seed_sd_metric"):
        if not getattr(arguments, name) >= 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name):g} must be 0 or more; leave it out for the default.")
    for name in ("alpha", "min_coverage"):
        if not 0 < getattr(arguments, name) <= (0.5 if name == "alpha" else 1):
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name):g} is out of range; leave it out for the default.")
    return Policy(
        arguments.margin_loss / 100, arguments.margin_metric / 100, arguments.alpha, arguments.seed_sd_loss / 100, arguments.seed_sd_metric / 100,
        arguments.min_coverage,
    )


# -- reading ---------------------------------------------------------------------------------------------------------------------------------------
def read_sides(ref: list[Path], cand: list[Path], step_name: str | None = None) -> tuple[list[Run], list[Run]]:
    """Read the runs of both sides; large logs in two processes. UserError for a log that cannot be read or understood, or is on both sides."""
    paths_a, paths_b = find_runs(ref), find_runs(cand)
    both = {path.resolve() for path in paths_a} & {path.resolve() for path in paths_b}
    if both:
        raise UserError(f"{sorted(both)[0]} is named on both sides; give the log of the other program after --jittor-log.")
    paths = paths_a + paths_b
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if size < LARGE or (os.cpu_count() or 1) < 2:
        runs = [read_run(path, step_name=step_name) for path in paths]
    else:
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2) as pool:
            jobs = [pool.submit(_read_to_file, path, step_name, Path(folder) / f"{i}.run") for i, path in enumerate(paths)]
            runs = [_load(job.result()) for job in jobs]
    return runs[: len(paths_a)], runs[len(paths_a):]


def _read_to_file(path: Path, step_name: str | None, target: Path) -> Path:
    # Through a file, because a pipe would hold every array twice more.
    run = read_run(path, step_name=step_name)
    with open(target, "wb") as file:
        pickle.dump(run, file, protocol=5)
    return target


def _load(path: Path) -> Run:
    """Read back what our own child process wrote a moment ago into our own temporary folder."""
    with open(path, "rb") as file:
        return pickle.load(file)


# -- judging ---------------------------------------------------------------------------------------------------------------------------------------
def compare_runs(ref: list[Run], cand: list[Run], policy: Policy, mapping=None, ignore: tuple[str, ...] = (), config: Path | None = None) -> tuple[Comparison, list[Finding]]:
    """Compare, inspect, and withdraw "equivalent" when a curve was derived and not measured."""
    comparison = compare_sides(ref, cand, policy, mapping, ignore)
    findings = [finding for run in ref + cand for finding in inspect_run(run, config)]
    for one in comparison.aligned.values():
        seen = set()
        for i in range(min(len(one.a), 4)):
            for j in range(min(len(one.b), 4)):
                for finding in inspect_pair(one, i, j):
                    if finding.code not in seen:
                        seen.add(finding.code)
                        findings.append(finding)
    derived = [f for f in findings if f.derived]
    for finding in derived:
        comparison.holds.append({"code": "derived", "name": finding.name, "text": finding.text})
    if derived and comparison.verdict == EQUIVALENT:
        comparison.verdict = CANNOT_TELL
    if derived:
        # More runs do not help where the numbers were not measured.
        comparison.runs_needed = None
    return comparison, findings


def to_result(comparison: Comparison, findings: list[Finding], ref: list[Run], cand: list[Run], policy: Policy) -> Result:
    """The comparison as rows of a `Result`: equivalent passes, different fails, cannot tell is inconclusive."""
    result = Result("logs", seeds={f"{side}_{i}": run.seed for side, runs in (("ref", ref), ("cand", cand)) for i, run in enumerate(runs) if run.seed is not None})
    for fact in comparison.facts:
        reason = Reason.NOT_FINITE_REF if fact.get("side") == "reference" else _FACT_REASONS[fact["code"]]
        step = int(fact["at"]) if fact.get("axis") == "step" else None
        result.add(TensorResult(fact["name"], fact["name"], Verdict.FAIL, reason, Gate.EXACT, stage=fact["code"], step=step, hint=fact["text"]))
    for one in comparison.aligned.values():
        if one.pair.kind == "lr" and not any(f["name"] == one.pair.ref for f in comparison.facts) and one.pair.ref.startswith("train"):
            result.add(TensorResult(one.pair.ref, one.pair.cand, Verdict.PASS, Reason.OK, Gate.EXACT, stage="schedule", size=int(one.a.size)))
    for h in comparison.hypotheses:
        result.add(_row(h))
    for number, hold in enumerate(comparison.holds):
        if hold["code"] == "unpaired":
            result.skip(hold["name"], hold["text"] + "; name its partner with --map, or leave it out with --ignore", stage="series")
        else:
            reason = _HOLD_REASONS.get(hold["code"], Reason.NOT_CHECKED)
            result.add(TensorResult(hold["name"], None, Verdict.INCONCLUSIVE, reason, Gate.RUN, stage=f"{hold['code']} {number}", hint=hold["text"]))
    held = {hold["name"] for hold in comparison.holds}
    for side, keys in (("reference", comparison.only_ref), ("candidate", comparison.only_cand)):
        for key in keys:
            if key not in held:
                result.leave_out(key, f"only in the {side}")
    for key in comparison.ignored:
        result.leave_out(key, "left out with --ignore")
    if not comparison.hypotheses and not comparison.facts:
        result.skip("curves", "no loss and no metric is on both sides", stage="series")
    needed = comparison.runs_needed
    result.parts = {
        "statistics_verdict": comparison.verdict,
        "policy": vars(policy),
        "hypotheses": [hypothesis_json(h) for h in comparison.hypotheses],
        "facts": comparison.facts, "holds": comparison.holds, "findings": [vars(f) for f in findings],
        "metrics": comparison.metrics, "notes": comparison.notes, "pairing": comparison.pairing, "first_difference": comparison.first_difference,
        "runs_needed": None if needed is None else {"runs_a_side": needed[0], "verdict": needed[1]},
        "pairs": [{"ref": p.ref, "cand": p.cand, "matched_by": p.how, "kind": p.kind} for p in comparison.pairs],
        "alignment": {k: {"axis": one.axis, "how": one.how, "points": len(one.x), "coverage": one.coverage} for k, one in comparison.aligned.items()},
        "logs": {"reference": [run.describe() for run in ref], "candidate": [run.describe() for run in cand]},
    }
    return result


def _row(h: Hypothesis) -> TensorResult:
    verdict, reason = {
        EQUIVALENT: (Verdict.PASS, Reason.OK),
        DIFFERENT: (Verdict.FAIL, Reason.METRIC_DIFFERS if h.name.startswith("val/") and "loss" not in h.name else Reason.BEYOND_TOLERANCE),
        CANNOT_TELL: (Verdict.INCONCLUSIVE if h.deciding else Verdict.WARN, Reason.TOO_FEW_REPEATS),
    }[h.outcome]
    low, high = h.estimate.interval()
    hint = f"difference {h.estimate.difference:+.3%}, 95 % interval {low:+.3%} to {high:+.3%}, margin {h.margin:.2%} ({h.estimate.method})"
    return TensorResult(
        h.name, h.name, verdict, reason, Gate.BOUND, stage="metric" if h.name.startswith("val/") else "loss", max_abs=abs(h.estimate.difference),
        tolerance=h.margin, tolerance_source="stated margin", hint=hint,
    )


def hypothesis_json(h: Hypothesis) -> dict:
    low, high = h.estimate.interval()
    return {
        "name": h.name, "outcome": h.outcome, "deciding": h.deciding, "difference": h.estimate.difference, "interval_95": [low, high], "margin": h.margin,
        "standard_error": h.estimate.error, "degrees_of_freedom": h.estimate.freedom, "p_difference": h.p_difference, "p_equivalence": h.p_equivalence,
        "share_of_alpha": h.share, "method": h.estimate.method,
    }


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    policy, folder, began = policy_of(arguments), prepare_output(arguments.output), time.perf_counter()
    mapping = read_map(arguments.map) if arguments.map else None
    ref, cand = read_sides(arguments.ref, arguments.cand, arguments.step_name)
    read = time.perf_counter()
    for side, runs in (("reference", ref), ("candidate", cand)):
        for run in runs:
            say(curve_pages.understood(side, run), arguments.verbosity)
    comparison, findings = compare_runs(ref, cand, policy, mapping, tuple(arguments.ignore), arguments.config)
    result = to_result(comparison, findings, ref, cand, policy)
    result.durations = {"read_s": read - began, "compare_s": time.perf_counter() - read}
    result.versions = {"numpy": np.__version__, "python": sys.version.split()[0]}
    pictures = []
    if not arguments.no_plots and comparison.aligned:
        from alignment import curve_plots

        pictures = curve_plots.draw_all(comparison, folder)
    curve_pages.write_pages(folder, comparison, findings, ref, cand, policy, pictures)
    if arguments.verbosity >= 0:
        print(curve_pages.text(comparison, findings))
    return finish(result, folder, verbosity=-1 if arguments.verbosity < 1 else arguments.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))

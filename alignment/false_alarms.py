"""``python -m alignment.false_alarms``: how often does the checker call a faultless port faulty? Measured on 200 comparisons, with an upper bound.

    python -m alignment.false_alarms --output out                                             all of them
    python -m alignment.false_alarms --only curves --output out                               one kind
    python -m alignment.false_alarms --output out --record reports/results/false_alarms.json

A false alarm is a comparison that ends as `fail` or `not_comparable`. One that ends as `inconclusive` raised none, and is counted apart.
The run can be made in pieces: a kind that the folder already holds, made by this very code, is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.evidence import code_now
from alignment.faultless import KINDS, Outcome
from alignment.noise import FALSE_ALARM
from alignment.reasons import Gate, Reason, Verdict
from alignment.report_top import processor
from alignment.result import Result, TensorResult, write_json
from jt_nanodet.errors import UserError, nearest

#: Confidence of the upper bound.
LEVEL = 0.95
ALARMS = ("fail", "not_comparable")
SCHEMA_VERSION = 1
PACKAGES = ("jittor", "torch", "numpy")
COLUMNS = ["comparison", "another from one to the next", "comparisons", "tensors and numbers judged", "nearest to its bound", "false alarms", "undecided", "rate at most"]
COLUMNS_ZH = ["比较", "每次比较之间的变化", "比较次数", "判定的张量和数", "离界限最近", "误报", "未决", "误报率上限"]


def upper_bound(alarms: int, comparisons: int, level: float = LEVEL) -> float:
    """The largest rate that so few alarms are compatible with (Clopper and Pearson, one-sided): 3/n where there was none, nearly."""
    from scipy import stats  # here: it takes half a second to import

    return 1.0 if alarms >= comparisons else float(stats.beta.ppf(level, alarms + 1, comparisons - alarms))


def main(argv: list[str]) -> int:
    """Make the comparisons, kind by kind; a row each in result.json, and the recording with --record."""
    arguments = parse(argv)
    folder, began, code = prepare_output(arguments.output), time.monotonic(), code_now()
    result = Result("false_alarms", versions={name: metadata.version(name) for name in PACKAGES}, hashes={"code": code})
    found: dict[str, list[Outcome]] = {}
    for name in arguments.only or KINDS:
        count = min(KINDS[name].count, arguments.first or KINDS[name].count)
        result.expect(f"{name} {number}" for number in range(count))
        found[name] = made(name, count, folder, code, arguments.verbosity)
        result.add(row(name, one) for one in found[name])
    left = [name for name in KINDS if name not in found or len(found[name]) < KINDS[name].count]
    if left:
        result.leave_out("the rest of the comparisons", f"not asked for: {', '.join(left)}")
    result.durations = {"total": round(time.monotonic() - began, 1)}
    document = recording(found, result.versions, datetime.date.today().isoformat(), f"{processor()}, {os.cpu_count()} cores")
    result.parts["false_alarms"] = {key: document[key] for key in ("counts", "tables")}
    if arguments.record:
        write_json(arguments.record, document)
    if arguments.verbosity >= 0:
        print(text(document))
    return finish(result, folder, verbosity=arguments.verbosity)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m alignment.false_alarms", description=__doc__.splitlines()[0], parents=[parent_parser(config_required=False)])
    parser.add_argument("--only", metavar="KIND", action="append", help=f"only this kind; may be given again: {', '.join(KINDS)}")
    parser.add_argument("--first", metavar="N", type=int, help="only the first N comparisons of each kind")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write the recording there")
    arguments = parser.parse_args(argv)
    for name in arguments.only or ():
        if name not in KINDS:
            hint = nearest(name, KINDS)
            raise UserError(f'no kind "{name}"{f" (did you mean {hint}?)" if hint else ""}: give --only one of {", ".join(KINDS)}')
    if arguments.first is not None and arguments.first < 1:
        raise UserError(f"--first {arguments.first} is out of range: give 1 or more")
    if arguments.device != "cpu" or arguments.config or arguments.seed:
        raise UserError("the comparisons bring configurations and seeds of their own, and run on the CPU: leave out --device, --config and --seed")
    if arguments.record and (arguments.only or arguments.first):
        raise UserError("a recording holds all comparisons: leave out --only and --first, or --record")
    return arguments


def made(name: str, count: int, folder: Path, code: str, verbosity: int) -> list[Outcome]:
    """The outcomes of a kind: those that lie in the folder when this code made them, new ones else; each is kept as soon as it is there."""
    path = folder / f"{name}.json"
    found = kept(path, code)
    say(f"{name}: {count} comparisons, {min(len(found), count)} made already", verbosity)
    last = time.monotonic()
    for one in KINDS[name].run(range(len(found), count), folder) if len(found) < count else ():
        found.append(one)
        write_json(path, {"code": code, "outcomes": [dataclasses.asdict(each) for each in found]})
        if one.verdict in ALARMS:
            say(f"false alarm: {one.name}: {one.first or one.reason}", verbosity)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"{name}: {len(found)} of {count}", verbosity)
    return found[:count]


def kept(path: Path, code: str) -> list[Outcome]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return [Outcome(**one) for one in document["outcomes"]] if document["code"] == code else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def row(kind: str, one: Outcome) -> TensorResult:
    """A false alarm fails; an undecided comparison warns, because it raised no alarm."""
    verdict = Verdict.FAIL if one.verdict in ALARMS else Verdict.PASS if one.verdict == "pass" else Verdict.WARN
    return TensorResult(one.name, one.name, verdict, Reason(one.reason), Gate.RUN, stage=kind, hint=one.first, size=one.compared)


def recording(found: dict[str, list[Outcome]], versions: dict[str, str], date: str, machine: str) -> dict[str, Any]:
    """Counts and rates of each kind and of all, the alarms by name, and the table for the docs."""
    counts = {name: counted(outcomes) for name, outcomes in {**found, "all": [one for outcomes in found.values() for one in outcomes]}.items()}
    rows = [[name, KINDS[name].varies if name in KINDS else "", one["comparisons"], one["judged"], shown(one["of_bound"]), one["false_alarms"], one["undecided"],
             f"{100 * one['rate_at_most']:.2g} %"] for name, one in counts.items()]
    note = ("Nearest to its bound: the largest difference of any tensor with a measured floor, as a share of its bound. "
            f"Rates at most: upper end of a one-sided interval of {LEVEL:.0%} (Clopper and Pearson). {date}; {', '.join(f'{k} {v}' for k, v in versions.items())}; {machine}")
    return {"schema_version": SCHEMA_VERSION, "command": "python -m alignment.false_alarms", "date": date, "machine": machine, "versions": versions, "level": LEVEL, "counts": counts,
            "alarms": [dataclasses.asdict(one) for outcomes in found.values() for one in outcomes if one.verdict in ALARMS],
            "undecided": [dataclasses.asdict(one) for outcomes in found.values() for one in outcomes if one.verdict == "inconclusive"],
            "tables": {"false_alarms": {"columns": COLUMNS, "columns_zh": COLUMNS_ZH, "rows": rows, "note": note}}}


def shown(of_bound: float | None) -> str:
    return "–" if of_bound is None else f"{of_bound:.2f}"


def counted(outcomes: list[Outcome]) -> dict[str, Any]:
    """`by_luck`: the alarms that bounds of `FALSE_ALARM` each are made for, were every tensor's as likely to break as that."""
    alarms = sum(one.verdict in ALARMS for one in outcomes)
    near = max((one for one in outcomes if one.of_bound is not None), key=lambda one: one.of_bound, default=None)
    return {"comparisons": len(outcomes), "judged": sum(one.compared for one in outcomes), "false_alarms": alarms, "undecided": sum(one.verdict == "inconclusive" for one in outcomes),
            "of_bound": near.of_bound if near else None, "nearest": f"{near.name}: {near.nearest}" if near else "", "by_luck": FALSE_ALARM * sum(one.compared for one in outcomes),
            "rate": alarms / len(outcomes), "rate_at_most": upper_bound(alarms, len(outcomes))}


def text(document: dict[str, Any]) -> str:
    lines = [f"{name:11s} {one['comparisons']:4d} comparisons, {one['judged']:7d} judged, {one['false_alarms']:3d} false alarms, {one['undecided']:3d} undecided, nearest {shown(one['of_bound'])} of its bound, rate at most {one['rate_at_most']:.2%}"
             for name, one in document["counts"].items()]
    return "\n".join([*lines, *(f"false alarm: {one['name']}: {one['first'] or one['reason']}" for one in document["alarms"])])


if __name__ == "__main__":
    sys.exit(run_cli(main))

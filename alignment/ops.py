"""``python -m alignment.ops``: Jittor's operators against PyTorch's, forward and gradient, on seeded and edge inputs.

    python -m alignment.ops --output out                     the whole atlas
    python -m alignment.ops --family pool --output out       one family
    python -m alignment.ops --output out --expect reports/results/ops_atlas.json
    python -m alignment.ops --output out --used-by my_port   which of my port's operators differ, by the recording; runs nothing

A difference between the frameworks is what this command looks for, so it is a *finding* (`warn`), and the verdict says whether every case was run and
judged. With ``--expect`` an entry that is not as the recording says fails.
A run that was stopped goes on where it was when it is given the same folder.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from importlib import metadata
from pathlib import Path

from alignment.atlas import drive, pages, uses
from alignment.atlas.judge import CRASHES, DIFFERS, EQUAL, MISSING, UNCLEAR, Judged, judge
from alignment.atlas.table import FAMILIES, entries
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.reasons import Gate, Reason, Verdict
from alignment.report_top import processor
from alignment.result import Result, TensorResult, write_json
from jt_nanodet.errors import UserError

REASONS = {EQUAL: Reason.OK, DIFFERS: Reason.OPERATOR_DIFFERS, MISSING: Reason.OPERATOR_MISSING, CRASHES: Reason.OPERATOR_CRASHES, UNCLEAR: Reason.FLOOR_TOO_WIDE}

#: What comes with the toolkit.
RECORDING = Path(__file__).resolve().parents[1] / "reports" / "results" / "ops_atlas.json"
#: Packages whose versions decide what an operator gives.
PACKAGES = ("jittor", "torch", "numpy")


def main(argv: list[str]) -> int:
    """Run, judge, write result.json, atlas.md and atlas.html; with --record the compact recording."""
    arguments = parse(argv)
    if arguments.used_by:
        return used_by(arguments)
    wanted = entries(arguments.family, arguments.first, arguments.plain)
    recorded = pages.read_recording(arguments.expect) if arguments.expect else None
    folder = prepare_output(arguments.output)
    began = time.monotonic()
    judged = examine(wanted, folder / "answers", arguments)
    result = Result("ops", seeds={"inputs": 0}, versions={name: metadata.version(name) for name in PACKAGES}, durations={"total": round(time.monotonic() - began, 1)})
    result.expect(entry.key for entry in wanted)
    for one in judged:
        result.add(row(one, recorded))
    left = len(entries()) - len(wanted)
    if left:
        result.leave_out("the rest of the atlas", f"{left} entries were not asked for")
    document = pages.recording(judged, result.versions, datetime.date.today().isoformat(), processor())
    result.parts["atlas"] = {key: document[key] for key in ("date", "machine", "counts", "entries")}
    pages.write(folder, document)
    if arguments.record:
        write_json(arguments.record, document)
    say(pages.counted(document), arguments.verbosity)
    return finish(result, folder, verbosity=arguments.verbosity)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m alignment.ops", description=__doc__.splitlines()[0], parents=[parent_parser(config_required=False)])
    parser.add_argument("--family", metavar="NAME", action="append", help=f"only this family; may be given again: {', '.join(FAMILIES)}")
    parser.add_argument("--first", metavar="N", type=int, help="only the first N entries of each family")
    parser.add_argument("--plain", action="store_true", help="ordinary inputs only, no edge inputs")
    parser.add_argument("--expect", metavar="FILE", type=Path, help="a recording; an entry with another outcome fails")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write the recording there")
    parser.add_argument("--used-by", metavar="PATH", type=Path, help="a Jittor port, a file or a folder: which of its operators the recording (--expect, or the one that comes with "
                        "the toolkit) knows to differ, and where; reads text and runs nothing")
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="Jittor processes at a time (default: 2)")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=180, help="longest time for one case (default: 180)")
    arguments = parser.parse_args(argv)
    if arguments.device != "cpu":
        raise UserError("the atlas is about the CPU: leave out --device")
    if arguments.config or arguments.seed:
        raise UserError("the atlas knows no configuration and no seed of its own: leave out --config and --seed")
    if arguments.record and (arguments.family or arguments.first or arguments.plain):
        raise UserError("a recording holds the whole atlas: leave out --family, --first and --plain, or --record")
    if arguments.used_by and (arguments.family or arguments.first or arguments.plain or arguments.record):
        raise UserError("--used-by reads a recording and runs nothing: leave out --family, --first, --plain and --record, or --used-by")
    for name, least in (("first", 1), ("workers", 1), ("timeout", 1)):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= 100_000:
            raise UserError(f"--{name} {value} is out of range: give {least} or more")
    if arguments.workers > 9:
        raise UserError(f"--workers {arguments.workers} is out of range: give 1 to 9")
    return arguments


def examine(wanted: list, folder: Path, arguments: argparse.Namespace) -> list[Judged]:
    """Both sides' answers, judged entry by entry."""
    known = {entry.key: entry for entry in wanted}
    options = {"timeout": arguments.timeout, "verbosity": arguments.verbosity}
    torch = drive.run("torch", known, folder, **options)
    jittor = drive.run("jittor", known, folder, workers=arguments.workers, **options)

    def of(found: dict, name: str) -> dict:
        return {case: found[name, case] for case in known[name].cases}

    return [judge(entry, of(torch, entry.key), of(jittor, entry.key)) for entry in wanted]


def row(judged: Judged, recorded: dict[str, dict[str, str]] | None) -> TensorResult:
    """The row of an entry. Without a recording a finding warns; with one, only what is not as recorded fails."""
    name, outcome, first = judged.entry.key, judged.outcome, judged.first
    hint = f"{first.case}, {first.part}: {first.text}" if first else ""
    verdict = Verdict.PASS if outcome == EQUAL else Verdict.WARN
    reason = REASONS[outcome]
    if recorded is not None:
        before = recorded.get(name)
        if before is None:
            verdict, reason, hint = Verdict.FAIL, Reason.EXTRA, f"the recording does not have this entry; {hint}"
        elif (expected := before["outcome" if judged.entry.edges else "plain"]) != outcome:
            verdict, hint = Verdict.FAIL, f"recorded as {expected}, now {outcome}; {hint}"
            reason = Reason.STALE if outcome == EQUAL else reason
    return TensorResult(name, name, verdict, reason, Gate.BOUND, stage="operator", hint=hint, size=judged.cases)


def used_by(arguments: argparse.Namespace) -> int:
    """A row for every place of a port that uses an operator of the recording; it warns where the operator is known to differ and no ``# differs:`` stands there."""
    document = pages.read_document(arguments.expect or RECORDING)
    found, untried = uses.used(arguments.used_by, document)
    folder = prepare_output(arguments.output)
    result = Result("ops", versions=document["versions"])
    for use, entries in found:
        name = f"{use.file}:{use.line} {use.name}"
        outcome = uses.worst(entries) if entries else EQUAL
        hint = use.reason or "; ".join(f"{one['name']}: {pages.what(one)}" for one in entries)
        verdict = Verdict.WARN if entries and not use.reason else Verdict.PASS
        result.add(TensorResult(name, name, verdict, REASONS[outcome] if verdict is Verdict.WARN else Reason.OK, Gate.BOUND, stage="operator", hint=hint))
        if verdict is Verdict.WARN and arguments.verbosity >= 0:
            print(f"{use.file}:{use.line}: {use.name} {outcome}: {hint}")
    for name, places in sorted(untried.items()):
        result.leave_out(name, f"the atlas has no entry for it; used in {', '.join(places[:3])}{' and elsewhere' if len(places) > 3 else ''}")
    return finish(result, folder, verbosity=arguments.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))

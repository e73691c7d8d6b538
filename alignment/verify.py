"""``python -m alignment.verify REPORT_DIR``: does a report follow from what lies behind it?

Every file is held to its hash; every verdict and number is computed again from the bundles and the other raw files; every picture must be the one that went into
the network; the pages must be what the result files render to; and the code must be the one that made the report.

    python -m alignment.verify out/report --output out/verify
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from alignment import evidence, pair_report, recompute, upstream_part, verify_pair
from alignment.bundle import Bundle, array_sha256
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.reasons import Gate, Reason
from alignment.report import CONFIG_COPY, PARTS
from alignment.result import Result
from alignment.runners import child
from alignment.verify_rows import open_bundle, row, told, top
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError
from reports import NAMES

#: Raw files of each part, beside the bundles.
RAW = {"structure": "structure/{}.structure.json", "weights": "weights/{}.weights.json", "infer": "infer/{}.detections.json",
       upstream_part.PART: f"{upstream_part.PART}/{upstream_part.FILE}"}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.verify", description=__doc__.split("\n\n")[0], parents=[parent_parser(config_required=False)],
                                     epilog="example: python -m alignment.verify out/report --output out/verify")
    parser.add_argument("report", metavar="REPORT_DIR", type=Path, help="the folder given to `python -m alignment.report --output`")
    parser.add_argument("--expect", metavar="SHA256", help=f"the hash of {evidence.FILE} that the report's maker told you")
    args = parser.parse_args(argv)
    if not args.report.is_dir() or not any((args.report / name).exists() for name in ("report.json", evidence.FILE, *PARTS)):
        raise UserError(f"{args.report} is no report: name the folder that was given to python -m alignment.report --output")
    if args.output.resolve() == args.report.resolve():
        raise UserError(f"{args.output} is the report itself and must stay as it is: give another folder with --output")
    folder = prepare_output(args.output)
    result = verify(args.report, args.expect, args.verbosity)
    result.seeds = {"seed": args.seed}
    return finish(result, folder, verbosity=args.verbosity)


def verify(report: Path, expect: str | None = None, verbosity: int = 0) -> Result:
    """Rows in the order in which a reader wants to know: the seal, the raw files, what follows from them, pictures, pages, and every other file by its hash."""
    result = Result("verify", device="none")
    seal = evidence.read(report)
    if seal is None:
        result.object(Reason.UNHASHED, f"{report} has no usable {evidence.FILE}, so nothing says what its files were: make the report again with python -m alignment.report")
        return result
    result.hashes = {"evidence": evidence.file_sha256(report / evidence.FILE), "code": seal["code_sha256"]}
    if expect:
        row(result, evidence.FILE, result.hashes["evidence"] == expect.lower(), Reason.ALTERED, f"its hash is {result.hashes['evidence']}, and not the one you were told", stage="seal")
    same_code = code(result, seal)
    of_pair = pair_report.is_one(report)
    say("1 of 4: bundles and raw files", verbosity)
    whole = verify_pair.raw_files(result, report) if of_pair else raw_files(result, report, seal)
    say("2 of 4: verdicts and numbers", verbosity)
    if not same_code:
        result.leave_out("verdicts and numbers", "computed by other code than today's: check the recorded commit out")
    elif of_pair:
        verify_pair.numbers(result, report, whole)
    else:
        numbers(result, report, seal, whole)
    say("3 of 4: pictures and pages", verbosity)
    pictures(result, report)
    if same_code:
        pages(result, report, seal)
    say("4 of 4: every file's hash", verbosity)
    hashes(result, report, seal)
    result.leave_out("floors, seconds and memory", "they were measured while the report was made and can only be held to their hashes")
    result.parts = {"report": str(report), "commit": seal.get("commit"), "files": len(seal["files"])}
    return result


def code(result: Result, seal: dict[str, Any]) -> bool:
    """Whether the code that made the report lies here; and whether the commit that the seal names is that code."""
    commit = seal.get("commit")
    known = evidence.code_at(commit) if isinstance(commit, str) else None
    if known is None:
        result.leave_out("commit", f"the commit {commit} is not known here" if commit else "the report was made outside a git checkout")
    elif seal.get("changed_since_commit"):
        result.leave_out("commit", f"the report was made with changes that are not in commit {commit}")
    else:
        row(result, "commit", known == seal["code_sha256"], Reason.STALE, f"the code at commit {commit} is not the code that the report was made with", stage="seal")
    if evidence.code_now() == seal["code_sha256"]:
        return True
    again = f"git checkout {commit}" if commit and known == seal["code_sha256"] else "python -m alignment.report again"
    result.object(Reason.STALE, f"the report was made by other code (commit {commit}) than lies here: {again}")
    return False


def parts_of(report: Path) -> tuple[str, ...]:
    """The parts of this report; the comparison with the original is one where it was asked for."""
    return (*PARTS, upstream_part.PART) if upstream_part.made(report) else PARTS


def raw_files(result: Result, report: Path, seal: dict[str, Any]) -> set[str]:
    """Bundles and the runners' other files: there, whole, unaltered, and about one and the same run. Returns the parts that can be computed again."""
    whole = set(parts_of(report))
    opened: dict[str, Bundle] = {}
    for side in child.MODULES:
        bundle = open_bundle(result, report, f"layers/bundles/{side}")
        if bundle is not None:
            opened[side] = bundle
    if len(opened) < len(child.MODULES):
        whole.discard("layers")
    for part in (part for part in RAW if part in parts_of(report)):
        for name in dict.fromkeys(RAW[part].format(side) for side in child.MODULES):
            if not (report / name).is_file():
                row(result, name, False, Reason.MISSING, "the file is not there", stage="raw", gate=Gate.KEYS)
                whole.discard(part)
                continue
            try:
                json.loads((report / name).read_text(encoding="utf-8"))
            except ValueError as error:
                row(result, name, False, Reason.INCOMPLETE, f"it cannot be read ({error})", stage="raw", gate=Gate.KEYS)
                whole.discard(part)
    if "pytorch" in opened:
        one_run(result, report, opened["pytorch"])
    return whole


def one_run(result: Result, report: Path, reference: Bundle) -> None:
    """The configuration and the input that lie in the report are those that the bundle was made from."""
    config = report / CONFIG_COPY
    if config.is_file():
        try:
            same, why = load_config(config).sha256() == reference.header.config_sha256, "it is not the configuration that the reference's bundle was made from"
        except UserError as error:
            same, why = False, str(error)
        row(result, CONFIG_COPY, same, Reason.CONFIG_DIFFERS, why, stage="raw")
    source = report / "input.npy"
    if source.is_file():
        try:
            same = array_sha256(np.load(source, allow_pickle=False)) == reference.header.inputs_sha256
        except ValueError:
            same = False
        row(result, "input.npy", same, Reason.INPUTS_DIFFER, "it is not the input that the reference's bundle was made from", stage="raw")


def numbers(result: Result, report: Path, seal: dict[str, Any], whole: set[str]) -> None:
    """Every result.json and report.json against what follows from the raw files today."""
    found: dict[str, Result] = {}
    measured = recompute.measured(report, seal)
    unknown = recompute.UNKNOWABLE + (recompute.MEASURED if isinstance(measured, str) else ())
    for part in parts_of(report):
        name = f"{part}/result.json"
        if part not in whole:
            result.skip(name, "its raw files are not as they were, so it cannot be computed again", stage="numbers")
            continue
        try:
            recorded = json.loads((report / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            row(result, name, False, Reason.MISSING, f"it cannot be read ({error})", stage="numbers", gate=Gate.KEYS)
            continue
        try:
            found[part] = recompute.part(part, report, recorded, measured)
        except Exception as error:  # whatever forged raw files make the judges raise, it is the forged files' doing
            row(result, name, False, Reason.NOT_REPRODUCED, f"its raw files cannot be judged ({type(error).__name__}: {error})", stage="numbers")
            continue
        row(result, name, *told(recompute.differences(recorded, json.loads(json.dumps(found[part].to_json())), unknown)), stage="numbers")
    if isinstance(measured, str):
        result.leave_out("COCO's numbers and precision over recall", measured)
    elif measured:
        for side, wrong in recompute.metrics(report, measured):
            row(result, f"COCO's numbers of {side}", *told(wrong), stage="numbers")
    if len(found) < len(parts_of(report)):
        result.skip("report.json", "not every part could be computed again", stage="numbers")
        return
    top(result, report, lambda: recompute.top(report, report, found))


def pictures(result: Result, report: Path) -> None:
    """Each picture, preprocessed again, must be the network input whose hash either side recorded."""
    for name, problem in recompute.pictures(report):
        row(result, name, not problem, Reason.PICTURE_DIFFERS, problem, stage="pictures")


def pages(result: Result, report: Path, seal: dict[str, Any]) -> None:
    """report.html, report.md and junit.xml, rendered again from the result files as they lie there."""
    other = {name: (seal.get("drawing", {}).get(name), now) for name, now in evidence.drawing().items() if seal.get("drawing", {}).get(name) != now}
    for kind, text in recompute.pages(report).items():
        name = NAMES[kind]
        path = report / name
        if not path.is_file():
            row(result, name, False, Reason.MISSING, "the page is not there", stage="pages", gate=Gate.KEYS)
        elif other and kind == "html":
            package, (then, now) = next(iter(other.items()))
            result.skip(name, f"it was drawn with {package} {then}, and {now} is installed here", stage="pages")
        else:
            row(result, name, *recompute.same_text(path.read_text(encoding="utf-8", errors="replace"), text), stage="pages")


def hashes(result: Result, report: Path, seal: dict[str, Any]) -> None:
    """Every file of the seal."""
    for name, entry in seal["files"].items():
        path, known = report / name, f"{name} (hash)"
        if not path.resolve().is_relative_to(report.resolve()):
            row(result, known, False, Reason.ALTERED, "its name leads out of the report", stage="hashes")
        elif not path.is_file():
            row(result, known, False, Reason.MISSING, "the file is not there", stage="hashes", gate=Gate.KEYS)
        elif path.stat().st_size < entry["bytes"]:
            row(result, known, False, Reason.INCOMPLETE, f"it has {path.stat().st_size} bytes instead of {entry['bytes']}", stage="hashes")
        else:
            row(result, known, evidence.file_sha256(path) == entry["sha256"], Reason.ALTERED, "its content is not what was sealed", stage="hashes")
    extra = sorted(set(evidence.files_of(report)) - set(seal["files"]))
    if extra:
        result.leave_out("files that are not in the seal", ", ".join(extra[:5]) + (f" and {len(extra) - 5} more" if len(extra) > 5 else ""))


if __name__ == "__main__":
    sys.exit(run_cli(main))

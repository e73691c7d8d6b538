"""What `alignment.verify` does for the report of a pair of models: bundles of both passes, and the verdicts that follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignment import pair, pair_file, pair_report, recompute
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result
from alignment.runners import child
from alignment.verify_rows import open_bundle, row, told, top


def raw_files(result: Result, report: Path) -> set[str]:
    """The bundles, and the pair file that they were made from. Returns the parts that can be computed again."""
    opened = {(folder, side): open_bundle(result, report, f"layers/{folder}/{side}") for folder in (pair.BUNDLES, pair.BACKWARD) for side in child.MODULES}
    reference, copy = opened[pair.BUNDLES, "pytorch"], report / pair_report.COPY
    if reference is not None and copy.is_file():
        row(result, pair_report.COPY, pair_file.sha256(str(copy)) == reference.header.config_sha256, Reason.CONFIG_DIFFERS, "it is not the pair file that the bundles were made from", stage="raw")
    forward = all(opened[pair.BUNDLES, side] is not None for side in child.MODULES)
    return {*(pair_report.PARTS[:2] if forward else ()), *(("layers",) if all(one is not None for one in opened.values()) else ())}


def numbers(result: Result, report: Path, whole: set[str]) -> None:
    """Every result.json whose raw files are kept, and report.json. The arrays of training steps are not kept."""
    found: dict[str, Any] = {}
    for part in pair_report.PARTS:
        name = f"{part}/result.json"
        try:
            recorded = json.loads((report / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            row(result, name, False, Reason.MISSING, f"it cannot be read ({error})", stage="numbers", gate=Gate.KEYS)
            continue
        if part == "train":
            try:
                found[part] = stated(recorded)
            except (KeyError, ValueError, TypeError) as error:
                row(result, name, False, Reason.INCOMPLETE, f"it does not state a verdict and counts ({type(error).__name__}: {error})", stage="numbers", gate=Gate.KEYS)
            result.leave_out("numbers of the training", "the arrays of its steps are not kept: its result.json and steps.csv are held to their hashes")
        elif part not in whole:
            result.skip(name, "its raw files are not as they were, so it cannot be computed again", stage="numbers")
        else:
            try:
                found[part] = pair_report.judge(report, part)
            except Exception as error:  # whatever forged raw files make the judges raise, it is the forged files' doing
                row(result, name, False, Reason.NOT_REPRODUCED, f"its raw files cannot be judged ({type(error).__name__}: {error})", stage="numbers")
                continue
            row(result, name, *told(recompute.differences(recorded, json.loads(json.dumps(found[part].to_json())), recompute.UNKNOWABLE)), stage="numbers")
    if len(found) < len(pair_report.PARTS):
        result.skip("report.json", "not every part could be computed again", stage="numbers")
        return
    top(result, report, lambda: recompute.top(report, report / "layers", found))


def stated(recorded: dict[str, Any]) -> SimpleNamespace:
    """The counts of a result as its file states them."""
    first = recorded.get("first_failure")
    return SimpleNamespace(verdict=Verdict(recorded["verdict"]), first_failure=SimpleNamespace(name_ref=first) if first else None,
                           **{name: int(recorded[name]) for name in ("compared", "failed", "skipped")})

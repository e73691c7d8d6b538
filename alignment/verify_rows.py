"""Rows of ``alignment.verify`` that every kind of report has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.bundle import Bundle
from alignment.reasons import Gate, Reason, Verdict
from alignment.recompute import differences
from alignment.result import Result, TensorResult
from jt_nanodet.errors import UserError

#: How many differing entries of a file a row names.
SHOWN = 5


def row(result: Result, name: str, good: bool, reason: Reason, hint: str, *, stage: str, gate: Gate = Gate.EXACT) -> None:
    result.add(TensorResult(name, name, Verdict.PASS if good else Verdict.FAIL, Reason.OK if good else reason, gate, stage=stage, hint="" if good else hint))


def open_bundle(result: Result, report: Path, name: str) -> Bundle | None:
    """The bundle, where it is there, whole and unaltered; a row says so either way."""
    if not (report / name).is_dir():
        row(result, name, False, Reason.MISSING, "the bundle is not there", stage="raw", gate=Gate.KEYS)
        return None
    try:
        bundle = Bundle.open(report / name)
    except UserError as error:
        row(result, name, False, Reason.INCOMPLETE, str(error), stage="raw", gate=Gate.KEYS)
        return None
    altered = bundle.altered()
    row(result, name, not altered, Reason.ALTERED, f"{len(altered)} of {len(bundle)} tensors are not those that were recorded, the first is {altered[0] if altered else ''}", stage="raw")
    return None if altered else bundle


def told(found: list[tuple[str, Any, Any]]) -> tuple[bool, Reason, str]:
    """Differences as the rest of a row."""
    if not found:
        return True, Reason.OK, ""
    shown = "; ".join(f"{path}: {short(recorded)} in the file, {short(again)} when computed again" for path, recorded, again in found[:SHOWN])
    return False, Reason.NOT_REPRODUCED, f"{len(found)} entries do not follow from the raw files: {shown}" + ("; ..." if len(found) > SHOWN else "")


def short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def top(result: Result, report: Path, compute: Callable[[], dict[str, Any]]) -> None:
    """The entries of report.json that follow from the parts."""
    try:
        recorded, expected = json.loads((report / "report.json").read_text(encoding="utf-8")), compute()
    except (OSError, ValueError, KeyError) as error:
        row(result, "report.json", False, Reason.MISSING, f"it, or a runner's report, cannot be read ({error})", stage="numbers", gate=Gate.KEYS)
        return
    row(result, "report.json", *told(differences({k: recorded.get(k) for k in expected}, expected)), stage="numbers")

"""What every report folder has on top: ``report.json``, which follows from the parts, and the removal of what an earlier report left."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment import evidence
from alignment.reasons import Verdict
from alignment.result import Result, write_json

#: The worst part decides, in this order.
ORDER = (Verdict.NOT_COMPARABLE, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


def clear(folder: Path, parts: tuple[str, ...]) -> None:
    """Remove what an earlier report left: a part that fails now must not be shown with yesterday's verdict."""
    for name in parts:
        if (folder / name / "result.json").exists() or (folder / name / "bundles").exists():
            shutil.rmtree(folder / name)
    for name in ("report.json", "report.html", "report.md", "junit.xml", evidence.FILE):
        (folder / name).unlink(missing_ok=True)


def write(folder: Path, results: Mapping[str, Result], children: Mapping[str, Any], *, title: str, command_line: list[str], device: str, seed: int, seconds: float,
          more: Mapping[str, Any] | None = None) -> Verdict:
    """report.json: the verdict of all parts, environment and command; `children`: the runners' reports, by side."""
    over = over_all(results)
    commit = evidence.commit_now()
    write_json(folder / "report.json", {
        "schema_version": 1, "command": "report", "command_line": command_line, "title": title, **over,
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "device": device, "seeds": {"seed": seed},
        "commits": {"nanodet-parity": commit} if commit else {},
        "versions": {**children["pytorch"]["versions"], **children["jittor"]["versions"]},
        "environment": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "durations": {"total": seconds, **{side: sum(t["seconds"] for t in one["tasks"]) for side, one in children.items()}},
        "peak_memory_mb": {side: one["peak_memory_mb"] for side, one in children.items()},
        "not_run": [] if device == "cuda" else [{"name": "GPU", "reason": "this report was made on the CPU: add --device cuda"}],
        **(more or {}),
    })
    return Verdict(over["verdict"])


def over_all(results: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of report.json that follow from the parts."""
    first = next((r.first_failure for r in results.values() if r.first_failure), None)
    return {"verdict": str(next(v for v in ORDER if any(r.verdict is v for r in results.values()))), **{
        name: sum(getattr(r, name) for r in results.values()) for name in ("compared", "failed", "skipped")}, "first_failure": first.name_ref if first else None}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def counts(results: Mapping[str, Result]) -> list[str]:
    totals = [sum(getattr(r, name) for r in results.values()) for name in ("compared", "failed", "skipped")]
    return [f"{n} {name}" for n, name in zip(totals, ("compared", "failed", "skipped"))]

"""Frames per second of both sides, measured side by side: one process a side, rounds in turn, each phase apart.

The host may drift between fast and slow states, so A and B alternate and the medians of the same rounds are compared.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from alignment.runners import child
from jt_nanodet.errors import UserError

PHASES = ("preprocess", "forward", "postprocess")


def measure(folder: Path, given: dict[str, dict[str, Any]], *, rounds: int = 5, count: int = 8) -> dict[str, Any]:
    """`given`: for each side the common task entries. Returns the ``fps`` part of result.json.

    `median_ms`, `p20_ms`, `p80_ms` are over all images of all rounds, whole way; `phases` has the same three for each phase.
    """
    sides = {}
    try:
        for side, common in given.items():
            job, report = child.prepare(side, [{"kind": "speed", "count": count}], common, folder, -1, ".speed")
            sides[side] = (subprocess.Popen(child.command(side, job), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=(folder / f"{side}.speed.log").open("w"), env=child.environment(), text=True), report)
            answer(side, *sides[side])  # ready before the other starts: two warm-ups at once would disturb each other
        times: dict[str, list[dict[str, list[float]]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, (process, report) in sides.items():
                process.stdin.write("round\n")
                process.stdin.flush()
                times[side].append(answer(side, process, report))
        found: dict[str, Any] = {"rounds": rounds, "images": count, "batch_size": 1, "order": "alternating, one process a side", "warm_up_rounds": 1}
        for side, (process, report) in sides.items():
            process.stdin.close()
            process.wait(timeout=60)
            task = json.loads(report.read_text(encoding="utf-8"))["tasks"][0]
            found[side] = {**summary(times[side]), "first_round_seconds": task["first_round_seconds"], "peak_memory_mb": task["peak_memory_mb"]}
        ratios = [whole(a).sum() / whole(b).sum() for a, b in zip(times["pytorch"], times["jittor"])]
        found["jittor_over_pytorch"] = {"median": float(np.median(ratios)), "min": float(min(ratios)), "max": float(max(ratios))}
        return found
    finally:
        for process, _ in sides.values():
            process.kill()
            process.wait()


def answer(side: str, process: subprocess.Popen, report: Path) -> dict[str, Any]:
    """The child's next line of JSON; other output (a library talking) is passed over."""
    said = []
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
        said.append(line.strip())
    process.wait()
    error = json.loads(report.read_text(encoding="utf-8")).get("error") if report.is_file() else None
    log = report.with_name(f"{side}.speed.log")
    raise UserError(error or f"the {side} side died while it was timed (exit status {process.returncode}{': ' + said[-1] if said else ''}): see {log}, or leave the timing out with --rounds 0")


def whole(one_round: dict[str, list[float]]) -> np.ndarray:
    return sum(np.array(one_round[phase]) for phase in PHASES)


def summary(rounds: list[dict[str, list[float]]]) -> dict[str, Any]:
    def spread(seconds: np.ndarray) -> dict[str, float]:
        low, middle, high = np.percentile(seconds * 1e3, (20, 50, 80))
        return {"median_ms": float(middle), "p20_ms": float(low), "p80_ms": float(high)}

    total = spread(np.concatenate([whole(one) for one in rounds]))
    phases = {phase: spread(np.concatenate([np.array(one[phase]) for one in rounds])) for phase in PHASES}
    return {**total, "fps": 1e3 / total["median_ms"], "phases": phases}

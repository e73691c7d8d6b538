"""Frames per second of both sides, measured side by side: one process a side, rounds in turn, each phase apart.

The host may drift between fast and slow states, so A and B alternate and the medians of the same rounds are compared.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from alignment.result import write_json
from alignment.runners import child
from jt_nanodet.errors import UserError

#: What was timed, as it was timed, beside result.json.
RAW = "speed.json"
PHASES = ("preprocess", "forward", "postprocess")


def measure(folder: Path, given: dict[str, dict[str, Any]], *, rounds: int = 5, count: int = 8, batch_sizes: tuple[int, ...] = (1,)) -> dict[str, Any]:
    """`given`: for each side the common task entries. Returns the ``fps`` part of result.json.

    `median_ms`, `p20_ms`, `p80_ms` are of one picture's whole way, over all batches of all rounds; `phases` has the same three for each phase. `low_fps`
    and `high_fps` bound the median (95 %, by order statistics). The numbers on top are those of the first batch size; ``by_batch`` has all of them.
    """
    sides = {}
    try:
        for side, common in given.items():
            job, report = child.prepare(side, [{"kind": "speed", "count": count, "batch_sizes": list(batch_sizes)}], common, folder, -1, ".speed")
            sides[side] = (subprocess.Popen(child.command(side, job), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=(folder / f"{side}.speed.log").open("w"), env=child.environment(), text=True), report)
            answer(side, *sides[side])  # ready before the other starts: two warm-ups at once would disturb each other
        times: dict[int, dict[str, list[dict[str, list[float]]]]] = {size: {side: [] for side in sides} for size in batch_sizes}
        for _ in range(rounds):
            for size in batch_sizes:
                for side, (process, report) in sides.items():
                    process.stdin.write(f"{size}\n")
                    process.stdin.flush()
                    times[size][side].append(answer(side, process, report))
        tasks = {}
        for side, (process, report) in sides.items():
            process.stdin.close()
            process.wait(timeout=60)
            tasks[side] = json.loads(report.read_text(encoding="utf-8"))["tasks"][0]
        raw = {"rounds": rounds, "images": count, "times": {str(size): times[size] for size in batch_sizes}, "tasks": tasks}
        write_json(folder / RAW, raw)
        return from_raw(raw)
    finally:
        for process, _ in sides.values():
            process.kill()
            process.wait()


def from_raw(raw: dict[str, Any]) -> dict[str, Any]:
    """The ``fps`` part of result.json from what was timed: the seconds of every phase of every batch, by batch size and side."""
    by_batch = {size: one_size(int(size), times, raw["tasks"]) for size, times in raw["times"].items()}
    first = next(iter(by_batch))
    return {"rounds": raw["rounds"], "images": raw["images"], "batch_size": int(first), "order": "alternating, one process a side", "warm_up_rounds": 1,
            **by_batch[first], "by_batch": by_batch}


def one_size(size: int, times: dict[str, list[dict[str, list[float]]]], tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Both sides at one batch size, and their ratio round by round."""
    found: dict[str, Any] = {
        side: {**summary(rounds, size), "first_round_seconds": tasks[side]["first_round_seconds"][str(size)], "peak_memory_mb": tasks[side]["peak_memory_mb"]}
        for side, rounds in times.items()
    }
    ratios = [whole(a).sum() / whole(b).sum() for a, b in zip(times["pytorch"], times["jittor"])]
    found["jittor_over_pytorch"] = {"median": float(np.median(ratios)), "min": float(min(ratios)), "max": float(max(ratios))}
    return found


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


def summary(rounds: list[dict[str, list[float]]], size: int = 1) -> dict[str, Any]:
    """Milliseconds of one picture, from seconds of batches of `size`."""
    def spread(seconds: np.ndarray) -> dict[str, float]:
        low, middle, high = np.percentile(seconds * 1e3 / size, (20, 50, 80))
        return {"median_ms": float(middle), "p20_ms": float(low), "p80_ms": float(high)}

    every = np.concatenate([whole(one) for one in rounds])
    total = spread(every)
    phases = {phase: spread(np.concatenate([np.array(one[phase]) for one in rounds])) for phase in PHASES}
    low, high = median_interval(every / size)
    return {**total, "fps": 1e3 / total["median_ms"], "low_fps": 1 / high, "high_fps": 1 / low, "phases": phases}


def median_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the median without a model of the noise: the order statistics that enclose it with at least `level`, or all of few values."""
    from scipy.stats import binom  # slow to import

    ordered, n = np.sort(values), len(values)
    below = max(0, int(binom.ppf((1 - level) / 2, n, 0.5)) - 1)
    return float(ordered[below]), float(ordered[n - 1 - below])

"""``python -m alignment.limits``: large inputs against what they may cost: logs of a million lines, and detections of 5,000 images with their bootstrap.

    python -m alignment.limits --output reports/results/logs_limits.json

The inputs are made here, from the seed: two logs in upstream's form, and annotations of 80 classes with two lists of a hundred detections an image. Each command runs as a user would
type it. Memory is that of all its processes together, sampled, what they share counted once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from alignment.cli import run_cli, say
from alignment.cost_meter import ROOT, shown
from alignment.report_top import processor
from alignment.result import write_json
from jt_nanodet.errors import UserError

LINES, IMAGES, CLASSES, RESAMPLES = 1_000_000, 5000, 80, 1000
LOGS, BOOTSTRAP = f"two logs of {LINES:,} lines", f"{IMAGES:,} images, {RESAMPLES:,} draws"
#: Seconds and MB on two cores; None where only the seconds are promised.
LIMITS: dict[str, tuple[float, float | None]] = {LOGS: (20, 500), BOOTSTRAP: (120, None)}
NAMES = ("loss_qfl", "loss_bbox", "loss_dfl", "aux_loss_qfl", "aux_loss_bbox", "aux_loss_dfl")
#: How often the memory of the processes is read, in seconds.
TICK = 0.1


def write_log(path: Path, seed: int, lines: int = LINES) -> None:
    """A log in upstream's form: `lines` Train lines of 300 epochs, and a Val and a metric line every tenth of them."""
    rng = np.random.default_rng(seed)
    per_epoch = -(-lines // 300)
    with path.open("w", encoding="utf-8") as file:
        for epoch in range(1, 301):
            count = min(per_epoch, lines - (epoch - 1) * per_epoch)
            first = (epoch - 1) * per_epoch
            level = 0.3 + 1.2 * math.exp(-epoch / 40)
            for k, row in enumerate((level * (1 + 0.1 * rng.standard_normal((max(count, 0), 6)))).tolist()):
                losses = "".join(f"{name}:{value:.4f}| " for name, value in zip(NAMES, row))
                file.write(f"[NanoDet][07-22 {epoch // 60:02d}:{epoch % 60:02d}:{k * 60 // per_epoch:02d}]INFO: Train|Epoch{epoch}/300|Iter{first + k}({k + 1}/{per_epoch})| "
                           f"mem:4.84G| lr:{5e-4 * (1 + math.cos(math.pi * epoch / 300)) / 2 + 1e-6:.2e}| {losses}\n")
            if epoch % 10 == 0:
                value = 0.3 - 0.2 * math.exp(-epoch / 60) + 0.001 * rng.standard_normal()
                file.write(f"[NanoDet][07-22 {epoch // 60:02d}:{epoch % 60:02d}:59]INFO: Val_metrics: {{'mAP': {value!r}, 'AP_50': {value + 0.15!r}}}\n")


def write_detections(folder: Path, seed: int, images: int = IMAGES, found: int = 100) -> None:
    """``truth.json``, ``pytorch.json`` and ``jittor.json``: about seven objects an image, `found` detections of which half lie near an object; the second list is
    the first moved by rounding, without one in five hundred and with one in five hundred moved by a pixel."""
    rng = np.random.default_rng(seed)
    truth: list[dict[str, Any]] = []
    lists: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for image in range(1, images + 1):
        count = int(rng.integers(1, 14))
        boxes = np.concatenate([rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(2.5, 5.3, (count, 2)))], 1)
        classes = rng.integers(1, CLASSES + 1, count)
        truth += [{"id": len(truth) + n + 1, "image_id": image, "category_id": int(c), "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
                  for n, (c, b) in enumerate(zip(classes, boxes.round(2).tolist()))]
        near = rng.integers(0, count, found)
        made = boxes[near] + rng.normal(0, 1, (found, 4)) * boxes[near][:, [2, 3, 2, 3]] * 0.15
        far = rng.random(found) < 0.5
        made[far, :2] = rng.uniform(0, 500, (int(far.sum()), 2))
        made[:, 2:] = np.maximum(made[:, 2:], 4)
        labels = np.where(rng.random(found) < 0.7, classes[near], rng.integers(1, CLASSES + 1, found)).tolist()
        scores = rng.beta(1, 4, found).clip(0.05, 0.99)
        for entries, other in zip(lists, (False, True)):
            moved = made + other * (1e-5 * rng.standard_normal((found, 4)) + (rng.random((found, 1)) < 0.002))
            kept = np.flatnonzero(rng.random(found) >= 0.002 * other)
            values = (scores + other * 1e-8 * rng.standard_normal(found)).round(7).tolist()
            entries += [{"image_id": image, "category_id": labels[n], "bbox": box, "score": values[n]} for n, box in zip(kept.tolist(), moved[kept].round(4).tolist())]
    document = {"images": [{"id": i, "width": 640, "height": 640, "file_name": f"{i}.png"} for i in range(1, images + 1)], "annotations": truth,
                "categories": [{"id": c, "name": f"class {c}"} for c in range(1, CLASSES + 1)]}
    for name, content in (("truth", document), ("pytorch", lists[0]), ("jittor", lists[1])):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def memory_mb(parent: int, above: float = 0.0) -> float:
    """Memory of a process and everything below it, in MiB, what they share counted once; 0 when it has ended. What is shared is found out (which takes the
    kernel a while) only when the plain sum is above `above`."""
    processes, waiting = [], [parent]
    while waiting:
        process = waiting.pop()
        processes.append(process)
        try:
            for thread in Path(f"/proc/{process}/task").iterdir():
                waiting += [int(word) for word in (thread / "children").read_text().split()]
        except OSError:
            continue  # it ended while it was looked at
    plain = _field(processes, "status", "VmRSS:")
    return plain if plain <= above else _field(processes, "smaps_rollup", "Pss:")


def _field(processes: list[int], file: str, word: str) -> float:
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(word))
    return total / 1024


def measure(name: str, words: list[str], expected: tuple[int, ...]) -> dict[str, Any]:
    """Run one command; its seconds, peak memory and last line. UserError when it ends with another status than one of `expected`."""
    command = [sys.executable, "-m", *words]
    say(f"{name}: {' '.join(shown(word) for word in command)}")
    peak, done = [0.0], threading.Event()
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def watch() -> None:
        while not done.wait(TICK):
            peak[0] = max(peak[0], memory_mb(process.pid, peak[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, err = process.communicate()
    finally:
        done.set()
        watcher.join()
    seconds = time.perf_counter() - started
    if process.returncode not in expected:
        raise UserError(f"{name} failed ({(err or out).strip().splitlines()[-1]}): run it alone: {' '.join(words)}")
    return {"name": name, "command": " ".join(shown(word) for word in command), "seconds": seconds, "peak_memory_mb": peak[0], "last_line": out.strip().splitlines()[-1]}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.limits", description=__doc__.split("\n\n")[0],
                                     epilog="example: python -m alignment.limits --output out/limits.json")
    parser.add_argument("--output", metavar="FILE.json", type=Path, required=True)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the inputs (default: 0)")
    args = parser.parse_args(argv)
    if not args.output.parent.is_dir():
        raise UserError(f"{args.output.parent} is no folder: give a place that exists with --output")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        say("making the inputs")
        for side, seed in (("a", args.seed), ("b", args.seed + 1)):
            write_log(folder / f"{side}.txt", seed)
        write_detections(folder, args.seed)
        # Of two independent trainings nobody can tell, and of two lists with flips of no known cause the answer is "failed": either is an answer.
        rows.append(measure(LOGS, ["alignment.logs", "--pytorch-log", f"{folder}/a.txt", "--jittor-log", f"{folder}/b.txt", "--output", f"{folder}/logs"], (0, 1, 3)))
        rows.append(measure(BOOTSTRAP, ["alignment.infer", "--pytorch-results", f"{folder}/pytorch.json", "--jittor-results", f"{folder}/jittor.json", "--annotations",
                                        f"{folder}/truth.json", "--resamples", str(RESAMPLES), "--output", f"{folder}/infer"], (0, 1, 3)))
        spent = json.loads((folder / "infer" / "result.json").read_text(encoding="utf-8"))["durations"]
    for row in rows:
        row["limit_seconds"], row["limit_mb"] = LIMITS[row["name"]]
        row["within"] = row["seconds"] <= row["limit_seconds"] and (row["limit_mb"] is None or row["peak_memory_mb"] <= row["limit_mb"])
        print(f"{row['name']:28s} {row['seconds']:7.1f} s of {row['limit_seconds']}, {row['peak_memory_mb']:6.0f} MB of {row['limit_mb'] or 'any'}")
    rows[1]["durations"] = spent
    note = f"{processor()}, {os.cpu_count()} cores; {datetime.date.today().isoformat()}; memory of all processes together; python -m alignment.limits"
    table = {"columns": ["input", "seconds", "limit", "peak memory, MB", "limit, MB"], "columns_zh": ["输入", "秒", "上限", "内存峰值，MB", "上限，MB"],
             "rows": [[r["name"], round(r["seconds"], 1), r["limit_seconds"], round(r["peak_memory_mb"]), r["limit_mb"]] for r in rows], "note": note}
    write_json(args.output, {"schema_version": 1, "command": "python -m alignment.limits", "measured": rows, "load_average": os.getloadavg()[0], "tables": {"limits": table}})
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run_cli(main))

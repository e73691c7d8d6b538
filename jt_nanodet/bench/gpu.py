"""``python -m jt_nanodet bench gpu``: the whole training step and inference of both sides, one process a side and setting.

A step has everything a training has but the reading of pictures: upload, forward, assignment, losses, backward, clip, optimiser, average.
Inference has upload, forward, decoding and suppression, picture by picture. Single precision is single precision on both sides (no TF32).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from typing import Any

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.kernels import command_line, machine, quantiles
from jt_nanodet.checkpoint import replacing
from jt_nanodet.errors import UserError

MODULES = {"jittor": "jt_nanodet.bench.gpu_jittor", "pytorch": "torch_ref.bench.gpu"}
#: The seeds' table: precision, batch size, input size.
SETTINGS = ((32, 16, 320), (32, 16, 416), (16, 32, 320), (16, 32, 416))


def batch_of(batch: int, size: int, boxes: int = 7, seed: int = 0) -> dict[str, Any]:
    """A training batch of noise with `boxes` boxes an image."""
    r = np.random.RandomState(seed)
    extent = size * (0.05 + 0.4 * r.rand(batch, boxes, 2))
    corner = r.rand(batch, boxes, 2) * (size - extent)
    whole = np.concatenate([corner, corner + extent], 2).astype(np.float32)
    return {"img": r.randn(batch, 3, size, size).astype(np.float32), "gt_bboxes": list(whole), "gt_labels": list(r.randint(0, 80, (batch, boxes))),
            "gt_bboxes_ignore": [np.zeros((0, 4), np.float32)] * batch}


def repeat(work: Any, seconds: float, least: int = 5, warm: int = 5) -> list[float]:
    """Milliseconds of each run of work(), which ends when the device is done."""
    for _ in range(warm):
        work()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < until:
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def child_arguments(argv: list[str]) -> argparse.Namespace:
    """What both sides' processes are given."""
    parser = argparse.ArgumentParser()
    for name, kind in (("device", str), ("precision", int), ("batch", int), ("size", int), ("seconds", float), ("threads", int), ("config", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    return parser.parse_args(argv)


def report(training: list[float], forward: list[float], whole: list[float], batch: int, **facts: Any) -> None:
    """The child's one line of JSON."""
    print(json.dumps({"training_ms": quantiles(training), "iterations_per_second": 1e3 / float(np.median(training)),
                      "images_per_second": 1e3 * batch / float(np.median(training)), "forward_ms": quantiles(forward), "inference_ms": quantiles(whole),
                      "fps": 1e3 / float(np.median(whole)), **facts}), flush=True)


def run_side(side: str, args: argparse.Namespace, precision: int, batch: int, size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", MODULES[side], "--device", args.device, "--precision", str(precision), "--batch", str(batch), "--size", str(size),
               "--seconds", str(args.seconds), "--threads", str(args.threads), "--config", args.config]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=args.patience)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {args.patience:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            return json.loads(line)
    return {"error": reason(done.stderr)}


def reason(errors: str) -> str:
    """The lines that tell why a process ended: its last ones, without colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", errors).splitlines() if line.strip()]
    return " | ".join(lines[-6:])[-800:] or "without a word"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--config", default="configs/nanodet-plus-m_320.yml")
    parser.add_argument("--settings", help="PRECISION:BATCH:SIZE,... instead of " + ",".join(":".join(map(str, s)) for s in SETTINGS))
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each of training, forward and inference")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds after which a side's process is given up")
    parser.add_argument("--threads", type=int, default=runtime.default_threads())
    parser.add_argument("--sides", default="jittor,pytorch")
    parser.add_argument("--output", metavar="FILE.json")
    args = parser.parse_args(argv)
    try:
        settings = [tuple(map(int, one.split(":"))) for one in args.settings.split(",")] if args.settings else list(SETTINGS)
        sides = [side for side in args.sides.split(",") if MODULES[side]]
        if any(len(s) != 3 or s[0] not in (16, 32) or min(s) < 1 for s in settings):
            raise ValueError
    except (ValueError, KeyError):
        raise UserError("cannot read the settings: type them like --settings 32:16:320,16:32:416 --sides jittor,pytorch") from None
    where = machine(args.device)
    rows = []
    for precision, batch, size in settings:
        row: dict[str, Any] = {"precision": precision, "batch": batch, "size": size}
        for side in sides:
            row[side] = found = run_side(side, args, precision, batch, size)
            said = found.get("error") or f"{found['iterations_per_second']:.2f} it/s, {found['fps']:.1f} FPS, {found['memory_mb']:.0f} MB"
            print(f"fp{precision} batch {batch} size {size} {side}: {said}", file=sys.stderr, flush=True)
        if all("error" not in row.get(side, {"error": ""}) for side in MODULES):
            row["jittor_over_pytorch"] = {k: row["jittor"][k] / row["pytorch"][k] for k in ("iterations_per_second", "fps")}
        rows.append(row)
        document = {"schema_version": 1, "command": command_line("gpu", argv), **where, "rows": rows}
        if args.output:  # after every setting, so that an end before the last one leaves the others
            os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
            with replacing(args.output) as file:
                file.write((json.dumps(document, indent=1) + "\n").encode())
    failed = [f"{row['precision']}:{row['batch']}:{row['size']} {side}" for row in rows for side in sides if "error" in row[side]]
    print(f"{len(rows) * len(sides) - len(failed)} measured, {len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    return int(bool(failed))

"""``python -m jt_nanodet bench kernels``: assigner and suppression as kernels, against what else does the same.

Verified before anything is timed: on a small scene the kernels' decisions equal the NumPy twins', and on a GPU every output of every
timed scene equals the CPU kernels' bit for bit. The contestants are processes of their own and take turns:

    kernel       this project's kernel, through Jittor
    tensor       plain vectorised tensor operations, image by image, on the same framework
    upstream     upstream's per-image algorithm, in PyTorch
    torchvision  filter, batched_nms and best 100 with PyTorch and torchvision, where they are installed (suppression only)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from jt_nanodet import runtime, runtime_cuda, runtime_machine
from jt_nanodet.bench.kernels_tables import earlier, joined, ratios, tables
from jt_nanodet.checkpoint import replacing
from jt_nanodet.errors import UserError
from jt_nanodet.kernels import assign_reference, nms_reference

CLASSES, STRIDES, LIMIT = 80, (8, 16, 32, 64), 6.9
SETTINGS = {"topk": 13, "iou_factor": 3.0, "ignore_threshold": -1.0, "limit": LIMIT}
NMS = {"score": 0.05, "iou": 0.6, "most": 100}
CONTESTANTS = {"assign": ("kernel", "tensor", "upstream"), "nms": ("kernel", "tensor", "upstream", "torchvision")}
SIDES = {"kernel": "jittor", "tensor": "jittor", "upstream": "pytorch", "torchvision": "pytorch"}
MODULES = {"jittor": "jt_nanodet.bench.kernels_jittor", "pytorch": "torch_ref.bench.kernels", "scaling": "jt_nanodet.bench.scaling_jittor"}


def priors_of(size: int) -> np.ndarray:
    """(P, 4) centre priors of a square input."""
    rows = [(x * s, y * s, s, s) for s in STRIDES for y in range(-(-size // s)) for x in range(-(-size // s))]
    return np.array(rows, np.float32)


def scene(size: int, batch: int, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A padded batch as a half-trained detector sees it: predictions near their priors, scores high around the `count` boxes of each image.

    logits (B, P, C), scores (B, P, C), boxes (B, P, 4), priors (P, 4), gts (B, G, 4), labels (B, G), counts (B,).
    """
    r, priors = np.random.RandomState(seed), priors_of(size)
    extent = size * (0.05 + 0.35 * r.rand(batch, max(count, 1), 2))
    corner = r.rand(batch, max(count, 1), 2) * (size - extent)
    gts = np.concatenate([corner, corner + extent], 2).astype(np.float32)
    labels = r.randint(0, CLASSES, gts.shape[:2]).astype(np.int32)
    reach = priors[:, 2:3] * 3 * r.rand(batch, len(priors), 4).astype(np.float32)
    boxes = np.concatenate([priors[:, :2] - reach[..., :2], priors[:, :2] + reach[..., 2:]], 2).clip(0, size).astype(np.float32)
    logits = (r.randn(batch, len(priors), CLASSES) * 0.8 - 6).astype(np.float32)
    for b in range(batch):
        for g in range(count):  # the priors nearest to a box's centre see it
            centre = (gts[b, g, :2] + gts[b, g, 2:]) / 2
            near = np.argsort(np.abs(priors[:, :2] - centre).sum(1), kind="stable")[:12]
            logits[b, near, labels[b, g]] += 3 + 4 * r.rand(12).astype(np.float32)
            boxes[b, near] = gts[b, g] + r.randn(12, 4).astype(np.float32) * 3
    return {"logits": logits, "scores": (1 / (1 + np.exp(-logits))).astype(np.float32), "boxes": boxes, "priors": priors, "gts": gts, "labels": labels,
            "counts": np.full(batch, count, np.int32)}


class Child:
    """A process of one framework on one device, that answers a line of JSON with a line of JSON."""

    def __init__(self, side: str, device: str, folder: Path, threads: int):
        self.log = folder / f"{side}-{device}.log"
        command = [sys.executable, "-m", MODULES[side], "--device", device, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True)
        self.facts = self.read()

    def ask(self, **command: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.process.wait()
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"a process of the measurement ended: {last[0] if last else 'without a word'}: "
                        f'type "python -m jt_nanodet doctor"')

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def verify_small(child: Child, folder: Path) -> None:
    """Kernel decisions equal the twins' on a small scene; UserError where not."""
    small, path = scene(64, 3, 3, seed=1), folder / "small.npz"
    np.savez(path, **small)
    child.ask(do="answer", kind="assign", file=str(path), output=str(folder / "small.assign.npz"))
    child.ask(do="answer", kind="nms", file=str(path), output=str(folder / "small.nms.npz"))
    with np.load(folder / "small.assign.npz") as got, np.load(folder / "small.nms.npz") as kept:
        for b in range(3):
            none = np.zeros((0, 4), np.float32)
            index, iou, *_ = assign_reference.assign_image(small["logits"][b], small["boxes"][b], small["priors"], small["gts"][b], small["labels"][b],
                                                           none, SETTINGS["topk"], SETTINGS["iou_factor"], SETTINGS["ignore_threshold"])
            want, _ = nms_reference.nms_image(small["boxes"][b], small["scores"][b], NMS["score"], NMS["iou"], NMS["most"])
            if not (np.array_equal(got["gt_index"][b], index) and np.array_equal(got["iou"][b], iou)):
                raise UserError('the assigner\'s kernel does not equal its twin, so nothing is timed: type "python -m pytest tests/kernels"')
            if not np.array_equal(kept["kept"][b][: len(want)], want) or kept["count"][b] != len(want):
                raise UserError('the suppression\'s kernel does not equal its twin, so nothing is timed: type "python -m pytest tests/kernels"')


def compare(kind: str, answers: dict[str, Path]) -> dict[str, int]:
    """How many decisions of each contestant differ from the kernel's; the CPU kernel's may not differ in any bit."""
    found = {}
    with np.load(answers["kernel"]) as ours:
        for name, path in answers.items():
            with np.load(path) as theirs:
                if name == "cpu kernel" and any(ours[k].tobytes() != theirs[k].tobytes() for k in ours.files):
                    raise UserError('GPU and CPU kernel give different bits, so nothing is timed: type "python -m pytest -m cuda tests/kernels"')
                key = "gt_index" if kind == "assign" else "kept"
                found[name] = int((ours[key] != theirs[key]).sum())
    return found


def quantiles(times: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(times, (20, 50, 80))
    return {"p20": float(low), "median": float(middle), "p80": float(high), "samples": len(times)}


def measure(args: argparse.Namespace, children: dict[str, Child], folder: Path) -> list[dict[str, Any]]:
    """One row for each kind, size, batch and number of boxes."""
    cases = [(k, s, b, n) for k in ("assign", "nms") for s in args.sizes for b in args.batches for n in args.boxes]
    rows, begun = [], time.monotonic()
    for number, (kind, size, batch, count) in enumerate(cases):
        path = folder / "scene.npz"
        np.savez(path, **scene(size, batch, count))
        contestants = [c for c in CONTESTANTS[kind] if SIDES[c] in children and c in children[SIDES[c]].facts["contestants"]]
        answers = {}
        for name in [*contestants, *(["cpu kernel"] if "check" in children else [])]:
            answers[name] = folder / f"{name}.npz"
            child = children["check"] if name == "cpu kernel" else children[SIDES[name]]
            child.ask(do="answer", kind=kind, file=str(path), output=str(answers[name]), contestant="kernel" if name == "cpu kernel" else name)
        row: dict[str, Any] = {"kind": kind, "size": size, "batch": batch, "boxes": count, "decisions_that_differ": compare(kind, answers)}
        times: dict[str, dict[str, list[float]]] = {name: {"ms": [], "device_ms": []} for name in contestants}
        for _ in range(args.rounds):
            for name in contestants:
                got = children[SIDES[name]].ask(do="time", kind=kind, file=str(path), contestant=name, seconds=args.seconds / args.rounds)
                for unit in ("ms", "device_ms"):
                    times[name][unit] += got.get(unit, [])
        for name, both in times.items():
            row[name] = {unit: quantiles(values) for unit, values in both.items() if values}
        row["kernel_is_faster"] = {name: row[name]["ms"]["median"] / row["kernel"]["ms"]["median"] for name in contestants[1:]}
        rows.append(row)
        left = (time.monotonic() - begun) / (number + 1) * (len(cases) - number - 1)
        shown = ", ".join(f"{name} {row[name]['ms']['median']:.3f} ms" for name in contestants)
        print(f"{kind} {size} batch {batch} boxes {count}: {shown}; {left:.0f} s left", file=sys.stderr, flush=True)
        if args.limit and time.monotonic() - begun > args.limit:
            print(f"stopped after {args.limit} s: {len(cases) - number - 1} of {len(cases)} scenes were not measured", file=sys.stderr)
            break
    return rows


def machine(device: str) -> dict[str, Any]:
    """What the numbers depend on."""
    found = {"device": device, "cores": runtime_machine.cpu_count(), "versions": runtime.versions()}
    if device == "cuda":
        found["gpu"] = str(runtime_cuda.find_gpu())
    return found


def numbers(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise UserError(f'"{text}" is no list of numbers: type them like 320,416')
    return found


def command_line(name: str, argv: list[str]) -> str:
    """What to type to measure again; of paths only the last part, which says nothing about this machine."""
    words = [os.path.basename(word) if os.path.isabs(word) else word for word in argv]
    return " ".join(["python -m jt_nanodet bench", name, *words])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", default="320,416", help="input sizes in pixels")
    parser.add_argument("--batches", default="1,8,32,96")
    parser.add_argument("--boxes", default="0,10,20,100", help="boxes an image")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant for every scene")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each contestant of each scene")
    parser.add_argument("--limit", type=float, default=0.0, help="begin no further scene after so many seconds (0: measure all)")
    parser.add_argument("--threads", type=int, default=runtime.default_threads())
    parser.add_argument("--only-jittor", action="store_true", help="leave out what needs PyTorch")
    parser.add_argument("--output", metavar="FILE.json")
    parser.add_argument("--add", action="store_true", help="keep the other scenes of --output; equal ones are replaced")
    args = parser.parse_args(argv)
    args.sizes, args.batches, args.boxes = map(numbers, (args.sizes, args.batches, args.boxes))
    if args.rounds < 1 or args.seconds <= 0 or min(args.sizes + args.batches) < 1:
        raise UserError("nothing to measure: give --rounds, --sizes and --batches of 1 or more and --seconds above 0")
    if args.device == "cuda":
        runtime_cuda.find_gpu()
    old = earlier(args.output) if args.add else []  # refused before anything is measured
    children: dict[str, Child] = {}
    with tempfile.TemporaryDirectory(prefix="jt_nanodet-bench-") as name:
        folder = Path(name)
        try:
            children["jittor"] = Child("jittor", args.device, folder, args.threads)
            if args.device == "cuda":
                children["check"] = Child("jittor", "cpu", folder, args.threads)
            if not args.only_jittor:
                children["pytorch"] = Child("pytorch", args.device, folder, args.threads)
            verify_small(children["jittor"], folder)
            rows = joined(old, measure(args, children, folder))
        finally:
            for child in children.values():
                child.close()
        facts = {side: child.facts for side, child in children.items()}
    document = {"schema_version": 1, "command": command_line("kernels", argv), **machine(args.device), "threads": args.threads,
                "processes": facts, "rows": rows}
    sizes, batches, boxes = (sorted({row[k] for row in rows}) for k in ("size", "batch", "boxes"))
    document["tables"] = tables(rows, f"{args.device}, {args.threads} threads; inputs of {sizes}, batches of {batches}, boxes an image {boxes}; medians over the scenes")
    if args.output:
        os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
        with replacing(args.output) as file:
            file.write((json.dumps(document, indent=1) + "\n").encode())
    for (kind, name), values in ratios(rows).items():
        print(f"{kind}: kernel {min(values):.1f} to {max(values):.1f} times as fast as {name}, median {np.median(values):.1f}, {len(values)} scenes")
    return 0

"""``python -m jt_nanodet bench training CONFIG``: one training step of both sides and its parts, the data pipeline beside it.

Each side has a process of its own for every batch size; they take turns on the same batches from the same weights. Verified before anything
is timed: every loss term of both sides agrees within a bound measured on the reference (float64, the input moved by one ULP, the images in
another order). A step is timed whole, and again in parts, with a wait for the device after each:

    forward   upload, network in training mode, auxiliary branch
    loss      assignment and the six loss terms
    backward  gradients of every parameter
    update    norm, clipping, optimiser, averages

The parts add up to more than the whole where a framework works across their borders.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jt_nanodet import runtime, runtime_cuda
from jt_nanodet.bench.inference import cpu_name
from jt_nanodet.bench.kernels import command_line, machine, numbers, quantiles
from jt_nanodet.checkpoint import replacing
from jt_nanodet.config import Config, load_config
from jt_nanodet.data import build_dataset, bench as data_bench
from jt_nanodet.data.loader import DataLoader
from jt_nanodet.errors import UserError

MODULES = {"pytorch": "torch_ref.bench.training", "jittor": "jt_nanodet.bench.training_jittor"}
TITLES = {"pytorch": "PyTorch", "jittor": "Jittor"}
PARTS = ("forward", "loss", "backward", "update")
#: Batches that the steps go through in turn.
BATCHES = 3
#: Chance for an honest loss term to break its bound.
FALSE_ALARM = 1e-6


class Side:
    """One side's process: a line of JSON in, a line of JSON out; what it said on stderr is kept for the error message."""

    def __init__(self, name: str, args: argparse.Namespace, folder: Path):
        self.name, self.log = name, folder / f"{name}.log"
        command = [sys.executable, "-m", MODULES[name], "--config", str(args.config), "--device", args.device, "--threads", str(args.threads), "--seed", str(args.seed)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.facts = self.read()

    def ask(self, **command: Any) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `read` finds out why
        return self.read()

    def read(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.process.wait()
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"the {self.name} process of the measurement ended: {last[0].removeprefix('error: ') if last else f'exit status {self.process.returncode}'}; "
                        'a smaller --batches needs less memory, "python -m jt_nanodet doctor" shows what is installed')

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def write_batches(config: Config, folder: Path, size: int, seed: int) -> list[str]:
    """Training batches of `size` images as the trainers draw them, one file each."""
    dataset = build_dataset(config.data.train, "train", config.model.arch.head.num_classes)
    if len(dataset) < size:
        raise UserError(f"there are {len(dataset)} training images, a batch takes {size}: give --batches {len(dataset)} or less")
    paths: list[str] = []
    with DataLoader(dataset, size, seed=seed) as loader:
        epoch = 0
        while len(paths) < BATCHES:
            for batch in loader.epoch(epoch):
                path = folder / f"batch{size}-{len(paths)}.npz"
                np.savez(path, img=batch["img"], **{f"{k}/{i}": a for k in ("gt_bboxes", "gt_labels", "gt_bboxes_ignore") for i, a in enumerate(batch[k])})
                paths.append(str(path))
                if len(paths) == BATCHES:
                    break
            epoch += 1
    return paths


def bounds(runs: list[dict[str, float]], exact: dict[str, float]) -> dict[str, float]:
    """Largest honest difference of each loss term between two sides, from the reference's runs against its float64 run.

    Root mean square of the runs' distances, times the t quantile of their number (the spread itself is known from few runs), times 2:
    each side may be so far from the truth. Never below one float32 ULP.
    """
    from scipy import stats  # slow to import: only when something is measured

    factor = 2 * float(stats.t.ppf(1 - FALSE_ALARM / 2, len(runs)))
    found = {}
    for name, truth in exact.items():
        spread = float(np.sqrt(np.mean([(run[name] - truth) ** 2 for run in runs])))
        found[name] = max(factor * spread, float(np.spacing(np.float32(abs(truth)))))
    return found


def verify(sides: dict[str, Side], path: str) -> dict[str, Any]:
    """Every loss term of the first batch within its bound; UserError where not."""
    floor = sides["pytorch"].ask(do="floor", batch=path)
    ours = sides["jittor"].ask(do="losses", batch=path)["terms"]
    allowed = bounds(floor["runs"], floor["float64"])
    terms = {k: {"pytorch": floor["runs"][0][k], "jittor": ours[k], "difference": abs(ours[k] - floor["runs"][0][k]), "bound": allowed[k]} for k in allowed}
    off = [k for k, t in terms.items() if not t["difference"] <= t["bound"]]
    if off:
        worst = terms[off[0]]
        raise UserError(f"{off[0]} is {worst['pytorch']:.8g} for PyTorch and {worst['jittor']:.8g} for Jittor, more apart than {worst['bound']:.1g}, so nothing is timed: "
                        'type "python -m alignment.train --help" to find out why')
    return terms


def measure(args: argparse.Namespace, config: Config, size: int, folder: Path) -> dict[str, Any]:
    """One batch size: verified, warmed up, then rounds in which the sides take turns."""
    paths, sides = write_batches(config, folder, size, args.seed), {}
    try:
        for name in MODULES:
            sides[name] = Side(name, args, folder)
        terms = verify(sides, paths[0])
        first = {name: side.ask(do="step", batch=paths[0], parts=False)["ms"]["whole"] for name, side in sides.items()}
        for side in sides.values():
            for parts in (False, True):
                side.ask(do="step", batch=paths[1], parts=parts)
        times: dict[str, dict[str, list[float]]] = {name: {k: [] for k in ("whole", "cpu", *PARTS)} for name in sides}
        for number in range(args.rounds):
            turn = list(sides.items())[:: 1 if number % 2 == 0 else -1]
            for name, side in turn:
                for parts in (False, True):
                    said = side.ask(do="step", batch=paths[number % BATCHES], parts=parts)
                    for key, value in said["ms"].items():
                        if not (parts and key in ("whole", "cpu")):
                            times[name][key].append(value)
            print(f"batch {size}: round {number + 1}/{args.rounds}, " + ", ".join(f"{n} {t['whole'][-1]:.0f} ms" for n, t in times.items()), file=sys.stderr, flush=True)
        row: dict[str, Any] = {"batch": size, "rounds": args.rounds, "losses": terms}
        for name, side in sides.items():
            row[name] = {f"{k}_ms": quantiles(v) for k, v in times[name].items()}
            row[name].update(images_per_second=1e3 * size / float(np.median(times[name]["whole"])), first_step_ms=first[name],
                             peak_memory_mb=side.ask(do="memory")["memory_mb"])
        row["jittor_over_pytorch"] = {k: quantiles([a / b for a, b in zip(times["jittor"][k], times["pytorch"][k])]) for k in ("whole", "cpu", *PARTS)}
        row["versions"] = {name: side.facts["versions"] for name, side in sides.items()}
        return row
    finally:
        for side in sides.values():
            side.close()


def kept(output: str | None, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier file, other batch sizes of the same configuration. Raises UserError for another measurement's file."""
    if output is None or not os.path.isfile(output):
        return []
    try:
        old = json.loads(Path(output).read_text(encoding="utf-8"))
        same = all(old[k] == document[k] for k in ("config_sha256", "threads", "device", "seed"))
    except (ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise UserError(f"{output} is no file of bench training with this configuration, device, threads and seed, so nothing can be added to it: leave --add out")
    return old["rows"]


def pipeline(args: argparse.Namespace, batch: int) -> list[dict[str, Any]]:
    """Images per second of the data pipeline alone, for each number of workers."""
    return [data_bench.measure(str(args.config), workers, args.images, batch, args.train_images, args.annotations, args.seed) for workers in args.workers]


def tables(document: dict[str, Any]) -> dict[str, Any]:
    """What docs/training-speed.md shows: a row for each side and batch, and the ratios."""
    rows, ratios = [], []
    for row in document["rows"]:
        for name, title in TITLES.items():
            one = row[name]
            rows.append([f"{title}, batch {row['batch']}", *(f"{one[f'{k}_ms']['median']:.0f}" for k in ("whole", *PARTS)), f"{one['images_per_second']:.1f}", f"{one['peak_memory_mb']:.0f}"])
        ratios.append([f"batch {row['batch']}", *(f"{row['jittor_over_pytorch'][k]['median']:.2f}" for k in ("whole", "cpu", *PARTS)),
                       f"{row['jittor']['peak_memory_mb'] / row['pytorch']['peak_memory_mb']:.2f}"])
    note = f"{document['config']}, {document['threads']} threads, {' and '.join(sorted({str(row['rounds']) for row in document['rows']}))} rounds in turn; {document['cpu']}; medians, milliseconds"
    return {"step": {"columns": ["side", "step", *PARTS, "images/s", "peak memory, MB"], "rows": rows, "note": note},
            "ratios": {"columns": ["Jittor / PyTorch", "step", "processor time", *PARTS, "peak memory"], "rows": ratios, "note": "medians of the ratios of neighbouring turns; below 1 Jittor is faster"},
            "data": {"columns": ["workers", "images/s"], "rows": [[str(one["workers"]), f"{one['images_per_second']:.1f}"] for one in document["data"]],
                     "note": "the data pipeline alone"}}


def table(document: dict[str, Any]) -> str:
    lines = [f"{'batch':>5s} {'side':8s} {'whole':>9s} {'p20':>8s} {'p80':>8s} " + " ".join(f"{p:>9s}" for p in PARTS) + f" {'images/s':>9s} {'MB':>7s}"]
    for row in document["rows"]:
        for name in MODULES:
            one = row[name]
            lines.append(f"{row['batch']:5d} {name:8s} {one['whole_ms']['median']:9.1f} {one['whole_ms']['p20']:8.1f} {one['whole_ms']['p80']:8.1f} "
                         + " ".join(f"{one[f'{p}_ms']['median']:9.1f}" for p in PARTS) + f" {one['images_per_second']:9.1f} {one['peak_memory_mb']:7.0f}")
    lines += [f"data pipeline, {d['workers']} workers: {d['images_per_second']:.1f} images/s" for d in document["data"]]
    return "\n".join(lines) + "\nmilliseconds, median"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batches", default="4,16", help="batch sizes (default: 4,16)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side, one whole step and one in parts each (default: 9)")
    parser.add_argument("--threads", type=int, default=runtime.default_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", default="0,2", help="processes of the data pipeline to measure (default: 0,2)")
    parser.add_argument("--images", type=int, default=128, help="images of the data pipeline's measurement (default: 128)")
    parser.add_argument("--train-images", metavar="DIR", help="training pictures in place of the configuration's")
    parser.add_argument("--annotations", metavar="FILE.json", help="COCO annotations of these pictures")
    parser.add_argument("--output", metavar="FILE.json")
    parser.add_argument("--add", action="store_true", help="keep the other batch sizes of --output; equal ones are replaced")
    args = parser.parse_args(argv)
    args.batches, args.workers = numbers(args.batches), numbers(args.workers)
    if args.rounds < 1 or args.images < 1 or args.threads < 1 or args.seed < 0 or min(args.batches) < 1:
        raise UserError("nothing to measure: give --rounds, --images, --threads and --batches of 1 or more and a --seed of 0 or more")
    if (args.train_images is None) != (args.annotations is None):
        raise UserError("--train-images and --annotations belong together: give both, or neither for the configuration's own training set")
    config = load_config(args.config)
    if args.train_images:
        train = dataclasses.replace(config.data.train, name="CocoDataset", img_path=args.train_images, ann_path=args.annotations)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=train))
    if args.device == "cuda":
        runtime_cuda.find_gpu()
    document = {"schema_version": 1, "command": command_line("training", argv), **machine(args.device), "threads": args.threads, "cpu": cpu_name(),
                "config": args.config.name, "config_sha256": config.sha256(), "input_size": list(config.data.train.input_size),
                "rounds": args.rounds, "seed": args.seed, "rows": [], "data": []}
    document["rows"] = kept(args.output, document) if args.add else []
    with tempfile.TemporaryDirectory(prefix="jt_nanodet-bench-") as name:
        for size in args.batches:
            others = [row for row in document["rows"] if row["batch"] != size]
            document["rows"] = sorted([measure(args, config, size, Path(name)), *others], key=lambda row: row["batch"])
            save(document, args.output)  # after every size, so that an end before the last one leaves the others
    document["data"] = pipeline(args, min(args.batches))
    document["tables"] = tables(document)
    save(document, args.output)
    print(table(document))
    return 0


def save(document: dict[str, Any], output: str | None) -> None:
    if output:
        os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
        with replacing(output) as file:
            file.write((json.dumps(document, indent=1) + "\n").encode())

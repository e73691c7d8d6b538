"""Comparisons in which nothing is wrong, by the hundred, for `alignment.false_alarms`: the honest port through the tasks and judges of the ordinary commands.

Each kind takes numbers 0, 1, 2 ... and makes a comparison of each: other weights, another input, another size, configuration or number of threads. Several
share a process of either side, because starting one costs more than a comparison.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from alignment import backward, infer, inputs, layers, logs, pair, simulate, train
from alignment.bundle import Bundle, comparable
from alignment.curves import Policy
from alignment.infer_judge import judge as judge_detections
from alignment.result import Result, TensorResult
from alignment.runners import child
from jt_nanodet.config import load_config

ROOT = child.ROOT
#: Width and height of the network's input, and the activation: what the configurations differ in. Where BatchNorm takes its statistics from the batch, or
#: something is to be detected, the smallest sizes have too few cells.
SIZES, LARGER = ((64, 64), (96, 64), (128, 96)), ((128, 96), (96, 128), (128, 128))
ACTIVATIONS = ("LeakyReLU", "ReLU")
#: Trained weights, for which there is something to detect, and sizes for them.
TRAINED, TRAINED_SIZES = ROOT / "configs" / "shapes_weights.npz", ((160, 160), (192, 160), (160, 128))
#: Comparisons that share the two processes; their bundles lie on disk together.
TOGETHER = 10
#: Seeds begin here, so that none is one of the tests'.
FIRST_SEED = 1000
PAIRS = ("docs/examples/resnet.py", "docs/examples/transformer.py", "docs/examples/segmentation.py")
#: With fewer runs of a log on a side many comparisons end undecided, and prove nothing.
STEPS, LOG_RUNS, PICTURES = 10, 8, 4


@dataclass(frozen=True)
class Outcome:
    """One comparison. `first`: the first failed row, with its reason and how far it lies off, or ""; `nearest`: of the rows with a measured floor the one that comes
    nearest to its bound or breaks it most, `of_bound` the largest difference in it over that bound (None where no row has a floor)."""

    name: str
    verdict: str
    reason: str
    compared: int
    first: str = ""
    nearest: str = ""
    of_bound: float | None = None


@dataclass(frozen=True)
class Kind:
    """`count`: comparisons in the whole run. `varies`: what is another from one to the next."""

    count: int
    varies: str
    run: Callable[[range, Path], Iterator[Outcome]]


def outcome(name: str, result: Result) -> Outcome:
    first = result.first_failure
    near = max((row for row in result.rows() if share(row) is not None), key=share, default=None)
    return Outcome(name, str(result.verdict), str(result.reason), result.compared, described(first) if first else "", near.name_ref if near else "", share(near) if near else None)


def share(row: TensorResult) -> float | None:
    """The largest difference as a share of its bound, where that comes from a measured floor."""
    return row.max_abs / row.tolerance if row.floor is not None and row.tolerance and row.max_abs is not None else None


def described(row: TensorResult) -> str:
    off = "" if share(row) is None else f", {share(row):.4g} of its bound"
    return f"{row.name_ref}: {row.reason}{off}{f' ({row.hint})' if row.hint else ''}"


def configuration(number: int, folder: Path, sizes: tuple = SIZES, activations: tuple = ACTIVATIONS) -> Path:
    """configs/shapes.yml in the `number`th size and activation, with pictures that no other number has; written once."""
    (width, height), activation = sizes[number % len(sizes)], activations[number // len(sizes) % len(activations)]
    path = folder / f"{number:03d}_{width}x{height}_{activation}.yml"
    if not path.exists():
        tree = yaml.safe_load((ROOT / "configs" / "shapes.yml").read_text(encoding="utf-8"))
        for part in ("backbone", "fpn", "head", "aux_head"):
            tree["model"]["arch"][part]["activation"] = activation
        for part, count in (("train", 2 * STEPS), ("val", PICTURES)):
            tree["data"][part].update(image_size=[width + 32, height], input_size=[width, height], count=count, seed=FIRST_SEED + number)
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def common(number: int, folder: Path, sizes: tuple = SIZES) -> dict[str, Any]:
    """What every task of a comparison is told. Numbers that share a process have the same number of threads."""
    return {"config": str(configuration(number, folder, sizes)), "device": "cpu", "seed": FIRST_SEED + number, "threads": threads(number)}


def threads(number: int) -> int:
    return 1 + number // TOGETHER % 2


def in_groups(numbers: range, folder: Path, tasks: Callable[[str, int, Path], list[dict[str, Any]]], judge: Callable[[int, Path], Result], kind: str) -> Iterator[Outcome]:
    """Both sides' tasks of `TOGETHER` comparisons in one process each, then the judgements; what lay on disk goes at once."""
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(number // TOGETHER, []).append(number)
    for group in groups.values():
        places = {number: folder / f"{kind}{number:03d}" for number in group}
        for place in places.values():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        try:
            for side in child.MODULES:
                asked = [task for number in group for task in tasks(side, number, places[number])]
                child.run(side, asked, {}, folder / f"{kind}.processes", verbosity=-1)
            for number, place in places.items():
                yield outcome(f"{kind} {number}", judge(number, place))
        finally:
            for place in (*places.values(), folder / f"{kind}.processes"):
                shutil.rmtree(place, ignore_errors=True)


def drawn_input(config: str, count: int) -> np.ndarray:
    """(count, 3, H, W) float32, drawn pictures of this configuration."""
    return inputs.network_input(load_config(config), None, count, 0)[0]


def forward(numbers: range, folder: Path) -> Iterator[Outcome]:
    """`alignment.layers`: every module of NanoDet-Plus alone, the whole run, and what is decoded."""
    def tasks(side: str, number: int, place: Path) -> list[dict[str, Any]]:
        given = common(number, folder)
        file = inputs.write_input(place, drawn_input(given["config"], 1 + number % 2)) if side == "pytorch" else Path()
        return [{**given, **task} for task in layers.tasks(side, place, file)]

    yield from in_groups(numbers, folder, tasks, lambda number, place: layers.judge(place, common(number, folder))[0], "forward")


def gradients(numbers: range, folder: Path) -> Iterator[Outcome]:
    """`alignment.layers --backward`: gradients of every layer and parameter, in training mode."""
    def tasks(side: str, number: int, place: Path) -> list[dict[str, Any]]:
        task, given = {"kind": "backward", "output": str(place / f"{side}.safetensors")}, common(number, folder, LARGER)
        if side == "pytorch":
            task.update(inputs=str(inputs.write_input(place, drawn_input(given["config"], 2))), double=str(place / "double.safetensors"), floors=str(place / "floors.json"))
        else:
            task.update(inputs=str(place / "input.npy"), reference=str(place / "pytorch.safetensors"))
        return [{**given, **task}]

    def judge(number: int, place: Path) -> Result:
        # what the candidate said of this comparison: its tasks stand in the order of the group
        job, report = (json.loads((folder / "gradients.processes" / f"jittor.{name}.json").read_text(encoding="utf-8")) for name in ("job", "report"))
        signs = next(said["signs"] for task, said in zip(job["tasks"], report["tasks"]) if Path(task["output"]).parent == place)
        about = json.loads((place / "floors.json").read_text(encoding="utf-8"))
        rows, _ = backward.judge(*(load_file(place / f"{name}.safetensors") for name in ("pytorch", "jittor", "double")), about, signs)
        result = Result("layers")
        result.add(rows)
        return result

    yield from in_groups(numbers, folder, tasks, judge, "gradients")


def pairs(numbers: range, folder: Path) -> Iterator[Outcome]:
    """`alignment.layers --pair --backward` on the three models of docs/examples."""
    def told(number: int) -> dict[str, Any]:
        return {"pair": str(ROOT / PAIRS[number % len(PAIRS)]), "device": "cpu", "seed": FIRST_SEED + number, "threads": threads(number)}

    def tasks(side: str, number: int, place: Path) -> list[dict[str, Any]]:
        return [{**told(number), **task} for task in pair.tasks(side, place, {}, backward=True)]

    def judge(number: int, place: Path) -> Result:
        ref, cand = (Bundle.open(place / pair.BUNDLES / side) for side in child.MODULES)
        result = Result("layers")
        for objection in comparable(ref, cand):
            result.object(objection.reason, objection.text)
        if not result.objections:
            pair.judge("layers", ref, cand, result)
            pair.judge_backward(place, ref, cand, result)
        return result

    yield from in_groups(numbers, folder, tasks, judge, "pairs")


def detections(numbers: range, folder: Path) -> Iterator[Outcome]:
    """`alignment.infer` without its timing, on trained weights; the port by its CPU engine and by its ordinary graph in turn."""
    def given(number: int) -> dict[str, Any]:
        return {**common(number, folder), "config": str(configuration(number, folder, TRAINED_SIZES, ACTIVATIONS[:1])), "weights": str(TRAINED)}

    def tasks(side: str, number: int, place: Path) -> list[dict[str, Any]]:
        return [{**given(number), **infer.task(side, place, {"batch_size": 1 + number % 3, "plain": number % 2 == 1})}]

    yield from in_groups(numbers, folder, tasks, lambda number, place: judge_detections(place, given(number)), "detections")


def training(numbers: range, folder: Path) -> Iterator[Outcome]:
    """`alignment.train`: each step starts from the reference's state and takes a batch of its own, so each is a comparison."""
    for begin in range(numbers.start, numbers.stop, STEPS):
        count, place = min(STEPS, numbers.stop - begin), folder / f"training{begin:03d}"
        given = common(begin // STEPS, folder, LARGER)
        words = ["--config", given["config"], "--seed", str(given["seed"]), "--threads", str(1 + begin // STEPS % 2), "--steps", str(count), "--batch-size", "2",
                 "--output", str(place), "-q"]
        with contextlib.redirect_stdout(io.StringIO()):
            train.main(words)
        document = json.loads((place / "result.json").read_text(encoding="utf-8"))
        shutil.rmtree(place, ignore_errors=True)
        steps = document["train"]["steps"]
        for step in steps:
            # what is wrong with the run as a whole, and not with one step, is the last one's
            late = step is steps[-1] and document["verdict"] != "pass" and not any(one["failed"] for one in steps)
            verdict = document["verdict"] if late else "fail" if step["failed"] else "pass"
            first = "" if verdict == "pass" else f"{document['first_failure']}: {document['reason']}"
            near = max(step["worst"].values(), key=lambda one: one["of_bound"], default={"name": "", "of_bound": None})
            yield Outcome(f"training {begin + step['step']}", verdict, "ok" if verdict == "pass" else document["reason"], step["rows"], first, near["name"], near["of_bound"])


def log_source(rng: np.random.Generator, lines: int = 600, epochs: int = 30) -> simulate.Source:
    """A made-up training: six losses that fall, with noise that is correlated in time and between them, and an mAP that rises."""
    t = np.arange(lines)
    trend = np.array([0.5, 0.6, 0.3, 0.55, 0.65, 0.35]) * (1 + rng.uniform(1, 3, 6) * np.exp(-t[:, None] / rng.uniform(80, 200)))
    noise = rng.standard_normal((lines, 6)) * 0.6 + rng.standard_normal((lines, 1)) * 0.8
    for k in range(1, lines):
        noise[k] += 0.5 * noise[k - 1]
    residual = np.exp(0.06 * noise)
    late = 0.002 * rng.standard_normal(epochs - epochs // 3)
    return simulate.Source(t * 10.0, t * epochs / lines, trend, residual / residual.mean(0), np.arange(1.0, epochs + 1), 0.3 * (1 - np.exp(-np.arange(1, epochs + 1) / 8)), late - late.mean())


def curves(numbers: range, folder: Path) -> Iterator[Outcome]:
    """`alignment.logs`: eight made-up trainings a side, all from one source."""
    for number in numbers:
        rng = np.random.default_rng(FIRST_SEED + number)
        source = log_source(rng)
        ref, cand = (simulate.make_runs(source, rng, LOG_RUNS, seed_sd=0.002, score_sd=0.001) for _ in range(2))
        comparison, findings = logs.compare_runs(ref, cand, Policy())
        yield outcome(f"curves {number}", logs.to_result(comparison, findings, ref, cand, Policy()))


KINDS = {
    "forward": Kind(24, "weights, pictures, size (64×64, 96×64, 128×96), activation, images (1, 2), threads (1, 2)", forward),
    "gradients": Kind(12, "weights, pictures, size (128×96, 96×128, 128×128), activation, threads", gradients),
    "pairs": Kind(72, "model (residual, transformer, transposed convolutions), input, threads", pairs),
    "detections": Kind(24, "pictures, size (160×160, 192×160, 160×128), batch size (1, 2, 3), engine or ordinary graph, threads", detections),
    "training": Kind(20, "batch and step; weights, size, threads every ten", training),
    "curves": Kind(48, "trend, noise, eight runs a side", curves),
}

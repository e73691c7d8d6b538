"""One step of `alignment.train` inside this process: the PyTorch reference against itself, with a fault planted in the second run.

Both sides share every line of the comparison with the real command; only the processes and the port are left out, so that each
planted fault costs a second. The rates are high, so that one step moves the weights by more than rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from alignment import train
from alignment.locate import first_divergence
from alignment.runners import torch_runner, train_tasks
from alignment.train_judge import judge_step
from jt_nanodet.config import load_config
from jt_nanodet.weight_rules import lively_weights

ROOT = Path(__file__).resolve().parents[2]


def small_config(folder: Path, tune=lambda tree: None) -> Path:
    tree = yaml.safe_load((ROOT / "configs" / "shapes.yml").read_text(encoding="utf-8"))
    for part in tree["data"].values():
        part.update(image_size=[128, 128], input_size=[128, 128], count=16)
    tree["schedule"].update(optimizer={"name": "AdamW", "lr": 0.02, "weight_decay": 0.5}, warmup={"name": "linear", "steps": 10, "ratio": 0.5})
    tune(tree)
    path = folder / "small.yml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


class Pair:
    """A reference that has taken its steps, and a candidate that takes one of them when asked. `tune` changes the configuration, `change` the first
    weights; `batches` are functions that write one each, in place of drawn ones."""

    def __init__(self, folder: Path, *, steps: int = 2, change=lambda weights: None, batches=(), tune=lambda tree: None):
        self.folder, config_path = folder, small_config(folder, tune)
        self.config = load_config(config_path)
        backend = torch_runner.TorchBackend({"device": "cpu"})
        weights = lively_weights(backend.shapes(self.config), 0)
        change(weights)
        save_file(weights, folder / "start.safetensors")
        task = {"config": str(config_path), "start": str(folder / "start.safetensors"), "seed": 0}
        run = SimpleNamespace(backend=backend, say=lambda text: None)
        paths = train.write_batches(self.config, folder, steps, [0], 0, 2) if not batches else [make(folder) for make in batches]
        reference = self.reference = train_tasks.Reference(run, task)
        self.told, self.commands = [], []
        for index, path in enumerate(paths):
            names = {k: str(folder / f"{k}{index}.safetensors") for k in ("before", "output", "double")}
            command = {"do": "step", "index": index, "batch": str(path), "floors": str(folder / f"floors{index}.json"), **names}
            self.told.append(reference.step(command))
            self.commands.append(command)
        self.candidate = train_tasks.Candidate(SimpleNamespace(backend=torch_runner.TorchBackend({"device": "cpu"})), task)

    def take(self, index: int, fault=nullcontext()):
        """The StepJudgement of a step taken under `fault`."""
        command = self.commands[index]
        with fault:
            told = self.candidate.step({**command, "reference": command["output"], "output": str(self.folder / "candidate.safetensors")})
        self.ref, cand = load_file(command["output"]), load_file(self.folder / "candidate.safetensors")
        self.free = {k: cand.pop(k) for k in list(cand) if k.startswith("free/")}
        self.cand = cand
        return judge_step(index, self.ref, cand, load_file(command["double"]), json.loads(Path(command["floors"]).read_text()), told["signs"],
                          self.told[index]["flips"])

    def first(self, index: int, fault):
        """Where the fault is found, when step 0 was clean."""
        return first_divergence(self.take(index, fault).rows, training=True)


def tie_batch(folder: Path) -> Path:
    """One grey picture pair with small boxes: with constant predictions many priors cost exactly the same."""
    boxes = np.array([[44, 44, 76, 76], [20, 60, 52, 92]], np.float32)
    return write_batch(folder / "ties.npz", [boxes, boxes])


def drawn_batch(name: str, *boxes: list) -> Callable[[Path], Path]:
    """A batch with these boxes, a list for each picture."""
    return lambda folder: write_batch(folder / f"{name}.npz", [np.array(one, np.float32).reshape(-1, 4) for one in boxes])


def write_batch(path: Path, boxes: list[np.ndarray]) -> Path:
    """Two pictures of noise with boxes of classes 0, 1, ..."""
    lists = {f"{k}/{i}": v for i, one in enumerate(boxes) for k, v in (("gt_bboxes", one), ("gt_labels", np.arange(len(one), dtype=np.int64)),
                                                                     ("gt_bboxes_ignore", np.zeros((0, 4), np.float32)))}
    np.savez(path, img=np.random.RandomState(0).randn(2, 3, 128, 128).astype(np.float32), **lists)
    return path


def constant_predictions(weights: dict[str, np.ndarray]) -> None:
    for name in ("gfl_cls", "gfl_reg"):
        weights[f"aux_head.{name}.weight"][...] = 0
    weights["aux_head.gfl_reg.bias"][...] = 0


__all__ = ["Pair", "constant_predictions", "drawn_batch", "tie_batch"]

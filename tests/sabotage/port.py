"""The port with a fault in it, compared with an honest reference: one reference for all faults, made once in a process of its own.

Faults are planted from outside, in the loaded model or in a function of `jt_nanodet` (pytest's monkeypatch takes them out again); the runner,
the bundles on disk and the judges are the ones that users run.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from alignment import infer, inputs, layers, layers_repro, structure, weights
from alignment.result import Result
from alignment.runners import child, repro_tasks, tasks
from jt_nanodet.checkpoint import read_weights, write_weights
from jt_nanodet.config import load_config
from jt_nanodet.weight_rules import lively_weights
from tests.sabotage import crafted

ROOT = Path(__file__).resolve().parents[2]
#: Of the embedded default: smaller, and not square, so that height and width cannot be confused in silence.
CHANGES = {"input_size: [160, 160]": "input_size: [128, 96]", "count: 128": "count: 6"}


class Port:
    """The Jittor side of every command, in this process, with `model` open to faults."""

    def __init__(self, folder: Path):
        from alignment.runners.jittor_runner import JittorBackend

        self.folder = folder
        text = (ROOT / "configs" / "shapes.yml").read_text(encoding="utf-8")
        for old, new in CHANGES.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "small.yml").write_text(text, encoding="utf-8")
        config = load_config(folder / "small.yml")
        self.common = {"config": str(folder / "small.yml"), "device": "cpu", "seed": 0}
        self.backend = JittorBackend(self.common)
        # without the auxiliary branch: inference never runs it, and it is most of the calls
        given = {k: v for k, v in lively_weights(self.backend.shapes(config), 0).items() if not k.startswith(("aux_fpn.", "aux_head."))}
        self.weights = folder / "weights.npz"
        write_weights(self.weights, given)
        self.common["weights"] = str(self.weights)
        array, _ = inputs.network_input(config, None, 1, 0)
        honest = [structure.task("pytorch", folder), weights.task("pytorch", folder), *layers.tasks("pytorch", folder, inputs.write_input(folder, array)),
                  infer.task("pytorch", folder, {"batch_size": 3})]
        child.run("pytorch", honest, self.common, folder, verbosity=-1)
        subprocess.run([sys.executable, "-m", "tests.sabotage.crafted", str(folder / "crafted.json")], cwd=ROOT, check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.fresh()

    def fresh(self, path: Path | None = None) -> None:
        """A model without a fault, with the reference's weights or those at `path`."""
        self.common["weights"] = str(path or self.weights)
        self.run = tasks.Run(self.backend, {"verbosity": -1})
        self.run.ready(self.common)

    @property
    def model(self) -> Any:
        return self.backend.model

    def modules(self, kind: str = "") -> dict[str, Any]:
        """Path to module, of one type."""
        return {path: one for path, one in self.backend.modules() if not kind or self.backend.type_name(one) == kind}

    def other_weights(self, folder: Path) -> Path:
        changed = read_weights(self.weights)
        changed["backbone.conv1.0.weight"] = changed["backbone.conv1.0.weight"] * 2
        write_weights(folder / "other.npz", changed)
        return folder / "other.npz"

    def layers(self, out: Path, float64: str | None = None) -> Result:
        (out / "bundles").mkdir(parents=True)
        (out / "bundles" / "pytorch").symlink_to(self.folder / "bundles" / "pytorch")
        task, = layers.tasks("jittor", out, Path(), float64)
        tasks.layers_candidate(self.run, {**self.common, **task})
        result, self.divergence = layers.judge(out, self.common)
        return result

    def ask(self, out: Path, side: str, task: dict[str, Any]) -> dict[str, Any]:
        """A task for a reproduction: the reference's in a process of its own, the port's here, where the fault is."""
        if side == "pytorch":
            return child.run(side, [task], self.common, out / "asked", verbosity=-1)["tasks"][0]
        return repro_tasks.layer(self.run, {**self.common, **task})

    def repro(self, out: Path, result: Result) -> Path | None:
        return layers_repro.write(out, self.divergence, result.row(self.divergence.name), Path(self.common["config"]), functools.partial(self.ask, out))

    def structure(self, out: Path) -> Result:
        self.borrow(out, "pytorch.structure.json")
        tasks.structure(self.run, {**self.common, **structure.task("jittor", out)})
        return structure.judge(out, self.common)[0]

    def weight_hashes(self, out: Path) -> Result:
        self.borrow(out, "pytorch.weights.json")
        tasks.weights(self.run, {**self.common, **weights.task("jittor", out)})
        return weights.judge(out, self.common)

    def infer(self, out: Path, **options: Any) -> Result:
        self.borrow(out, "pytorch.detections.json")
        tasks.detect(self.run, {**self.common, **infer.task("jittor", out, {"batch_size": 3, "plain": True, **options})})
        return infer.judge(out, self.common)

    def crafted(self, out: Path) -> Result:
        """Post-processing alone, on boxes and scores that both sides get bit for bit."""
        self.borrow(out, "crafted.json", "pytorch.detections.json")
        (out / "jittor.detections.json").write_text(json.dumps(crafted.document(self.backend.tester(), lambda array: array)))
        return infer.judge(out, self.common)

    def borrow(self, out: Path, name: str, under: str = "") -> None:
        shutil.copy(self.folder / name, out / (under or name))

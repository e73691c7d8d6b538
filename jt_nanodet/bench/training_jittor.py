"""Jittor's process of ``bench training``: a line of JSON for every line on its standard input; started by `jt_nanodet.bench.training` alone."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.gpu_jittor import memory_mb
from jt_nanodet.config import load_config
from jt_nanodet.errors import run_cli
from jt_nanodet.weight_rules import lively_weights


def read_batch(path: str) -> dict[str, Any]:
    with np.load(path) as file:
        count = len(file["img"])
        return {"img": file["img"], **{k: [file[f"{k}/{i}"] for i in range(count)] for k in ("gt_bboxes", "gt_labels", "gt_bboxes_ignore")}}


class Timer:
    """Milliseconds of a step: whole, or in parts with a wait after each, by putting a clock around the step's own methods."""

    def __init__(self, step: Any, wait: Any):
        self.step, self.wait, self.marks = step, wait, {}
        self.plain = {k: getattr(step, k) for k in ("losses", "gradients")}
        self.forward = step.model.forward_aux

    def watched(self, name: str, work: Any) -> Any:
        def run(*args, **kwargs):
            found = work(*args, **kwargs)
            self.wait()
            self.marks[name] = time.perf_counter()
            return found

        return run

    def run(self, batch: dict[str, Any], parts: bool) -> dict[str, float]:
        if parts:
            self.step.model.forward_aux = self.watched("forward", self.forward)
            self.step.losses, self.step.gradients = self.watched("loss", self.plain["losses"]), self.watched("backward", self.plain["gradients"])
        try:
            self.wait()
            begun, cpu = time.perf_counter(), time.process_time()
            self.step.step(batch)
            self.wait()
            end = time.perf_counter()
            spent = time.process_time() - cpu
        finally:
            self.step.model.forward_aux = self.forward
            self.step.losses, self.step.gradients = self.plain["losses"], self.plain["gradients"]
        found = {"whole": 1e3 * (end - begun), "cpu": 1e3 * spent}
        if parts:
            ends = [begun, *(self.marks[k] for k in ("forward", "loss", "backward")), end]
            found.update({k: 1e3 * (b - a) for k, a, b in zip(("forward", "loss", "backward", "update"), ends, ends[1:])})
        return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    for name, kind in (("config", str), ("device", str), ("threads", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    args = parser.parse_args(argv)
    runtime.setup(args.device, threads=args.threads)
    runtime.seed(args.seed)
    import jittor as jt

    from jt_nanodet.detector import build_model, load_state, state_arrays
    from jt_nanodet.training_step import TrainingStep

    config = load_config(args.config)
    model = build_model(config.model.arch)
    load_state(model, lively_weights({k: v.shape for k, v in state_arrays(model).items()}, args.seed))
    step = TrainingStep(model, config)
    timer = Timer(step, lambda: jt.sync_all(True))
    print(json.dumps({"versions": runtime.versions()}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "losses":
            total, terms, _ = step.losses(read_batch(command["batch"]))
            jt.sync_all(True)
            said = {"terms": {**{k: float(v.item()) for k, v in terms.items()}, "loss": float(total.item())}}
        elif command["do"] == "step":
            said = {"ms": timer.run(read_batch(command["batch"]), command["parts"])}
        else:
            said = {"memory_mb": memory_mb(args.device)}
        print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

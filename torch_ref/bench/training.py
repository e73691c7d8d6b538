"""PyTorch's process of ``python -m jt_nanodet bench training``: a line of JSON for every line on its standard input."""

import argparse
import copy
import json
import sys
import time

import numpy as np
import torch

from jt_nanodet.config import load_config
from jt_nanodet.errors import run_cli
from jt_nanodet.weight_rules import lively_weights

from .gpu import memory_mb
from ..detector import build_model, load_state, state_arrays
from ..training_step import TrainingStep

LISTS = ("gt_bboxes", "gt_labels", "gt_bboxes_ignore")


def read_batch(path):
    with np.load(path) as file:
        count = len(file["img"])
        return {"img": file["img"], **{k: [file[f"{k}/{i}"] for i in range(count)] for k in LISTS}}


class Timer:
    """Milliseconds of a step: whole, or in parts with a wait after each, by putting a clock around the step's own methods."""

    def __init__(self, step, wait):
        self.step, self.wait, self.marks = step, wait, {}
        self.plain = {k: getattr(step, k) for k in ("losses", "gradients")}
        self.forward = step.model.forward_aux

    def watched(self, name, work):
        def run(*args, **kwargs):
            found = work(*args, **kwargs)
            self.wait()
            self.marks[name] = time.perf_counter()
            return found

        return run

    def run(self, batch, parts):
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


def losses(step, batch):
    with torch.no_grad():
        total, terms, _ = step.losses(batch)
    return {**{k: v.item() for k, v in terms.items()}, "loss": total.item()}


def floor(step, batch, seed):
    """Loss terms in float64, and in working precision under harmless changes; the first of the runs has none."""
    def under(image=None, order=None):
        order = np.arange(len(batch["img"])) if order is None else order
        image = batch["img"] if image is None else image
        return losses(step, {"img": image[order], **{k: [batch[k][i] for i in order] for k in LISTS}})

    r, image = np.random.RandomState(seed), batch["img"]
    runs = [under()]
    for _ in range(4):  # each element moved by one ULP up or down
        runs.append(under(np.nextafter(image, np.where(r.rand(*image.shape) < 0.5, -np.inf, np.inf).astype(np.float32))))
    for _ in range(2):
        runs.append(under(order=r.permutation(len(image))))
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    runs.append(under())
    torch.set_num_threads(threads)
    model = step.model
    step.model = copy.deepcopy(model).double()
    exact = losses(step, batch)
    step.model = model
    return {"runs": runs, "float64": exact}


def main(argv):
    parser = argparse.ArgumentParser()
    for name, kind in (("config", str), ("device", str), ("threads", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    config = load_config(args.config)
    model = build_model(config.model.arch)
    load_state(model, lively_weights({k: v.shape for k, v in state_arrays(model).items()}, args.seed))
    step = TrainingStep(model.to(args.device), config)
    timer = Timer(step, torch.cuda.synchronize if args.device == "cuda" else lambda: None)
    print(json.dumps({"versions": {"torch": torch.__version__, "numpy": np.__version__}}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "floor":
            said = floor(step, read_batch(command["batch"]), args.seed)
        elif command["do"] == "step":
            said = {"ms": timer.run(read_batch(command["batch"]), command["parts"])}
        else:
            said = {"memory_mb": memory_mb(args.device)}
        print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""PyTorch's process of ``python -m jt_nanodet bench gpu``: one setting, one line of JSON."""

import argparse
import dataclasses
import json
import sys
import time

import numpy as np
import torch

from jt_nanodet.config import load_config
from jt_nanodet.run.memory import peak_memory_bytes

from .kernels import torchvision, torchvision_nms
from ..decode import decode
from ..detector import build_model
from ..postprocess import multiclass_nms
from ..training_step import TrainingStep


def batch_of(batch, size, boxes=7, seed=0):
    """The same training batch as the other side's."""
    r = np.random.RandomState(seed)
    extent = size * (0.05 + 0.4 * r.rand(batch, boxes, 2))
    corner = r.rand(batch, boxes, 2) * (size - extent)
    whole = np.concatenate([corner, corner + extent], 2).astype(np.float32)
    return {"img": r.randn(batch, 3, size, size).astype(np.float32), "gt_bboxes": list(whole), "gt_labels": list(r.randint(0, 80, (batch, boxes))),
            "gt_bboxes_ignore": [np.zeros((0, 4), np.float32)] * batch}


def memory_mb(device):
    """What this process holds: of the GPU's memory (everything in use there), else its own peak."""
    if device == "cpu":
        return peak_memory_bytes() / 2**20
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def repeat(work, seconds, least=5, warm=5):
    """Milliseconds of each run of work(), which ends when the device is done."""
    for _ in range(warm):
        work()
    times, until = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < until:
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def quantiles(times):
    low, middle, high = np.percentile(times, (20, 50, 80))
    return {"p20": float(low), "median": float(middle), "p80": float(high), "samples": len(times)}


def main(argv):
    parser = argparse.ArgumentParser()
    for name, kind in (("device", str), ("precision", int), ("batch", int), ("size", int), ("seconds", float), ("threads", int), ("config", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    config = load_config(args.config)
    config = dataclasses.replace(config, device=dataclasses.replace(config.device, precision=args.precision))
    arch = config.model.arch
    step, batch = TrainingStep(build_model(arch).to(args.device), config), batch_of(args.batch, args.size)

    def wait():
        if args.device == "cuda":
            torch.cuda.synchronize()

    def train():
        step.step(batch)
        wait()

    begun = time.perf_counter()
    train()
    first = time.perf_counter() - begun
    training = repeat(train, args.seconds)
    memory = memory_mb(args.device)
    model, image = build_model(arch).to(args.device), batch["img"][:1]
    half = torch.float16 if args.device == "cuda" else torch.bfloat16

    def forward():
        with torch.no_grad(), torch.autocast(args.device, half, enabled=args.precision == 16 and args.device == "cuda"):
            raw = model(torch.from_numpy(image).to(args.device))
        return decode(raw.float(), model.head.distribution_project, arch.head, image.shape[2:])

    def only_forward():
        forward()
        wait()

    def whole():
        with torch.no_grad():
            boxes, scores = forward()
            if torchvision:
                torchvision_nms(boxes[0], scores[0]).cpu()
            else:
                multiclass_nms(boxes[0].cpu(), scores[0].cpu())

    only, all_of_it = repeat(only_forward, args.seconds), repeat(whole, args.seconds)
    print(json.dumps({"training_ms": quantiles(training), "iterations_per_second": 1e3 / float(np.median(training)),
                      "images_per_second": 1e3 * args.batch / float(np.median(training)), "forward_ms": quantiles(only), "inference_ms": quantiles(all_of_it),
                      "fps": 1e3 / float(np.median(all_of_it)), "memory_mb": memory, "first_step_seconds": first, "suppression": "torchvision" if torchvision else "torch_ref",
                      "versions": {"torch": torch.__version__, "torchvision": getattr(torchvision, "__version__", "")}}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

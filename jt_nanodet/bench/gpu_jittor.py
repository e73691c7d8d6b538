"""Jittor's process of ``bench gpu``: one setting, one line of JSON; started by `jt_nanodet.bench.gpu` alone."""

from __future__ import annotations

import ctypes
import dataclasses
import sys
import time

from jt_nanodet import runtime
from jt_nanodet.bench.gpu import batch_of, child_arguments, repeat, report
from jt_nanodet.config import load_config
from jt_nanodet.run.memory import peak_memory_bytes


def memory_mb(device: str) -> float:
    """What this process holds: of the GPU's memory (everything in use there), else its own peak."""
    if device == "cpu":
        return peak_memory_bytes() / 2**20
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if ctypes.CDLL("libcudart.so.13").cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
        raise RuntimeError("cudaMemGetInfo failed")
    return (total.value - free.value) / 2**20


def main(argv: list[str]) -> int:
    args = child_arguments(argv)
    runtime.setup(args.device, threads=args.threads)
    import jittor as jt

    from jt_nanodet.decode import decode
    from jt_nanodet.detector import build_model
    from jt_nanodet.postprocess import detect_batch
    from jt_nanodet.training_step import TrainingStep

    runtime.seed(0)
    config = load_config(args.config)
    config = dataclasses.replace(config, device=dataclasses.replace(config.device, precision=args.precision))
    arch = config.model.arch
    step, batch = TrainingStep(build_model(arch), config), batch_of(args.batch, args.size)
    begun = time.perf_counter()
    step.step(batch)
    first = time.perf_counter() - begun

    def train():
        step.step(batch)
        jt.sync_all(True)

    training = repeat(train, args.seconds)
    memory = memory_mb(args.device)
    model, image = build_model(arch), batch["img"][:1]

    def forward():
        with jt.no_grad(), jt.flag_scope(auto_mixed_precision_level=4 if args.precision == 16 and args.device == "cuda" else 0):
            raw = model(jt.array(image))
        found = decode(raw.float32(), model.head.distribution_project, arch.head, image.shape[2:])
        jt.sync(list(found))
        return found

    def only_forward():
        forward()
        jt.sync_all(True)

    only = repeat(only_forward, args.seconds)
    whole = repeat(lambda: detect_batch(*forward()), args.seconds)
    report(training, only, whole, args.batch, memory_mb=memory, first_step_seconds=first, versions=runtime.versions())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

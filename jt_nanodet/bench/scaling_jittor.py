"""Jittor's process of ``bench scaling``: answers lines of JSON; started by `jt_nanodet.bench.scaling` alone."""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.gpu_jittor import memory_mb
from jt_nanodet.bench.kernels import NMS, SETTINGS, scene
from jt_nanodet.checkpoint import read_weights
from jt_nanodet.config import load_config
from jt_nanodet.errors import run_cli
from jt_nanodet.weight_rules import lively_weights

_models: dict = {}


def model_of(config, weights):
    """The detector of a configuration, built once."""
    from jt_nanodet.detector import build_model, file_shape, load_state

    if (config, weights) not in _models:
        model = build_model(load_config(config).model.arch)
        shapes = {k: file_shape(k, v.shape) for k, v in model.state_dict().items()}
        load_state(model, read_weights(weights) if weights else lively_weights(shapes, 0), training_branch=False)
        model.eval()
        _models[config, weights] = model
    return _models[config, weights]


def network(command):
    """() -> boxes and scores of one batch, NumPy in and NumPy out."""
    from jt_nanodet.engine import engine

    model = model_of(command["config"], command["weights"])
    images = np.random.RandomState(0).randn(command["batch"], 3, command["size"], command["size"]).astype(np.float32)
    return lambda: engine.detect(model, images)


def suppression(command):
    """() -> detections of one image with about so many candidates, NumPy in and NumPy out."""
    from jt_nanodet.postprocess import detect_batch

    given = scene(command["size"], 1, 20)
    lowest = np.sort(given["scores"].ravel())[-command["boxes"]]
    # as many as wanted are lifted above the threshold where they are not; all others go below it
    scores = np.where(given["scores"] >= lowest, np.maximum(given["scores"], NMS["score"] + 1e-3), 0).astype(np.float32)
    return lambda: detect_batch(given["boxes"], scores, NMS["score"], NMS["iou"], NMS["most"])


def assignment(command):
    """() -> the targets of one batch with so many boxes an image."""
    import jittor as jt

    from jt_nanodet.kernels import assign

    given, nothing = scene(command["size"], command["batch"], command["boxes"]), np.zeros((0, 4), np.float32)
    placed = assign.place_boxes(list(given["gts"]), [row.astype(np.int64) for row in given["labels"]], [nothing] * command["batch"])
    logits, boxes, priors = (jt.array(given[k]) for k in ("logits", "boxes", "priors"))
    jt.sync([logits, boxes, priors, *placed.vars()])
    return lambda: assign.launch(logits, boxes, priors, placed, **SETTINGS).gt_index.numpy()


WORK = {"network": network, "suppression": suppression, "assignment": assignment}


def times(work, seconds, least):
    """Milliseconds of each run within so many seconds, `least` at least."""
    for _ in range(2):
        work()
    found, until = [], time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < until:
        begun = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - begun))
    return found


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    runtime.setup(args.device, threads=args.threads)
    import jittor as jt

    jt.flags.no_grad = 1
    print(json.dumps({"versions": runtime.versions()}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        found = times(WORK[command["kind"]](command), command["seconds"], command["least"])
        print(json.dumps({"ms": found, "memory_mb": memory_mb(args.device)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""This project's processes of ``python -m jt_nanodet bench inference``: the engine and the ordinary graph."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.gpu_jittor import memory_mb
from jt_nanodet.checkpoint import read_weights
from jt_nanodet.config import load_config
from jt_nanodet.weight_rules import lively_weights


def main(path):
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    runtime.setup("cpu", threads=job["threads"])
    import jittor as jt

    from jt_nanodet.detector import build_model, file_shape, load_state
    from jt_nanodet.engine import engine

    model = build_model(load_config(job["config"]).model.arch)
    shapes = {k: file_shape(k, v.shape) for k, v in model.state_dict().items()}
    load_state(model, read_weights(job["weights"]) if job["weights"] else lively_weights(shapes, job["seed"]), training_branch=False)
    model.eval()
    images = np.load(job["images"], allow_pickle=False)
    jt.flags.no_grad = 1
    if job["name"] == "jt_nanodet":
        engine.engine_of(model).flags = job["flags"]

        def forward():
            return engine.forward(model, images)
    else:
        def forward():
            return model(jt.array(images)).numpy()

    np.save(job["output"], forward())
    for _ in range(3):
        forward()
    print(json.dumps({"ready": True, "versions": runtime.versions()}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            forward()
            seconds.append(time.perf_counter() - started)
        print(json.dumps({"seconds": seconds, "memory_mb": memory_mb("cpu")}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

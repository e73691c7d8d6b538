"""The measured process of `bench startup`: CONFIG BATCH THREADS; prints one line of JSON."""
import json
import sys
import time

import numpy as np

from jt_nanodet import runtime


def drawn(config, batch, seed):
    """A batch of noise with two boxes an image."""
    width, height = config.data.train.input_size
    r = np.random.RandomState(seed)
    boxes = [np.float32([[1, 1, width / 2, height / 2], [width / 4, height / 4, width - 1, height - 1]])] * batch
    labels = [r.randint(0, config.model.arch.head.num_classes, 2)] * batch
    return {"img": r.randn(batch, 3, height, width).astype(np.float32), "gt_bboxes": boxes, "gt_labels": labels, "gt_bboxes_ignore": None}


def main(path, batch, threads):
    began = time.perf_counter()
    runtime.setup("cpu", threads=threads)
    import jittor as jt

    from jt_nanodet.config import load_config
    from jt_nanodet.detector import build_model
    from jt_nanodet.training_step import TrainingStep

    found = {"built": runtime.info().built_seconds, "jittor": time.perf_counter() - began - runtime.info().built_seconds}
    config = load_config(path)
    step = TrainingStep(build_model(config.model.arch), config)
    for number, name in enumerate(("first", "second")):
        began = time.perf_counter()
        step.step(drawn(config, batch, number))
        found[name] = time.perf_counter() - began
    with jt.profile_scope() as rows:
        step.step(drawn(config, batch, 2))
    found["kernels"], found["launches"] = len(rows) - 1, sum(int(row[2]) for row in rows[1:])
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

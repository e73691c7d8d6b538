"""Jittor's process of ``bench kernels``: answers lines of JSON; started by `jt_nanodet.bench.kernels` alone."""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.kernels import NMS, SETTINGS
from jt_nanodet.config import AssignerConfig


class Events:
    """Times on the GPU between two points of the default stream, through the CUDA runtime that Jittor loaded."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcudart.so.13")
        self.pair = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self.pair:
            self.check(self.cuda.cudaEventCreate(ctypes.byref(event)))

    def check(self, code):
        if code:
            raise RuntimeError(f"CUDA error {code}")

    def record(self, which):
        self.check(self.cuda.cudaEventRecord(self.pair[which], None))

    def elapsed(self):
        found = ctypes.c_float()
        self.check(self.cuda.cudaEventSynchronize(self.pair[1]))
        self.check(self.cuda.cudaEventElapsedTime(ctypes.byref(found), *self.pair))
        return found.value


class Work:
    """One contestant on one scene; `run` queues it and `wait` ends it."""

    def __init__(self, kind, name, path):
        import jittor as jt
        from jt_nanodet import assigner, postprocess
        from jt_nanodet.kernels import assign, nms

        with np.load(path) as file:
            given = {k: file[k] for k in file.files}
        self.jt, self.kind, self.name, self.given = jt, kind, name, given
        self.vars = {k: jt.array(given[k]) for k in ("logits", "scores", "boxes", "priors")}
        self.postprocess, self.assign, self.nms = postprocess, assign, nms
        self.assigner = assigner.DynamicSoftLabelAssigner(AssignerConfig())
        count = given["counts"]
        self.gts = [given["gts"][i, :n] for i, n in enumerate(count)]
        self.labels = [given["labels"][i, :n].astype(np.int64) for i, n in enumerate(count)]
        nothing = [np.zeros((0, 4), np.float32)] * len(count)
        self.placed = assign.place_boxes(self.gts, self.labels, nothing)
        jt.sync([*self.vars.values(), *self.placed.vars()])

    def run(self):
        v = self.vars
        if self.name == "kernel":
            if self.kind == "assign":
                found = self.assign.launch(v["logits"], v["boxes"], v["priors"], self.placed, **SETTINGS)
                self.jt.sync([found.gt_index])
            else:
                found = self.nms.nms_batch(v["boxes"], v["scores"], NMS["score"], NMS["iou"], NMS["most"])
                self.jt.sync([found.kept])
            return found
        if self.kind == "assign":
            rows = range(len(self.gts))
            return [self.assigner.assign(v["logits"][i], v["boxes"][i], self.given["priors"], self.gts[i], self.labels[i]) for i in rows]
        boxes, scores = v["boxes"].numpy(), v["scores"].numpy()
        return [self.postprocess.vectorised_nms(b, s, NMS["score"], NMS["iou"], NMS["most"]) for b, s in zip(boxes, scores)]

    def wait(self):
        self.jt.sync_all(True)

    def answer(self):
        """What was decided, as arrays of the same form for every contestant."""
        found = self.run()
        classes = self.given["scores"].shape[2]
        if self.name == "kernel":
            names = ("gt_index", "iou", "label", "quality", "weight", "target", "distance", "topk_sum") if self.kind == "assign" else ("kept", "count", "detections")
            return {k: getattr(found, k).numpy() for k in names}
        if self.kind == "assign":
            return {"gt_index": np.stack([a.gt_index for a in found]), "iou": np.stack([a.iou for a in found])}
        kept = np.full((len(found), NMS["most"]), -1, np.int32)
        for row, (_, label, prior) in zip(kept, found):
            row[: len(label)] = prior * classes + label
        return {"kept": kept}


def timed(work, seconds, events):
    """Samples of one run each in ms, and on a GPU the time between events around several runs queued one after the other."""
    for _ in range(3):
        work.run()
    work.wait()
    found, until = {"ms": []}, time.perf_counter() + seconds / (2 if events else 1)
    while not found["ms"] or time.perf_counter() < until:
        begun = time.perf_counter()
        work.run()
        work.wait()
        found["ms"].append(1e3 * (time.perf_counter() - begun))
    if events and work.name == "kernel":
        found["device_ms"], until = [], time.perf_counter() + seconds / 2
        while not found["device_ms"] or time.perf_counter() < until:
            events.record(0)
            for _ in range(10):
                work.run()
            events.record(1)
            found["device_ms"].append(events.elapsed() / 10)
    return found


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    runtime.setup(args.device, threads=args.threads)
    events = Events() if args.device == "cuda" else None
    print(json.dumps({"contestants": ["kernel", "tensor"], "device": args.device, "versions": runtime.versions()}), flush=True)
    last = (None, None)
    for line in sys.stdin:
        command = json.loads(line)
        key = (command["kind"], command.get("contestant", "kernel"), command["file"], time.time() if command["do"] == "answer" else 0)
        work = last[1] if last[0] == key else Work(*key[:3])
        last = (key, work)
        if command["do"] == "answer":
            np.savez(command["output"], **work.answer())
            print(json.dumps({"done": True}), flush=True)
        else:
            print(json.dumps(timed(work, command["seconds"], events)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""PyTorch's process of ``python -m jt_nanodet bench kernels``: upstream's per-image algorithms, and torchvision's suppression where it is installed."""

import argparse
import json
import sys
import time

import numpy as np
import torch

from jt_nanodet.config import AssignerConfig

from ..assigner import DynamicSoftLabelAssigner
from ..postprocess import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD, multiclass_nms

try:
    import torchvision
except ImportError:
    torchvision = None


def torchvision_nms(boxes, scores):
    """`multiclass_nms` of one image with torchvision's kernel, on any device; kept indices prior · C + class (n,)."""
    prior, label = torch.nonzero(scores > SCORE_THRESHOLD, as_tuple=True)
    keep = torchvision.ops.batched_nms(boxes[prior], scores[prior, label], label, IOU_THRESHOLD)[:MAX_DETECTIONS]
    return (prior * scores.shape[1] + label)[keep]


class Work:
    """One contestant on one scene."""

    def __init__(self, kind, name, path, device):
        with np.load(path) as file:
            given = {k: file[k] for k in file.files}
        self.kind, self.name, self.device, self.priors = kind, name, device, given["priors"]
        self.logits, self.scores, self.boxes = (torch.from_numpy(given[k]).to(device) for k in ("logits", "scores", "boxes"))
        self.gts = [given["gts"][i, :n] for i, n in enumerate(given["counts"])]
        self.labels = [given["labels"][i, :n].astype(np.int64) for i, n in enumerate(given["counts"])]
        self.assigner = DynamicSoftLabelAssigner(AssignerConfig())

    def run(self):
        rows = range(len(self.gts))
        if self.kind == "assign":
            return [self.assigner.assign(self.logits[i], self.boxes[i], self.priors, self.gts[i], self.labels[i]) for i in rows]
        if self.name == "torchvision":
            return [torchvision_nms(self.boxes[i], self.scores[i]) for i in rows]
        boxes, scores = self.boxes.cpu(), self.scores.cpu()  # upstream's loop runs on the host
        return [multiclass_nms(boxes[i], scores[i]) for i in rows]

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def answer(self):
        found, classes = self.run(), self.scores.shape[2]
        if self.kind == "assign":
            return {"gt_index": np.stack([a.gt_index for a in found]), "iou": np.stack([a.iou for a in found])}
        kept = np.full((len(found), MAX_DETECTIONS), -1, np.int32)
        for row, one in zip(kept, found):
            index = one.cpu().numpy() if self.name == "torchvision" else (one[2] * classes + one[1]).numpy()
            row[: len(index)] = index
        return {"kept": kept}


def timed(work, seconds):
    """Samples of one run each, in ms; a run ends when the device is done."""
    for _ in range(2):
        work.run()
    work.wait()
    found, until = [], time.perf_counter() + seconds
    while not found or time.perf_counter() < until:
        begun = time.perf_counter()
        work.run()
        work.wait()
        found.append(1e3 * (time.perf_counter() - begun))
    return {"ms": found}


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    facts = {"contestants": ["upstream", *(["torchvision"] if torchvision else [])], "device": args.device,
             "versions": {"torch": torch.__version__, "torchvision": getattr(torchvision, "__version__", "")}}
    if args.device == "cuda":
        facts["device"] = torch.cuda.get_device_name()
    print(json.dumps(facts), flush=True)
    with torch.no_grad():
        for line in sys.stdin:
            command = json.loads(line)
            work = Work(command["kind"], command["contestant"], command["file"], args.device)
            if command["do"] == "answer":
                np.savez(command["output"], **work.answer())
                print(json.dumps({"done": True}), flush=True)
            else:
                print(json.dumps(timed(work, command["seconds"])), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

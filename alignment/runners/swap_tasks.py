"""The pipeline of one side in stages that can be run apart, and a server that runs them on arrays of either side.

    file ─ decode ─► pixels ─ warp ─► warped, matrix ─ normalise ─► input ─ network ─► raw ─ boxes ─► boxes, scores ─ nms ─► dets, labels ─ unwarp ─► result

Each line on standard input is an order, answered by a line on standard output; arrays travel in bundles (`alignment.swap` gives the orders).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alignment.bundle import Bundle, BundleWriter, array_sha256
from alignment.runners.tasks import Run, peak_memory_mb
from jt_nanodet.config import METRIC_NAMES, PipelineConfig
from jt_nanodet.data.cocofile import of_images
from jt_nanodet.data.evaluator import CocoEvaluator, detections_to_coco
from jt_nanodet.data.testset import open_test_set
from jt_nanodet.data.transforms import colour_transform, normalise_planes, shape_transform

#: Stage -> names of the arrays it takes and makes. `size` is (width, height) of the picture, `frame` (height, width) of the network's input.
TAKES = {"decode": (), "warp": ("pixels",), "normalise": ("warped",), "network": ("input",), "boxes": ("raw", "frame"), "nms": ("boxes", "scores"),
         "unwarp": ("dets", "labels", "matrix", "size")}
MAKES = {"decode": ("pixels", "size"), "warp": ("warped", "matrix"), "normalise": ("input", "frame"), "network": ("raw",), "boxes": ("boxes", "scores"),
         "nms": ("dets", "labels"), "unwarp": ("result",)}
State = dict[str, np.ndarray]


class Stages:
    """One side's stages. `plant`: (stage, factor), an error that is put in on purpose, or None."""

    def __init__(self, run: Run, task: Mapping[str, Any]):
        self.backend, self.config = run.backend, run.ready(dict(task))
        self.dataset = open_test_set(self.config, task.get("images"), task.get("annotations"))
        self.tester, self.val = self.backend.tester(), self.config.data.val
        self.plant = task.get("plant") or (None, 1.0)
        self.infos = {}

    def info(self, index: int) -> dict[str, Any]:
        if index not in self.infos:
            self.infos[index] = self.dataset.info(index)
        return self.infos[index]

    def run(self, stage: str, index: int, state: State) -> State:
        """The stage's arrays for picture `index` from what it takes out of `state`, with the planted error if it is this stage's."""
        made = dict(zip(MAKES[stage], getattr(self, stage)(index, *(state[name] for name in TAKES[stage]))))
        return planted(stage, made, self.plant[1]) if stage == self.plant[0] else made

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = self.dataset.load(index)
        return pixels, np.array([pixels.shape[1], pixels.shape[0]])

    def warp(self, index: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As at test time: a pipeline that draws nothing."""
        return shape_transform(pixels, PipelineConfig(normalize=self.val.pipeline.normalize), tuple(self.val.input_size), self.val.keep_ratio, random.Random(0))

    def normalise(self, index: int, warped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        plain = PipelineConfig(normalize=self.val.pipeline.normalize)
        planes = normalise_planes(colour_transform(warped, plain, random.Random(0)), self.val.pipeline.normalize)
        return planes, np.array(planes.shape[1:])

    def network(self, index: int, image: np.ndarray) -> tuple[np.ndarray]:
        return (self.backend.network(image[None])[0],)

    def boxes(self, index: int, raw: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = self.backend.decode_raw(raw[None], tuple(int(n) for n in frame))
        return boxes[0], scores[0]

    def nms(self, index: int, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dets, labels, _ = self.tester.multiclass_nms(self.backend.host(boxes), self.backend.host(scores))
        return np.asarray(dets), np.asarray(labels)

    def unwarp(self, index: int, dets: np.ndarray, labels: np.ndarray, matrix: np.ndarray, size: np.ndarray) -> tuple[np.ndarray]:
        """(n, 6) float64: x, y, w, h, score, category."""
        info = {"id": 0, "width": int(size[0]), "height": int(size[1])}
        entries = detections_to_coco(dets, labels, info, matrix, self.dataset.cat_ids)
        return (np.array([[*e["bbox"], e["score"], e["category_id"]] for e in entries], np.float64).reshape(-1, 6),)

    def chain(self, index: int, state: State, after: str | None = None) -> State:
        """`state` with everything behind stage `after` made anew; from the file for None."""
        state, stages = dict(state), list(MAKES)
        for stage in stages[stages.index(after) + 1 if after else 0:]:
            state.update(self.run(stage, index, state))
        return state


def planted(stage: str, made: State, factor: float) -> State:
    """A stage's arrays with an error of `factor`: values times it; for the warp, the picture enlarged by it while the matrix says it was not."""
    made = dict(made)
    if stage == "decode":
        made["pixels"] = np.clip(np.rint(made["pixels"] * factor), 0, 255).astype(np.uint8)
    elif stage == "warp":
        height, width = made["warped"].shape[:2]
        made["warped"] = cv2.warpPerspective(made["warped"], np.diag([factor, factor, 1.0]), (width, height))
    elif stage in ("nms", "unwarp"):
        name = MAKES[stage][0]
        made[name] = made[name] * np.where(np.arange(made[name].shape[1]) < 4, factor, 1.0).astype(made[name].dtype)
    else:
        name = MAKES[stage][0]
        made[name] = made[name] * np.asarray(factor, made[name].dtype)
    return made


def swap(run: Run, task: dict[str, Any]) -> dict[str, Any]:
    """Serve orders until standard input closes. `do`: chain, each, continue or metric; see the functions below."""
    stages = Stages(run, task)
    print(json.dumps({"ready": True, "images": len(stages.dataset), "annotated": stages.dataset.coco is not None, "weights_sha256": run.weights_sha256,
                      "stages": list(MAKES)}), flush=True)
    orders = {"chain": chain, "each": each, "continue": go_on, "metric": metric}
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(orders[order["do"]](run, task, stages, order)), flush=True)
    return {"peak_memory_mb": peak_memory_mb(), "config_sha256": stages.config.sha256(), "weights_sha256": run.weights_sha256}


def bundle(run: Run, task: dict[str, Any], stages: Stages, path: str, indices: list[int]) -> BundleWriter:
    return BundleWriter(path, run.header(task, stages.config, array_sha256(np.array(indices))))


def chain(run: Run, task: dict[str, Any], stages: Stages, order: dict[str, Any]) -> dict[str, Any]:
    """Every stage of this side on its own input, from the files; all arrays are kept."""
    with bundle(run, task, stages, order["output"], order["indices"]) as out:
        for index in order["indices"]:
            for name, array in stages.chain(index, {}).items():
                out.add(f"{index}/{name}", array)
        out.close()
    return {"image_ids": [int(stages.info(index)["id"]) for index in order["indices"]]}


def each(run: Run, task: dict[str, Any], stages: Stages, order: dict[str, Any]) -> dict[str, Any]:
    """Each stage of this side on the *other* side's input of that stage. Where this is bit for bit its own input, its own output is the answer."""
    other, own = Bundle.open(order["other"]), Bundle.open(order["own"])
    different: dict[str, int] = dict.fromkeys(MAKES, 0)
    with bundle(run, task, stages, order["output"], order["indices"]) as out:
        for index in order["indices"]:
            for stage, names in MAKES.items():
                if all(other.sha256(f"{index}/{name}") == own.sha256(f"{index}/{name}") for name in TAKES[stage]):
                    made = {name: own[f"{index}/{name}"] for name in names}
                else:
                    made = stages.run(stage, index, {name: np.array(other[f"{index}/{name}"]) for name in TAKES[stage]})
                different[stage] += any(array_sha256(made[name]) != other.sha256(f"{index}/{name}") for name in names)
                for name, array in made.items():
                    out.add(f"{index}/{stage}/{name}", array)
        out.close()
    return {"different": different}


def go_on(run: Run, task: dict[str, Any], stages: Stages, order: dict[str, Any]) -> dict[str, Any]:
    """This side's pipeline with one stage of the other side in it, for each stage in turn: what `each` of the other side made, and its own stages behind it."""
    own, swapped = Bundle.open(order["own"]), Bundle.open(order["swapped"])
    with bundle(run, task, stages, order["output"], order["indices"]) as out:
        for index in order["indices"]:
            for stage, names in MAKES.items():
                if all(swapped.sha256(f"{index}/{stage}/{name}") == own.sha256(f"{index}/{name}") for name in names):
                    result = own[f"{index}/result"]
                else:
                    kept = {name: np.array(own[f"{index}/{name}"]) for done in MAKES for name in MAKES[done]}
                    changed = {name: np.array(swapped[f"{index}/{stage}/{name}"]) for name in names}
                    result = stages.chain(index, {**kept, **changed}, stage)["result"]
                out.add(f"{index}/{stage}/result", result)
        out.close()
    return {}


def metric(run: Run, task: dict[str, Any], stages: Stages, order: dict[str, Any]) -> dict[str, Any]:
    """COCO's numbers of a list of detections, judged on the pictures that were run."""
    found = json.loads(Path(order["results"]).read_text(encoding="utf-8"))
    metrics = CocoEvaluator(of_images(stages.dataset.coco, order["image_ids"])).evaluate(found)
    factor = stages.plant[1] if stages.plant[0] == "metric" else 1.0
    return {name: metrics[name] * factor for name in METRIC_NAMES}

"""Run a detector over pictures: detections in COCO's format, the metric, the time of each phase.

    python -m jt_nanodet test configs/nanodet-plus-m_320.yml --checkpoint weights.pkl --images DIR --annotations FILE.json --save-results out.json
"""
import argparse
import contextlib
import hashlib
import json
import sys
import time

import numpy as np

from . import runtime  # differs: Jittor is imported through it, once the device is known
from .checkpoint import check_finite, read_weights, replacing
from .config import METRIC_NAMES, load_config
from .data.evaluator import CocoEvaluator, detections_to_coco
from .data.testset import open_test_set, test_batches
from .postprocess import SCORE_THRESHOLD, multiclass_nms


def detect(model, head, images, plain=False):
    """Decoded boxes (B, P, 4) and scores (B, P, C) of images (B, 3, H, W) float32 in NumPy; waits for the device.

    # differs: on the CPU through jt_nanodet/engine, one operation for the whole network, unless `plain` or it does not know a layer
    """
    if not plain:
        from .engine.choice import attempt

        found = attempt(model, images)
        if found is not None:
            return found
    # differs: importing Jittor starts it, and `runtime` must have chosen the device before
    import jittor as jt

    from .decode import decode

    with jt.no_grad():
        raw = model(jt.array(images))  # differs: Jittor places every Var itself
        boxes, scores = decode(raw, model.head.distribution_project, head, images.shape[2:])
    return boxes.numpy(), scores.numpy()  # differs: suppression runs on the host


def run(model, config, task, say):
    """Detect on a whole test set.

    task: images, annotations (paths or None), batch_size, limit. say(text) gets progress. Returns a dict: `detections` (COCO entries),
    `candidates` (arrays of everything above the score threshold before suppression), `images`, `metrics` (None without annotations), `phases`
    (seconds of each phase for every batch), `class_names`.
    """
    dataset = open_test_set(config, task.get("images"), task.get("annotations"))
    head, batch_size = config.model.arch.head, task.get("batch_size", 8)
    detections, infos, candidates = [], [], []
    phases = {"preprocess": [], "forward": [], "postprocess": [], "images": []}
    total = min(len(dataset), task.get("limit") or len(dataset))
    started = mark = shown = time.perf_counter()
    for batch in test_batches(dataset, batch_size, total):
        loaded = time.perf_counter()
        boxes, scores = detect(model, head, batch["img"], plain=bool(task.get("plain")))  # differs: only here is there a choice
        computed = time.perf_counter()
        for i, (info, matrix) in enumerate(zip(batch["img_info"], batch["warp_matrix"])):
            dets, labels, _ = multiclass_nms(boxes[i], scores[i])
            detections += detections_to_coco(np.asarray(dets), np.asarray(labels), info, matrix, dataset.cat_ids)
            pixels = batch["img"][i]
            infos.append({**info, "input_width": pixels.shape[2], "input_height": pixels.shape[1], "input_mean": float(pixels.mean()),
                          "input_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()})
            if task.get("keep_candidates"):
                candidates += before_suppression(boxes[i], scores[i], info, matrix, dataset.cat_ids)
        done = time.perf_counter()
        for name, seconds in (("preprocess", loaded - mark), ("forward", computed - loaded), ("postprocess", done - computed), ("images", len(batch["img"]))):
            phases[name].append(seconds)
        mark = done
        if done - shown > 2 or len(infos) == total:
            shown = done
            say(f"{len(infos)} of {total} images, {(done - started) / len(infos) * (total - len(infos)):.0f} s left")
    metrics = None
    if dataset.coco is not None and total == len(dataset):
        metrics = CocoEvaluator(dataset).evaluate(detections)
    return {"detections": detections, "candidates": candidates, "images": infos, "metrics": metrics, "phases": phases, "class_names": dataset.class_names,
            "cat_ids": list(dataset.cat_ids), "source": dataset.source, "path": path_taken(model, bool(task.get("plain")))}  # differs: the engine or not


def path_taken(model, plain):
    """How the network was computed, as a sentence."""  # differs: there it is always PyTorch
    from .engine.choice import path_taken as of

    return of(model, plain)


def before_suppression(boxes, scores, info, matrix, cat_ids):
    """Everything above the score threshold, as COCO entries."""
    prior, label = np.nonzero(np.asarray(scores) > np.float32(SCORE_THRESHOLD))
    dets = np.concatenate((np.asarray(boxes)[prior], np.asarray(scores)[prior, label][:, None]), axis=1)
    return detections_to_coco(dets, label, info, matrix, cat_ids)


def show(metrics):
    """COCO's 12 numbers and the AP of every class, as text."""
    lines = [f"{name:9s} {metrics[name]:.4f}" for name in METRIC_NAMES]
    known = {k: v for k, v in metrics["per_class"].items() if v is not None}
    return "\n".join(lines + [f"AP {name:20s} {value:.4f}" for name, value in known.items()])


def read_checkpoint(path):
    """Weights of a .npz or .pkl file, finite."""  # differs: a .pth is PyTorch's, and goes through weights_convert
    weights = read_weights(path)
    check_finite(weights, path)
    return weights


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet test", description=__doc__.split("\n\n")[0])
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--checkpoint", metavar="FILE", required=True, help="weights: .pkl or .npz")  # differs: no .pth
    parser.add_argument("--images", metavar="DIR", help="folder of pictures; default: the configuration's validation set")
    parser.add_argument("--annotations", metavar="FILE", help="COCO annotations of these pictures")
    parser.add_argument("--save-results", metavar="FILE.json", help="write the detections here, in COCO's result format")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--limit", type=int, help="only the first so many pictures")
    parser.add_argument("--plain", action="store_true", help="compute the ordinary graph, layer by layer, not the CPU engine")  # differs: no engine there
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args(argv)
    config = load_config(args.config)
    runtime.setup(args.device)  # differs: chooses the device for the whole process, and refuses one that is not there
    from .detector import build_model, load_state

    with contextlib.ExitStack() as stack:
        # opened first: an unwritable place must not be found out after the work
        file = stack.enter_context(replacing(args.save_results)) if args.save_results else None
        model = build_model(config.model.arch)
        load_state(model, read_checkpoint(args.checkpoint), training_branch=False)
        task = {"images": args.images, "annotations": args.annotations, "batch_size": args.batch_size, "limit": args.limit,
                "plain": args.plain}  # differs: no engine there
        document = run(model, config, task, lambda text: print(text, file=sys.stderr))
        if file is not None:
            file.write(json.dumps(document["detections"]).encode())
    print(f"{len(document['detections'])} detections on {len(document['images'])} images")
    print(document["path"])  # differs: no engine there
    if document["metrics"]:
        print(show(document["metrics"]))
    return 0

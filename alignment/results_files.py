"""Two files of detections in COCO's result format, from any program, compared alone: no model runs and no framework starts.

The floor of boxes and scores cannot be measured from two files. It is taken from a run of `alignment.infer` (``--floor-from``); without one it is what
the files themselves cannot tell apart: half a unit of the last printed digit on either side, and one float32 step at the largest number.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from alignment import bootstrap
from alignment.cli import say
from alignment.detections import DetectionFloor, Rules, compare_detections
from alignment.infer_judge import listed, metric_row, metrics
from alignment.result import Result, read_result
from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.errors import UserError

#: Numbers of each file that are looked at for their digits.
SAMPLE = 4000


def arguments(parser: argparse.ArgumentParser) -> None:
    rules = Rules()
    group = parser.add_argument_group("two files of detections, without running a model")
    group.add_argument("--pytorch-results", metavar="FILE.json", type=Path, help="detections of the reference, in COCO's result format")
    group.add_argument("--jittor-results", metavar="FILE.json", type=Path, help="detections of the candidate")
    group.add_argument("--floor-from", metavar="DIR", type=Path, help="take the measured floor from this result of alignment.infer")
    group.add_argument("--score-threshold", metavar="X", type=float, default=rules.score_threshold, help="of the program that wrote them (default: %(default)s)")
    group.add_argument("--nms-iou", metavar="X", type=float, default=rules.nms_iou, help="likewise (default: %(default)s)")
    group.add_argument("--max-per-image", metavar="N", type=int, default=rules.max_per_image, help="likewise (default: %(default)s)")


def read(path: Path) -> list[dict[str, Any]]:
    """The detections of a file. UserError for anything that is not a list of COCO results with finite numbers."""
    again = "give a JSON list of {image_id, category_id, bbox: [x, y, w, h], score}"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): {again}") from None
    if not isinstance(found, list):
        raise UserError(f"{path} holds no list of detections: {again}")
    for number, one in enumerate(found):
        good = isinstance(one, dict) and isinstance(one.get("bbox"), list) and len(one["bbox"]) == 4 and all(
            type(one.get(key)) is int for key in ("image_id", "category_id"))
        values = [*one["bbox"], one.get("score")] if good else [None]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values):
            raise UserError(f"entry {number} of {path} is no detection with finite numbers: {again}")
    return found


def half_unit(values: list[float]) -> float:
    """Half a unit of the last digit with which these numbers were printed; 0 for numbers printed in full."""
    digits = max((len(repr(float(v)).partition("e")[0].partition(".")[2].rstrip("0")) + (-int(repr(float(v)).partition("e")[2] or 0)) for v in values), default=0)
    return 0.5 * 10.0 ** -digits if digits < 12 else 0.0


def floor_of(ref: list[dict], cand: list[dict]) -> DetectionFloor:
    """What the two files cannot tell apart, in score and in pixels of a corner (x and w are each printed)."""
    found = []
    for values, parts in ((lambda d: [d["score"]], 1), (lambda d: d["bbox"], 2)):
        units = [half_unit([v for d in side[:SAMPLE] for v in values(d)]) for side in (ref, cand)]
        top = max((abs(v) for side in (ref, cand) for d in side for v in values(d)), default=1.0)
        found.append(parts * (sum(units) + float(np.spacing(np.float32(top)))))
    return DetectionFloor(*found)


def compare(args: argparse.Namespace) -> Result:
    """The result of comparing ``--pytorch-results`` with ``--jittor-results``. UserError for unusable input."""
    if not (args.pytorch_results and args.jittor_results):
        lacking = "--jittor-results" if args.pytorch_results else "--pytorch-results"
        raise UserError(f"one file of detections has nothing to be compared with: add {lacking} FILE.json")
    for flag in ("pytorch_model", "jittor_model", "test_images", "sizes", "round_weights", "limit"):
        if getattr(args, flag):
            raise UserError(f"two files of detections are compared as they are: leave out --{flag.replace('_', '-')}")
    if args.pytorch_results.resolve() == args.jittor_results.resolve():
        raise UserError(f"{args.pytorch_results} was given for both sides: name two files")
    started = time.perf_counter()
    ref, cand = read(args.pytorch_results), read(args.jittor_results)
    said_read = time.perf_counter()
    if args.floor_from:
        said = read_result(args.floor_from).get("detections", {}).get("floor")
        if not said:
            raise UserError(f"{args.floor_from} holds no floor of detections: name the output of a run of alignment.infer with --floor-from")
        floor, source = DetectionFloor(said["score"], said["box"]), f"measured, {args.floor_from}"
    else:
        floor, source = floor_of(ref, cand), "the files' own resolution: printed digits and one float32 step"
    evaluator = CocoEvaluator(args.annotations) if args.annotations else None
    infos = evaluator.coco.imgs if evaluator else {}
    rules = Rules(args.score_threshold, args.nms_iou, args.max_per_image)
    diff = compare_detections(ref, cand, floor=floor, rules=rules, sizes={k: (v["width"], v["height"]) for k, v in infos.items() if "width" in v})
    matched = time.perf_counter()
    say(f"{diff.total_ref} and {diff.total_cand} detections are matched" + (f"; {args.resamples} draws of {len(infos)} images" if evaluator else ""), args.verbosity)
    both = bootstrap.evaluate_sides(evaluator.coco, ref, cand, resamples=args.resamples, seed=args.seed) if evaluator else {}
    result = Result("infer", device="none", seeds={"seed": args.seed})
    result.durations = {"read": said_read - started, "match": matched - said_read, "metric_and_bootstrap": time.perf_counter() - matched}
    result.add(diff.row())
    names = dict(zip(evaluator.cat_ids, evaluator.class_names)) if evaluator else {k: str(k) for k in sorted({d["category_id"] for d in ref + cand})}
    found = both.get("metrics", [None, None])
    if evaluator:
        result.add(metric_row(name, found[0][name], found[1][name]) for name in METRIC_NAMES)
    else:
        result.leave_out("COCO metric", "no annotations were given: add --annotations FILE.json")
    result.parts = {"images": diff.images, "detections": listed(diff, names, {k: v.get("file_name", "") for k, v in infos.items()}), "floor_source": source,
                    "source": [str(args.pytorch_results), str(args.jittor_results)], "metrics": metrics(*found),
                    "categories": [{"id": k, "name": v} for k, v in names.items()]}
    result.parts.update({name: both[name] for name in ("precision", "bootstrap") if both.get(name)})
    result.leave_out("frames per second", "two files of detections have no speed")
    return result

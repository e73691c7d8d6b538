"""``python -m alignment.infer``: the same pictures through both sides; detections matched one to one, COCO's numbers, frames per second.

    python -m alignment.infer --config C.yml --pytorch-model A.pth --jittor-model B.pkl --test-images DIR [--annotations FILE.json] --output DIR
    python -m alignment.infer --pytorch-results A.json --jittor-results B.json [--annotations FILE.json] --output DIR
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import reports
import weights_convert
from alignment import bootstrap, inputs, results_files, speed, upstream, upstream_repo
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.infer_judge import FLOOR_IMAGES, TWIN, judge
from alignment.layers import weight_arguments
from alignment.result import Result
from alignment.runners import child
from jt_nanodet.checkpoint import write_weights
from jt_nanodet.config import METRIC_NAMES, load_config, with_input_size
from jt_nanodet.data.testset import open_test_set
from jt_nanodet.errors import UserError

PICTURES = 4


def task(side: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What the runner of `side` is asked to do; options: images, annotations, batch_size, limit."""
    floor = {"floor_images": FLOOR_IMAGES} if side == "pytorch" else {}
    options = {k: v for k, v in options.items() if k != "plain" or side == "jittor"}
    return {"kind": "detect", "output": str(folder / f"{side}.detections.json"), "keep_candidates": True, **options, **floor}


def pictures(folder: Path, result: Result, dataset: Any = None) -> list[dict[str, Any]]:
    """A few images with both sides' detections: those with differences first, then those with most objects. With `dataset` they are written too."""
    sides = {side: json.loads((folder / f"{side}.detections.json").read_text(encoding="utf-8")) for side in child.MODULES}
    names = {c["id"]: c["name"] for c in result.parts["categories"]}
    found: dict[str, dict[int, list]] = {side: {} for side in sides}
    for side, document in sides.items():
        for one in document["detections"]:
            found[side].setdefault(one["image_id"], []).append({"bbox": one["bbox"], "score": one["score"], "category": names.get(one["category_id"])})
    rank: dict[int, int] = {}  # 0: one side lacks a detection there, 1: something moved
    for part in ("detections", "weights_change"):
        for one in result.parts.get(part, {}).get("differences", []):
            rank[one["image_id"]] = min(rank.get(one["image_id"], 1), int(one["kind"] == "moved"))
    infos = sorted(enumerate(sides["pytorch"]["images"]), key=lambda e: (rank.get(e[1]["id"], 2), -len(found["pytorch"].get(e[1]["id"], [])), e[0]))
    chosen = []
    for index, info in infos[:PICTURES]:
        name = f"{index:04d}.png"
        if dataset is not None:
            (folder / "pictures").mkdir(exist_ok=True)
            cv2.imwrite(str(folder / "pictures" / name), dataset.load(index))
        chosen.append({"image_id": info["id"], "file_name": info["file_name"], "path": f"pictures/{name}",
                       **{side: found[side].get(info["id"], []) for side in sides}})
    return chosen


def save_detections(folder: Path) -> None:
    """The two lists in plain COCO format, for any other program; the runners' files keep what the judge needed."""
    for side in child.MODULES:
        document = json.loads((folder / f"{side}.detections.json").read_text(encoding="utf-8"))
        temporary = folder / f".{side}.coco.json"
        temporary.write_text(json.dumps(document["detections"]), encoding="utf-8")
        temporary.replace(folder / f"{side}.coco.json")


def run(folder: Path, given: dict[str, dict[str, Any]], options: dict[str, Any], *, rounds: int, verbosity: int, done: bool = False, resamples: int = 0,
        twin: Path | None = None, batch_sizes: tuple[int, ...] = (1,)) -> Result:
    """Detect on both sides (unless `done`), judge, resample, time, choose pictures. `given`: the common task entries of each side; `twin`: the
    candidate's weights were rounded, and the reference runs with these, its own weights rounded, too."""
    for side in () if done else child.MODULES:
        say(f"{side}: detections", verbosity)
        tasks = [task(side, folder, options)]
        if twin and side == "pytorch":
            tasks.append({**tasks[0], "output": str(folder / TWIN), "floor_images": 0, "weights": str(twin)})
        child.run(side, tasks, given[side], folder, verbosity=verbosity)
    result = judge(folder, given["pytorch"], twin is not None)
    config = with_input_size(load_config(given["pytorch"]["config"]), given["pytorch"].get("input_size"))
    dataset = open_test_set(config, options.get("images"), options.get("annotations"))
    result.parts["pictures"] = pictures(folder, result, dataset)
    save_detections(folder)
    found = [json.loads((folder / f"{side}.coco.json").read_text(encoding="utf-8")) for side in child.MODULES]
    if result.parts["metrics"]:
        say(f"intervals: {resamples} draws of {result.parts['images']} images" if resamples else "precision over recall", verbosity)
        both = bootstrap.evaluate_sides(dataset, *found, resamples=resamples, seed=given["pytorch"]["seed"])
        result.parts.update({name: both[name] for name in ("precision", "bootstrap") if both[name]})
    if rounds:
        say(f"frames per second: {rounds} rounds, in turn", verbosity)
        where = {k: options[k] for k in ("images", "annotations") if options.get(k)}
        result.parts["fps"] = speed.measure(folder, {
            "pytorch": {**given["pytorch"], **where}, "jittor": {**given["jittor"], **where, "plain": bool(options.get("plain"))}},
            rounds=rounds, batch_sizes=batch_sizes)
    else:
        result.leave_out("frames per second", "switched off with --rounds 0")
    return result


def rounded_weights(source: Path, kind: str, folder: Path, side: str) -> Path:
    """A copy of a side's weights whose floating values went through `kind` and back to float32."""
    weights = {k: v.astype(kind).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in weights_convert.load(source).weights.items()}
    path = folder / f"{side}.{kind}.npz"
    if not all(np.isfinite(v).all() for v in weights.values()):
        raise UserError(f"{source} holds weights beyond the range of {kind}: give another --round-weights")
    write_weights(path, weights)
    return path


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.infer", description=__doc__.split("\n\n")[0], parents=[parent_parser(config_required=False)],
                                     epilog="example: python -m alignment.infer --config configs/shapes.yml --output out")
    weight_arguments(parser)
    parser.add_argument("--test-images", metavar="DIR", type=Path, help="folder of pictures, one picture, or a video; default: the configuration's validation set")
    parser.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures: adds the mAP table and its bootstrap")
    parser.add_argument("--sizes", metavar="N", type=int, nargs="+", help="input sizes, each compared in a folder of its own; default: the configuration's")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="images at once (default: 8)")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N pictures (then no mAP)")
    parser.add_argument("--resamples", metavar="N", type=int, default=bootstrap.RESAMPLES, help="draws of the bootstrap; 0 leaves it out (default: 1000)")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="timing rounds of each side; 0 leaves the timing out (default: 5)")
    parser.add_argument("--batch-sizes", metavar="N", type=int, nargs="+", default=[1], help="batch sizes that are timed (default: 1)")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    parser.add_argument("--plain", action="store_true", help="the port's ordinary graph, not its CPU engine")
    parser.add_argument("--round-weights", choices=("float16",), help="round the port's weights to this: what does the precision of the file cost?")
    results_files.arguments(parser)
    upstream_repo.arguments(parser)
    args = parser.parse_args(argv)
    if args.torch_repo and (args.pytorch_results or args.jittor_results):
        raise UserError("--torch-repo says what the reference is built from, and two files of results are there already: leave one of them out")
    clone = upstream_repo.for_reference(args)
    folder = prepare_output(args.output)
    inputs.check_arguments(args)
    for flag, values in (("--sizes", args.sizes or []), ("--batch-sizes", args.batch_sizes)):
        if any(value < 1 for value in values) or len(set(values)) != len(values):
            raise UserError(f"{flag} {' '.join(map(str, values))}: give different numbers of at least 1")
    if args.pytorch_results or args.jittor_results:
        result = results_files.compare(args)
        print(text(result)) if args.verbosity >= 0 else None
        return shown(result, folder, args.verbosity)
    if args.config is None:
        raise UserError("neither --config nor --pytorch-results was given: type --config configs/nanodet-plus-m_320.yml, or name two files of results")
    if args.round_weights and not args.pytorch_model:
        raise UserError("--round-weights needs weights to round: add --pytorch-model FILE")
    config = load_config(args.config)
    options = {"images": str(args.test_images) if args.test_images else None, "annotations": str(args.annotations) if args.annotations else None,
               "batch_size": args.batch_size, "limit": args.limit, "plain": args.plain}
    for size in args.sizes or [None]:  # what is wrong with the data is said before anything runs
        open_test_set(with_input_size(config, size), options["images"], options["annotations"])
    common = {"config": str(args.config), "device": args.device, "seed": args.seed, "threads": args.threads}
    models = {"pytorch": args.pytorch_model, "jittor": args.jittor_model or args.pytorch_model}
    twin = None
    if args.round_weights:
        # Each side's own file: were the twin given the port's, a fault in that file would be its own explanation.
        twin = rounded_weights(models["pytorch"], args.round_weights, folder, "pytorch")
        models["jittor"] = rounded_weights(models["jittor"], args.round_weights, folder, "jittor")
    found: dict[int | None, Result] = {}
    for size in args.sizes or [None]:
        given = {side: {**common, "weights": str(models[side]) if models[side] else None, "input_size": size, **(clone if side == "pytorch" else {})} for side in child.MODULES}
        place = folder / f"size_{size}" if args.sizes and len(args.sizes) > 1 else folder
        place.mkdir(exist_ok=True)
        shutil.rmtree(place / "pictures", ignore_errors=True)
        say(f"input size {size}", args.verbosity if size else -1)
        found[size] = run(place, given, options, rounds=args.rounds, verbosity=args.verbosity, resamples=args.resamples, twin=twin,
                          batch_sizes=tuple(args.batch_sizes))
        if clone:
            upstream.add_to(found[size], given["pytorch"], with_input_size(config, size), place, clone, args.verbosity, options)
        if args.verbosity >= 0:
            print(f"input size {size}" if size else "", text(found[size]), sep="\n" if size else "")
        if place != folder:
            found[size].write(place)
            reports.write(place)
    return shown(joined(found), folder, args.verbosity)


def shown(result: Result, folder: Path, verbosity: int) -> int:
    """Write the result and its pages, print the summary and the last line; the exit code."""
    result.parts["command_line"] = ["python", "-m", "alignment.infer", *sys.argv[1:]]
    result.write(folder)
    page = reports.write(folder)["html"]
    say(f"report: {page}", verbosity)
    return finish(result, folder, verbosity=verbosity)


def joined(found: dict[int | None, Result]) -> Result:
    """One result over several input sizes: rows named by size, the parts of the first size on top, all of them under ``sizes``."""
    if len(found) == 1:
        return next(iter(found.values()))
    first = next(iter(found.values()))
    result = Result("infer", device=first.device, seeds=first.seeds, versions=first.versions, hashes=first.hashes, parts=copy.copy(first.parts))
    for size, one in found.items():
        result.add(dataclasses.replace(row, name_ref=f"{size}: {row.name_ref}", name_cand=f"{size}: {row.name_cand}") for row in one.rows())
        result.objections += one.objections
        result.not_run += [entry for entry in one.not_run if entry not in result.not_run]
        for side, seconds in one.durations.items():
            result.durations[side] = result.durations.get(side, 0.0) + seconds
        for picture in one.parts["pictures"]:
            picture["path"] = f"size_{size}/{picture['path']}"
    result.parts["sizes"] = {str(size): one.parts for size, one in found.items()}
    return result


def text(result: Result) -> str:
    """The tables for the terminal."""
    d, lines = result.parts["detections"], []
    lines.append(f"{d['total_ref']} and {d['total_cand']} detections on {result.parts['images']} images: {d['matched']} matched, {d['moved']} moved, "
                 f"{d['missing']} missing, {d['extra']} extra, {d['relabelled']} relabelled, {d['unexplained']} unexplained")
    lines.append(f"largest difference: {d['max_box_diff']:.3g} pixels, {d['max_score_diff']:.3g} in score "
                 f"(floor {d['floor']['box']:.3g} and {d['floor']['score']:.3g})")
    if result.parts.get("path"):
        lines.append(f"jittor: {result.parts['path']}")
    change = result.parts.get("weights_change")
    for title, part in (("causes", d), ("made by the rounded weights", change)):
        if part and part["causes"]:
            lines.append(f"{title}: " + ", ".join(f"{count} {cause}" for cause, count in sorted(part["causes"].items())))
    found, drawn = result.parts["metrics"], result.parts.get("bootstrap")
    if found:
        lines.append(f"{'':9s} {'pytorch':>10s} {'jittor':>10s} {'difference':>11s}" + (f"  {'95 % interval':>23s}  images to decide" if drawn else ""))
        for n in METRIC_NAMES:
            row = drawn["metrics"].get(n) if drawn else None
            more = f"  {row['low']:+11.2e} {row['high']:+11.2e}  {row['images_needed'] or '-'}" if row else ""
            lines.append(f"{n:9s} {found['pytorch'][n]:10.6f} {found['jittor'][n]:10.6f} {found['delta'][n]:+11.2e}{more}")
    fps = result.parts.get("fps")
    if fps:
        lines += [f"{side:8s} {fps[side]['fps']:7.1f} images/s, {fps[side]['median_ms']:.1f} ms ({fps[side]['p20_ms']:.1f} to {fps[side]['p80_ms']:.1f})"
                  for side in child.MODULES]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_cli(main))

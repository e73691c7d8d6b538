"""``python -m alignment.infer``: the same pictures through both sides; detections matched one to one, COCO's numbers, frames per second.

    python -m alignment.infer --config C.yml --pytorch-model A.pth --jittor-model B.pkl --test-images DIR [--annotations FILE.json] --output DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2

from alignment import inputs, speed
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.detections import DetectionDiff, DetectionFloor, compare_detections
from alignment.layers import weight_arguments
from alignment.noise import METRIC_BOUND, Floor, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from jt_nanodet.config import METRIC_NAMES, load_config
from jt_nanodet.data.testset import open_test_set

#: Images on which the reference measures the floor of boxes and scores.
FLOOR_IMAGES = 4
PICTURES = 4


def task(side: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What the runner of `side` is asked to do; options: images, annotations, batch_size, limit."""
    floor = {"floor_images": FLOOR_IMAGES} if side == "pytorch" else {}
    options = {k: v for k, v in options.items() if k != "plain" or side == "jittor"}
    return {"kind": "detect", "output": str(folder / f"{side}.detections.json"), "keep_candidates": True, **options, **floor}


def judge(folder: Path, common: dict[str, Any]) -> Result:
    """The result from both sides' files in `folder`; the frames per second are added by the caller."""
    ref, cand = (json.loads((folder / f"{side}.detections.json").read_text(encoding="utf-8")) for side in child.MODULES)
    result = Result("infer", device=common["device"], seeds={"seed": common["seed"]}, versions={**ref["versions"], **cand["versions"]})
    result.hashes = {"config": ref["config_sha256"], "weights_pytorch": ref["weights_sha256"], "weights_jittor": cand["weights_sha256"],
                     "code_pytorch": ref["code_sha256"], "code_jittor": cand["code_sha256"]}
    result.durations = {"pytorch": ref["seconds"], "jittor": cand["seconds"]}
    images = [[i["id"] for i in side["images"]] for side in (ref, cand)]
    if images[0] != images[1]:
        result.object(Reason.INPUTS_DIFFER, f"the sides saw {len(images[0])} and {len(images[1])} images, or other ones")
    diff = compare(ref, cand, images[0])
    result.add(diff.row())
    if ref["metrics"] and cand["metrics"]:
        result.add(metric_row(name, ref["metrics"][name], cand["metrics"][name]) for name in METRIC_NAMES)
    else:
        result.leave_out("COCO metric", "no annotations were given: add --annotations FILE.json")
    document = diff.to_json()
    names = dict(zip(ref["cat_ids"], ref["class_names"]))
    files = {i["id"]: i["file_name"] for i in ref["images"]}
    document["differences"] = [described(one, names, files) for one in document["differences"]]
    result.parts = {
        "images": len(images[0]), "detections": document, "weights_equal": ref["weights_sha256"] == cand["weights_sha256"], "source": ref["source"],
        "path": cand.get("path"),
        "metrics": metrics(ref["metrics"], cand["metrics"]), "peak_memory_mb": {"pytorch": ref["peak_memory_mb"], "jittor": cand["peak_memory_mb"]},
        "categories": [{"id": k, "name": v} for k, v in names.items()],
    }
    return result


def compare(ref: dict[str, Any], cand: dict[str, Any], images: list[int]) -> DetectionDiff:
    """Matching with the measured floor. A box floor is measured in input pixels and holds for pictures by their enlargement."""
    floors = ref.get("floor") or {}
    bounds = {}
    for name in ("boxes", "scores"):
        if name in floors:
            frozen = Floor(**{k: tuple(v) if isinstance(v, list) else v for k, v in floors[name].items()})
            # the floor was measured on a few images and must hold for the largest error of all of them
            bounds[name] = tolerance_from_floor(dataclasses.replace(frozen, size=max(frozen.size, frozen.size * len(images) // FLOOR_IMAGES))).bound
    enlargement = max((max(i["width"] / i.get("input_width", i["width"]), i["height"] / i.get("input_height", i["height"])) for i in ref["images"]), default=1.0)
    floor = DetectionFloor(score=bounds.get("scores", 0.0), box=bounds.get("boxes", 0.0) * enlargement)
    return compare_detections(ref["detections"], cand["detections"], floor=floor, candidates_ref=ref["candidates"], candidates_cand=cand["candidates"])


def metric_row(name: str, ref: float, cand: float) -> TensorResult:
    delta = abs(cand - ref)
    ok = delta < METRIC_BOUND
    return TensorResult(name, name, Verdict.PASS if ok else Verdict.FAIL, Reason.OK if ok else Reason.METRIC_DIFFERS, Gate.BOUND, stage="metric", size=1,
                        max_abs=delta, value_ref=ref, value_cand=cand, tolerance=METRIC_BOUND, tolerance_source="fixed bound of COCO numbers",
                        hint="" if ok else f"{ref:.6f} and {cand:.6f}")


def metrics(ref: dict[str, Any] | None, cand: dict[str, Any] | None) -> dict[str, Any] | None:
    if not ref or not cand:
        return None
    classes = {k: (cand["per_class"][k] - v) if v is not None and cand["per_class"].get(k) is not None else None for k, v in ref["per_class"].items()}
    return {"pytorch": ref, "jittor": cand, "delta": {**{k: cand[k] - ref[k] for k in METRIC_NAMES}, "per_class": classes}}


def described(one: dict[str, Any], names: dict[int, str], files: dict[int, str]) -> dict[str, Any]:
    """A difference with what people know it by: file name and class."""
    def side(end: str) -> dict[str, Any] | None:
        return None if one[f"box_{end}"] is None else {"bbox": one[f"box_{end}"], "score": one[f"score_{end}"], "category": names.get(one[f"category_{end}"])}

    category = one["category_ref"] if one["category_ref"] is not None else one["category_cand"]
    return {**one, "file_name": files.get(one["image_id"], ""), "category": names.get(category), "ref": side("ref"), "cand": side("cand")}


def pictures(folder: Path, result: Result, dataset: Any) -> list[dict[str, Any]]:
    """Copies of a few images with both sides' detections: those with differences first, then those with most objects."""
    sides = {side: json.loads((folder / f"{side}.detections.json").read_text(encoding="utf-8")) for side in child.MODULES}
    names = {c["id"]: c["name"] for c in result.parts["categories"]}
    found: dict[str, dict[int, list]] = {side: {} for side in sides}
    for side, document in sides.items():
        for one in document["detections"]:
            found[side].setdefault(one["image_id"], []).append({"bbox": one["bbox"], "score": one["score"], "category": names.get(one["category_id"])})
    different = {one["image_id"] for one in result.parts["detections"]["differences"]}
    infos = sorted(enumerate(sides["pytorch"]["images"]), key=lambda e: (e[1]["id"] not in different, -len(found["pytorch"].get(e[1]["id"], [])), e[0]))
    (folder / "pictures").mkdir(exist_ok=True)
    chosen = []
    for index, info in infos[:PICTURES]:
        name = f"{index:04d}.png"
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


def run(folder: Path, given: dict[str, dict[str, Any]], options: dict[str, Any], *, rounds: int, verbosity: int, done: bool = False) -> Result:
    """Detect on both sides (unless `done`), judge, time, choose pictures. `given`: the common task entries of each side."""
    for side in () if done else child.MODULES:
        say(f"{side}: detections", verbosity)
        child.run(side, [task(side, folder, options)], given[side], folder, verbosity=verbosity)
    result = judge(folder, given["pytorch"])
    config = load_config(given["pytorch"]["config"])
    result.parts["pictures"] = pictures(folder, result, open_test_set(config, options.get("images"), options.get("annotations")))
    save_detections(folder)
    if rounds:
        say(f"frames per second: {rounds} rounds, in turn", verbosity)
        where = {k: options[k] for k in ("images", "annotations") if options.get(k)}
        result.parts["fps"] = speed.measure(folder, {
            "pytorch": {**given["pytorch"], **where}, "jittor": {**given["jittor"], **where, "plain": bool(options.get("plain"))}}, rounds=rounds)
    else:
        result.leave_out("frames per second", "switched off with --rounds 0")
    return result


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.infer", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                     epilog="example: python -m alignment.infer --config configs/shapes.yml --output out")
    weight_arguments(parser)
    parser.add_argument("--test-images", metavar="DIR", type=Path, help="folder of pictures; default: the configuration's validation set")
    parser.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures: adds the mAP table")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="images at once (default: 8)")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N pictures (then no mAP)")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="timing rounds of each side; 0 leaves the timing out (default: 5)")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    parser.add_argument("--plain", action="store_true", help="the port's ordinary graph, not its CPU engine")
    args = parser.parse_args(argv)
    folder = prepare_output(args.output)
    inputs.check_arguments(args)
    config = load_config(args.config)
    options = {"images": str(args.test_images) if args.test_images else None, "annotations": str(args.annotations) if args.annotations else None,
               "batch_size": args.batch_size, "limit": args.limit, "plain": args.plain}
    open_test_set(config, options["images"], options["annotations"])  # what is wrong with the data is said before anything runs
    common = {"config": str(args.config), "device": args.device, "seed": args.seed, "threads": args.threads}
    models = {"pytorch": args.pytorch_model, "jittor": args.jittor_model or args.pytorch_model}
    given = {side: {**common, "weights": str(models[side]) if models[side] else None} for side in child.MODULES}
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    result = run(folder, given, options, rounds=args.rounds, verbosity=args.verbosity)
    if args.verbosity >= 0:
        print(text(result))
    return finish(result, folder, verbosity=args.verbosity)


def text(result: Result) -> str:
    """The tables for the terminal."""
    d, lines = result.parts["detections"], []
    lines.append(f"{d['total_ref']} and {d['total_cand']} detections on {result.parts['images']} images: {d['matched']} matched, {d['moved']} moved, "
                 f"{d['missing']} missing, {d['extra']} extra, {d['relabelled']} relabelled, {d['unexplained']} unexplained")
    lines.append(f"largest difference: {d['max_box_diff']:.3g} pixels, {d['max_score_diff']:.3g} in score "
                 f"(floor {d['floor']['box']:.3g} and {d['floor']['score']:.3g})")
    if result.parts.get("path"):
        lines.append(f"jittor: {result.parts['path']}")
    found = result.parts["metrics"]
    if found:
        lines.append(f"{'':9s} {'pytorch':>10s} {'jittor':>10s} {'difference':>11s}")
        lines += [f"{n:9s} {found['pytorch'][n]:10.6f} {found['jittor'][n]:10.6f} {found['delta'][n]:+11.2e}" for n in METRIC_NAMES]
    fps = result.parts.get("fps")
    if fps:
        lines += [f"{side:8s} {fps[side]['fps']:7.1f} images/s, {fps[side]['median_ms']:.1f} ms ({fps[side]['p20_ms']:.1f} to {fps[side]['p80_ms']:.1f})"
                  for side in child.MODULES]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_cli(main))

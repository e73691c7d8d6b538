"""The verdict of `alignment.infer` from both sides' files: detections with their causes, COCO's numbers, and what the difference rests on.

When the candidate was given *rounded weights* on purpose (``--round-weights``), the reference also ran with its own weights rounded. That **twin** separates two questions: candidate against twin is
judged as always, at the measured floor, and the candidate's difference from the reference is the weights' doing in the pictures where nothing is left unexplained between candidate and twin. How far
the weights moved the reference's own detections only names the mechanism of such a difference; it explains nothing by itself, because a floor taken from the movement that is to be explained would
grow with any fault.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from alignment.detections import DetectionDiff, DetectionFloor, compare_detections
from alignment.noise import METRIC_BOUND, WIDEST_BOX_FLOOR, WIDEST_SCORE_FLOOR, Floor, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from jt_nanodet.config import METRIC_NAMES

#: Images on which the reference measures the floor of boxes and scores.
FLOOR_IMAGES = 4
#: The file of the reference's run with the candidate's weights.
TWIN = "pytorch.twin.detections.json"


def judge(folder: Path, common: dict[str, Any], twin: bool = False) -> Result:
    """The result from both sides' files in `folder`; `twin`: the reference also ran with its own weights rounded."""
    ref, cand = (json.loads((folder / f"{side}.detections.json").read_text(encoding="utf-8")) for side in child.MODULES)
    base = {**json.loads((folder / TWIN).read_text(encoding="utf-8")), "floor": ref.get("floor")} if twin else ref
    result = Result("infer", device=common["device"], seeds={"seed": common["seed"]}, versions={**ref["versions"], **cand["versions"]})
    result.hashes = {"config": ref["config_sha256"], "weights_pytorch": ref["weights_sha256"], "weights_jittor": cand["weights_sha256"],
                     "code_pytorch": ref["code_sha256"], "code_jittor": cand["code_sha256"]}
    result.durations = {"pytorch": ref["seconds"], "jittor": cand["seconds"]}
    images = [[i["id"] for i in side["images"]] for side in (ref, cand)]
    if images[0] != images[1]:
        result.object(Reason.INPUTS_DIFFER, f"the sides saw {len(images[0])} and {len(images[1])} images, or other ones")
    if twin:
        result.check("the port's rounded weights are the reference's", base["weights_sha256"] == cand["weights_sha256"], Reason.WEIGHTS_DIFFER,
                     "the two files of weights differ by more than the rounding, so that detections may differ too", stage="data")
    pixels = different_pixels(ref, cand)
    if pixels is not None:
        hint = f"{len(pixels)} of {len(images[0])} images; means differ by up to {max(pixels.values()):.3g} of the normalised unit" if pixels else ""
        result.check("network input of every image", not pixels, Reason.INPUTS_DIFFER, hint, stage="data")
    diff = compare(base, cand, images[0], pixels)
    result.add(diff.row())
    if base["metrics"] and cand["metrics"]:
        result.add(metric_row(name, base["metrics"][name], cand["metrics"][name]) for name in METRIC_NAMES)
    else:
        result.leave_out("COCO metric", "no annotations were given: add --annotations FILE.json")
    names = dict(zip(ref["cat_ids"], ref["class_names"]))
    files = {i["id"]: i["file_name"] for i in ref["images"]}
    result.parts = {
        "images": len(images[0]), "detections": listed(diff, names, files), "weights_equal": ref["weights_sha256"] == cand["weights_sha256"],
        "source": ref["source"], "path": cand.get("path"), "metrics": metrics(ref["metrics"], cand["metrics"]),
        "peak_memory_mb": {"pytorch": ref["peak_memory_mb"], "jittor": cand["peak_memory_mb"]}, "categories": [{"id": k, "name": v} for k, v in names.items()],
    }
    if twin:
        change = weights_change(ref, base, cand, diff)
        result.check("every difference made by the weights has a cause", not change.unexplained, Reason.UNEXPLAINED_DETECTIONS,
                     f"{change.unexplained} differences from the reference are not in its run with the candidate's weights", stage="post")
        result.parts["weights_change"] = listed(change, names, files)
    return result


def listed(diff: DetectionDiff, names: dict[int, str], files: dict[int, str]) -> dict[str, Any]:
    document = diff.to_json()
    document["differences"] = [described(one, names, files) for one in document["differences"]]
    return document


def different_pixels(ref: dict[str, Any], cand: dict[str, Any]) -> dict[int, float] | None:
    """By image whose network input differs: the difference of its mean value. None when the files do not say what went in."""
    sides = [{i["id"]: i for i in side["images"]} for side in (ref, cand)]
    if any("input_sha256" not in info for side in sides for info in side.values()):
        return None
    both = sides[0].keys() & sides[1].keys()
    return {k: abs(sides[0][k]["input_mean"] - sides[1][k]["input_mean"]) for k in sorted(both) if sides[0][k]["input_sha256"] != sides[1][k]["input_sha256"]}


def sizes(ref: dict[str, Any]) -> dict[int, tuple[float, float]]:
    return {i["id"]: (i["width"], i["height"]) for i in ref["images"] if "width" in i}


def weights_change(ref: dict[str, Any], twin: dict[str, Any], cand: dict[str, Any], judged: DetectionDiff) -> DetectionDiff:
    """Candidate against the reference as it was. A difference is explained by the weights alone: its picture shows none between candidate and twin that has no
    cause at the measured floor, so the reference itself, given the rounded weights, has it too. In any other picture it is unexplained, however near a
    threshold it lies.

    The mechanism is then named where the decision was as near to going the other way as the weights usually move a detection, and never by more than a floor
    may be wide at all; where it was not, or one prior's box just moved, the name is ``different_weights``.
    """
    own = compare_detections(ref["detections"], twin["detections"], floor=DetectionFloor(0.0, 0.0))
    still = [one for one in own.differences if one.kind == "moved" and _overlap(one) >= STEADY]
    usual = (min(float(np.quantile([getattr(one, name) for one in still], USUAL)), widest) if still else 0.0
             for name, widest in (("score_diff", WIDEST_SCORE_FLOOR), ("box_diff", WIDEST_BOX_FLOOR)))
    change = compare_detections(ref["detections"], cand["detections"], floor=DetectionFloor(*usual), candidates_ref=ref["candidates"], candidates_cand=cand["candidates"],
                                sizes=sizes(ref))
    bad = {one.image_id for one in judged.differences if not one.cause}
    change.differences = [
        dataclasses.replace(one, cause="", margin=None) if one.image_id in bad
        else one if one.cause and not (one.kind == "moved" and _overlap(one) >= STEADY) else dataclasses.replace(one, cause="different_weights", margin=_movement(one)) for one in change.differences]
    change.causes = {}
    for one in change.differences:
        change.causes[one.cause or "unexplained"] = change.causes.get(one.cause or "unexplained", 0) + 1
    change.unexplained = change.causes.get("unexplained", 0)
    return change


def _movement(one: Any) -> float:
    """How far the score moved; for a detection that one side lacks, the score that was lost or won."""
    return one.score_diff if one.score_diff is not None else one.score_ref if one.score_ref is not None else one.score_cand


#: Least overlap of a pair that counts as one prior's box on both sides, and the share of such pairs whose movement is called usual (for names alone).
STEADY, USUAL = 0.9, 0.99


def _overlap(one: Any) -> float:
    (x, y, w, h), (u, v, p, q) = one.box_ref, one.box_cand
    inter = max(min(x + w, u + p) - max(x, u), 0.0) * max(min(y + h, v + q) - max(y, v), 0.0)
    return inter / (w * h + p * q - inter) if inter else 0.0


def compare(ref: dict[str, Any], cand: dict[str, Any], images: list[int], pixels: dict[int, float] | None = None) -> DetectionDiff:
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
    return compare_detections(ref["detections"], cand["detections"], floor=floor, candidates_ref=ref["candidates"], candidates_cand=cand["candidates"],
                              sizes=sizes(ref), pixels=pixels)


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

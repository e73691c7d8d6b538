"""What a report must say, computed again from its raw files: the judges that made it, on the files that it kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alignment import bootstrap, evidence, infer, infer_judge, layers, speed, structure, upstream_part, weights
from alignment.reasons import Reason
from alignment.report import CONFIG_COPY
from alignment.report_top import over_all
from alignment.result import Result, plain
from alignment.runners import child
from jt_nanodet.config import load_config
from jt_nanodet.data.batches import stack_images
from jt_nanodet.data.testset import open_test_set
from jt_nanodet.data.transforms import preprocess_image
from jt_nanodet.errors import UserError
from reports import junit, markdown, page
from reports.source import read_folder
from reports.summary import summarise

#: Entries that no raw file holds, and those that need the annotations.
UNKNOWABLE, MEASURED = ("command_line", "input.source"), ("precision",)
EPS = float(np.finfo(np.float64).eps)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def part(name: str, report: Path, recorded: dict[str, Any], found: dict[str, Any] | str | None) -> Result:
    """The result of one part, from the raw files below `report`; `found` is what `measured` gave."""
    common = read(report / "pytorch.job.json")["tasks"][0]
    if name == "structure":
        return structure.judge(report / name, common)[0]
    if name == "weights":
        return weights.judge(report / name, common)
    if name == upstream_part.PART:
        return upstream_part.judge(report / name, common)
    if name == "layers":
        return layers.judge(report / name, common, recorded.get("input", {}).get("source", ""))[0]
    result = infer_judge.judge(report / name, common)
    result.parts["pictures"] = infer.pictures(report / name, result)
    if isinstance(found, dict) and found["precision"]:
        result.parts["precision"] = found["precision"]
    if (report / name / speed.RAW).is_file():
        result.parts["fps"] = speed.from_raw(read(report / name / speed.RAW))
    else:
        result.leave_out("frames per second", "switched off with --rounds 0")
    return result


def top(report: Path, runs: Path, results: dict[str, Any]) -> dict[str, Any]:
    """The entries of report.json that follow from the parts and from the runners' own reports, which lie in `runs`."""
    sides = {side: read(runs / f"{side}.report.json") for side in child.MODULES}
    common = read(runs / "pytorch.job.json")["tasks"][0]
    return json.loads(json.dumps(plain({
        **over_all(results), "device": common["device"], "seeds": {"seed": common["seed"]}, "versions": {**sides["pytorch"]["versions"], **sides["jittor"]["versions"]},
        "peak_memory_mb": {side: one["peak_memory_mb"] for side, one in sides.items()},
    })))


def differences(recorded: Any, again: Any, skipped: tuple[str, ...] = (), path: str = "", size: int = 1) -> list[tuple[str, Any, Any]]:
    """(path, recorded, computed again) of all that differs. Floats may differ by what another order of summation can make of them: n x 2^-52 of the value for
    the n elements of a row (Higham, Accuracy and Stability, 4.2); rows with `size` say their own n."""
    if path in skipped:
        return []
    if isinstance(recorded, dict) and isinstance(again, dict):
        size = max(size, again.get("size") or 1) if isinstance(again.get("size", 1), (int, type(None))) else size
        keys = [key for key in dict.fromkeys((*again, *recorded)) if (f"{path}.{key}" if path else str(key)) not in skipped]
        return [one for key in keys for one in (
            differences(recorded[key], again[key], skipped, f"{path}.{key}" if path else str(key), size) if key in recorded and key in again
            else [(f"{path}.{key}" if path else str(key), recorded.get(key), again.get(key))])]
    if isinstance(recorded, list) and isinstance(again, list):
        if len(recorded) != len(again):
            return [(f"length of {path}", len(recorded), len(again))]
        named = [row.get("name_ref") if isinstance(row, dict) else None for row in again]
        return [one for k, (a, b) in enumerate(zip(recorded, again)) for one in differences(a, b, skipped, f"{path}[{named[k] or k}]", size)]
    numbers = [value for value in (recorded, again) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == 2 and any(isinstance(value, float) for value in numbers):
        return [] if math.isclose(recorded, again, rel_tol=max(size, 4) * EPS, abs_tol=0.0) else [(path, recorded, again)]
    return [] if type(recorded) is type(again) and recorded == again else [(path, recorded, again)]


def measured(report: Path, seal: dict[str, Any]) -> dict[str, Any] | str | None:
    """COCO's numbers of both sides and their precision over recall, from detections and annotations; a sentence where that cannot be had; None where the
    report has no such numbers."""
    try:
        sides = [read(report / "infer" / f"{side}.detections.json") for side in child.MODULES]
        if any(side["metrics"] is None for side in sides):
            return None
        truth = annotations(report, read(report / "pytorch.job.json")["tasks"][-1], seal)
        return truth if isinstance(truth, str) else bootstrap.evaluate_sides(truth, *(side["detections"] for side in sides), resamples=0, jobs=1)
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        return f"detections or annotations cannot be used ({error})"


def metrics(report: Path, found: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    """For either side what of its recorded numbers does not follow from its detections."""
    for side, again in zip(child.MODULES, found["metrics"]):
        document = read(report / "infer" / f"{side}.detections.json")
        yield side, differences(document["metrics"], json.loads(json.dumps(again)), size=len(document["detections"]))


def annotations(report: Path, task: dict[str, Any], seal: dict[str, Any]) -> Any:
    """What the detections were measured against: the annotation file where it is unaltered, or the set that the configuration draws."""
    if task.get("annotations"):
        given, path = seal["given"].get("annotations"), Path(task["annotations"])
        if not path.is_file():
            return f"{path} is not here"
        if given is None or evidence.file_sha256(path) != given["sha256"]:
            return f"{path} is not the file that the report was made with"
        return path
    return open_test_set(load_config(report / CONFIG_COPY), task.get("images"), None)


def pictures(report: Path) -> Iterator[tuple[str, str]]:
    """(name, what is wrong, "" when nothing is) of every picture that the result of inference shows."""
    try:
        entries, sides = read(report / "infer" / "result.json")["pictures"], [read(report / "infer" / f"{side}.detections.json") for side in child.MODULES]
        config = load_config(report / CONFIG_COPY)
        known = [{info["id"]: info for info in side["images"]} for side in sides]
        listed = [(str(entry["path"]), entry["image_id"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return  # said by the rows of the raw files
    for path, image in listed:
        name = f"infer/{path}"
        pixels = cv2.imread(str(report / name), cv2.IMREAD_COLOR) if (report / name).is_file() else None
        if pixels is None:
            yield name, "it is not there, or is no picture"
            continue
        val = config.data.val
        batch = stack_images([preprocess_image(pixels, val.input_size, val.keep_ratio, val.pipeline.normalize)[0]])[0]
        infos = [side.get(image, {}) for side in known]
        if not all("input_sha256" in info for info in infos):
            yield name, f"image {image} has no recorded network input"
            continue
        right = [hashlib.sha256(padded(batch, info).tobytes()).hexdigest() == info["input_sha256"] for info in infos]
        yield name, "" if all(right) else f"it is not the picture whose network input was recorded for image {image}"


def padded(pixels: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """The picture as it lay in its batch, which may have held a larger one."""
    height, width = int(info["input_height"]), int(info["input_width"])
    if pixels.shape[1:] == (height, width) or height < pixels.shape[1] or width < pixels.shape[2]:
        return np.ascontiguousarray(pixels)
    return np.pad(pixels, ((0, 0), (0, height - pixels.shape[1]), (0, width - pixels.shape[2])))


def pages(report: Path) -> dict[str, str]:
    """The three pages as they follow from the result files."""
    source = read_folder(report)
    summary = summarise(source)
    return {"html": page.render(source, summary), "markdown": markdown.render(source, summary, "report.html"), "junit": junit.render(source, summary)}


def same_text(recorded: str, again: str) -> tuple[bool, Reason, str]:
    """Whether a page is what it should be, and the first place where it is not, as the rest of a row."""
    if recorded == again:
        return True, Reason.OK, ""
    at = next((k for k, (a, b) in enumerate(zip(recorded, again)) if a != b), min(len(recorded), len(again)))
    line, start = recorded.count("\n", 0, at) + 1, max(at - 20, 0)
    return False, Reason.PAGE_DIFFERS, (f"it is not what the result files render to; from line {line} on it reads {recorded[start:at + 40]!r} where {again[start:at + 40]!r} should stand")

"""The same pictures through the PyTorch reference, in a process of its own, and which boxes of the two sides differ.

This is for looking: what differs is what a picture can show, half a pixel of a corner or half of the last printed digit of a score. Whether the two are
equal is judged by ``python -m alignment.infer``, against a measured floor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from jt_nanodet.errors import UserError

#: What a picture shows: half a pixel, half of the second decimal of a score.
PIXELS, SCORE = 0.5, 0.005
#: Least overlap at which two boxes of a class are called the same object, moved.
PAIR_IOU = 0.5
TIMEOUT_SECONDS = 3600


def reference_detections(pictures: Sequence[np.ndarray | str], config: str, checkpoint: str, device: str) -> list[list[dict]]:
    """COCO entries of the reference for each picture (BGR array or path), by ``python -m torch_ref test``. UserError with its own sentence.

    The pictures get numbered names in a temporary folder, so that the reference's image ids are their places; arrays are written without loss.
    """
    with tempfile.TemporaryDirectory(prefix="nanodet-demo-") as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for n, picture in enumerate(pictures):
            if isinstance(picture, str):
                os.symlink(os.path.abspath(picture), images / f"{n:08d}{os.path.splitext(picture)[1].lower()}")
            elif not cv2.imwrite(str(images / f"{n:08d}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                raise UserError(f"the frames for the reference cannot be written to {folder}; make room there, or set TMPDIR to another folder")
        answer = Path(folder) / "detections.json"
        command = [sys.executable, "-m", "torch_ref", "test", config, "--checkpoint", checkpoint, "--images", str(images), "--save-results", str(answer),
                   "--batch-size", "1", "--device", device]
        # the sibling package is found next to this one, wherever the command is started
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"the reference did not answer ({error}); try it alone with: python -m torch_ref test --help") from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
            raise UserError(f"the PyTorch side failed: {said}")
        entries = json.loads(answer.read_text(encoding="utf-8"))
    found: list[list[dict]] = [[] for _ in pictures]
    for entry in entries:
        found[entry["image_id"] - 1].append(entry)
    return found


def differences(first: Sequence[dict], second: Sequence[dict]) -> tuple[list[str], list[str], dict]:
    """(words for the first list, words for the second, numbers): "" for a box that both have, "moved", "score", "class" or "only here".

    Boxes of one class are paired by overlap, the best pairs first; what is left is paired across classes where the overlap is nearly whole.
    ``numbers``: equal, differing, and over all pairs of a class the largest corner distance (pixels) and score difference.
    """
    words = [["only here"] * len(first), ["only here"] * len(second)]
    free = [set(range(len(first))), set(range(len(second)))]
    numbers = {"equal": 0, "differing": 0, "box": 0.0, "score": 0.0}
    overlap = overlaps(first, second)
    for same_class, least in ((True, PAIR_IOU), (False, 0.99)):
        pairs = [(overlap[i, j], -abs(first[i]["score"] - second[j]["score"]), i, j) for i in free[0] for j in free[1]
                 if overlap[i, j] >= least and (first[i]["label"] == second[j]["label"]) is same_class]
        for _, _, i, j in sorted(pairs, reverse=True):
            if i not in free[0] or j not in free[1]:
                continue
            free[0].discard(i)
            free[1].discard(j)
            box = float(np.abs(np.subtract(corners(first[i]), corners(second[j]))).max())
            score = abs(first[i]["score"] - second[j]["score"])
            word = "class" if not same_class else "moved" if box > PIXELS else "score" if score > SCORE else ""
            words[0][i] = words[1][j] = word
            if same_class:
                numbers["box"], numbers["score"] = max(numbers["box"], box), max(numbers["score"], score)
    numbers["equal"] = words[0].count("")
    numbers["differing"] = len(words[0]) - words[0].count("") + words[1].count("only here")
    return words[0], words[1], numbers


def corners(one: dict) -> tuple[float, float, float, float]:
    x, y, w, h = one["bbox"]
    return x, y, x + w, y + h


def overlaps(first: Sequence[dict], second: Sequence[dict]) -> np.ndarray:
    """(n, m) IoU of two lists of boxes."""
    a, b = (np.array([corners(one) for one in side], np.float64).reshape(-1, 4) for side in (first, second))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clip(min=0).prod(2)
    area = [(side[:, 2:] - side[:, :2]).prod(1) for side in (a, b)]
    return inter / np.maximum(area[0][:, None] + area[1][None] - inter, 1e-12)


def foot(numbers: dict) -> str:
    """The line below a pair of pictures."""
    return (f"{numbers['equal']} boxes alike, {numbers['differing']} differ; "
            f"largest differences {numbers['box']:.2g} px, {numbers['score']:.2g} of a score")

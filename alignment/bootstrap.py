"""Paired bootstrap of COCO's numbers: by how much would the difference of two detectors change with other images?

Images are drawn with replacement, the same ones for both sides, and all 12 numbers and each class's AP are made anew from every draw. pycocotools
matches once; what a draw needs from a match is small: an image that is drawn three times counts its detections three times. So a draw is a vector
of weights, and precision at each true positive follows from running sums of weights, for many draws at once.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment import precision
from jt_nanodet.config import METRIC_NAMES
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.errors import UserError

RESAMPLES = 1000
#: Two-sided level of the intervals.
LEVEL = 0.95
#: How often a difference of the measured size shall be told from 0 on the number of images that is called enough.
POWER = 0.8
#: Numbers in one block of running sums: small enough for the processor's cache.
BLOCK = 1 << 20
AREAS, LIMITS = 4, (1, 10, 100)


@dataclass(frozen=True)
class Group:
    """Matches of one class in one area range. `image`: position of each detection's image, best score first; `hits`, `ignored`: (thresholds, detections);
    `rank`: place of the detection among those of its image and class; `truths`: counted objects in each image (images,)."""

    image: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    rank: np.ndarray
    truths: np.ndarray


@dataclass(frozen=True)
class Records:
    """All matches of one side: groups by (class, area range), None where the class has neither detection nor object."""

    images: tuple[int, ...]
    class_names: tuple[str, ...]
    groups: dict[tuple[int, int], Group]
    recalls: np.ndarray


def records(evaluator: CocoEvaluator, detections: Sequence[dict[str, Any]]) -> Records:
    """Match `detections` to the annotations once, by pycocotools. UserError for detections the annotations cannot judge."""
    evaluator.check(detections)
    if not detections:
        raise UserError("a list of detections is empty: there is nothing to resample; give a file that holds detections")
    return records_of(evaluator, evaluator.accumulated(list(detections)))


def records_of(evaluator: CocoEvaluator, run: Any) -> Records:
    """The matches of an evaluation that the evaluator accumulated."""
    images = run.params.imgIds
    at, groups = 0, {}
    for k in range(len(run.params.catIds)):
        for a in range(AREAS):
            some = [(i, e) for i, e in enumerate(run.evalImgs[at: at + len(images)]) if e is not None]
            at += len(images)
            if some:
                groups[k, a] = _group(some, len(images), len(run.params.iouThrs))
    return Records(tuple(images), tuple(evaluator.class_names), groups, np.asarray(run.params.recThrs))


def _group(some: list[tuple[int, dict]], images: int, thresholds: int) -> Group:
    truths = np.zeros(images, np.int32)
    for i, one in some:
        truths[i] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
    scores = np.concatenate([np.asarray(one["dtScores"], np.float64) for _, one in some])
    order = np.argsort(-scores, kind="mergesort")  # pycocotools' own, so that ties stand as there
    hits = np.concatenate([np.asarray(one["dtMatches"]).reshape(thresholds, -1) for _, one in some], axis=1)[:, order] != 0
    ignored = np.concatenate([np.asarray(one["dtIgnore"]).reshape(thresholds, -1) for _, one in some], axis=1)[:, order] != 0
    image = np.concatenate([np.full(len(one["dtScores"]), i, np.int32) for i, one in some])[order]
    rank = np.concatenate([np.arange(len(one["dtScores"]), dtype=np.int32) for _, one in some])[order]
    keep = ~ignored.all(0)  # what never counts only costs
    return Group(image[keep], (hits & ~ignored)[:, keep], ignored[:, keep], rank[keep], truths)


def draw(images: int, resamples: int, seed: int) -> np.ndarray:
    """(images, resamples) int32: how often each draw holds each image."""
    rng = np.random.default_rng(seed)
    return np.stack([np.bincount(rng.integers(0, images, images), minlength=images).astype(np.int32) for _ in range(resamples)], axis=1)


def numbers(matches: Records, weights: np.ndarray, say: Callable[[str], None] | None = None) -> dict[str, np.ndarray]:
    """The 12 numbers by name and ``AP <class>`` for each class, each (draws,), from weights (images, draws). NaN where a draw holds no such object."""
    draws, classes = weights.shape[1], len(matches.class_names)
    # (thresholds, classes, areas, draws) and (classes, areas, limits, draws), means over thresholds where that suffices
    values_at = np.full((3, classes, AREAS, draws), np.nan)
    recall = np.full((classes, AREAS, len(LIMITS), draws), np.nan)
    for done, ((k, a), group) in enumerate(matches.groups.items()):
        step = max(1, BLOCK // max(1, len(group.image)))
        for begin in range(0, draws, step):
            part = slice(begin, begin + step)
            values_at[:, k, a, part], recall[k, a, :, part] = _one(group, weights[:, part], matches.recalls)
        if say and done % 80 == 79:
            say(f"{done + 1} of {len(matches.groups)} classes and sizes")
    average, half, three_quarters = values_at
    values = [average[:, 0], half[:, 0], three_quarters[:, 0], average[:, 1], average[:, 2], average[:, 3],
              recall[:, 0, 0], recall[:, 0, 1], recall[:, 0, 2], recall[:, 1, 2], recall[:, 2, 2], recall[:, 3, 2]]
    with np.errstate(invalid="ignore"):
        found = {name: _mean(value) for name, value in zip(METRIC_NAMES, values)}
    return found | {f"AP {name}": average[k, 0] for k, name in enumerate(matches.class_names)}


def _mean(values: np.ndarray) -> np.ndarray:
    """Over classes, without those that a draw has no object of."""
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _one(group: Group, weights: np.ndarray, recalls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean AP, AP at 0.5 and at 0.75 (3, draws), and mean recall at each limit (limits, draws), of one class and area range."""
    draws = weights.shape[1]
    truths = np.einsum("i,ir->r", group.truths[group.truths > 0], weights[group.truths > 0]).astype(np.float64)
    total = np.maximum(truths, 1)
    mine = weights[group.image]  # (detections, draws)
    place = np.cumsum(mine, axis=0)
    values_at, recall = np.zeros((len(group.hits), draws)), np.zeros((len(LIMITS), draws))
    for t, (hits, ignored) in enumerate(zip(group.hits, group.ignored)):
        where = np.flatnonzero(hits)
        if not len(where):
            continue
        here = mine[where]
        true, position = np.cumsum(here, axis=0), place[where]
        left_out = np.flatnonzero(ignored)
        if len(left_out):
            before = np.concatenate([np.zeros((1, draws), mine.dtype), np.cumsum(mine[left_out], axis=0)])
            position = position - before[np.searchsorted(left_out, where)]
        ratio = true / np.maximum(position, 1)
        best = np.maximum.accumulate(ratio[::-1], axis=0)[::-1]
        # how many of the 101 recalls lie at or below the recall reached so far
        reached = np.searchsorted(recalls, (true / total).ravel(), side="right").reshape(true.shape)
        values_at[t] = (best * np.diff(reached, axis=0, prepend=0)).sum(0) / len(recalls)
        for n, limit in enumerate(LIMITS):
            recall[n] += here[group.rank[where] < limit].sum(0) / total
    values_at, recall = np.where(truths > 0, values_at, np.nan), np.where(truths > 0, recall / len(group.hits), np.nan)
    return np.stack([values_at.mean(0), values_at[0], values_at[5]]), recall


def _side(job: tuple[Any, list[dict], np.ndarray | None]) -> dict[str, Any]:
    """One side, matched once: COCO's numbers, its precision, and the numbers of all images and of every draw (None without draws)."""
    truth, detections, weights = job
    evaluator = CocoEvaluator(truth)
    evaluator.check(detections)
    if not detections:
        return {"metrics": evaluator.evaluate([]), "precision": None, "whole": None, "draws": None}
    with _without_collection():
        run = evaluator.accumulated(detections)
        found = {"metrics": evaluator.metrics_of(run), "precision": precision.of_run(run), "whole": None, "draws": None}
        if weights is None:
            return found
        matches = records_of(evaluator, run)
        del run  # its matches of every image are large
    return found | {"whole": numbers(matches, np.ones((len(matches.images), 1), np.int32)), "draws": numbers(matches, weights)}


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Python's garbage collector looks through all of pycocotools' small dictionaries again and again: a fifth of the time of matching 5,000 images."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def evaluate_sides(truth: Any, ref: list[dict], cand: list[dict], *, resamples: int = RESAMPLES, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """Both sides judged by the annotations, each matched once and in a process of its own when `jobs` is 2.

    `truth`: what `CocoEvaluator` takes. `metrics`: the two sides' numbers; `precision`: that part of result.json, or None when a side found nothing;
    ``bootstrap``: likewise, and None without `resamples`: for each number its difference (candidate minus reference), standard error, interval, whether the
    interval leaves 0 out, and the number of images at which a difference of this size would be found with `POWER`.
    """
    evaluator = CocoEvaluator(truth)
    images = len(evaluator.coco.getImgIds())
    weights = draw(images, resamples, seed) if resamples and ref and cand else None
    tasks = [(evaluator.coco, side, weights) for side in (ref, cand)]
    if jobs > 1:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2) as pool:
            sides = list(pool.map(_side, tasks))
    else:
        sides = [_side(task) for task in tasks]
    one, other = sides
    both = {"metrics": [side["metrics"] for side in sides], "precision": None, "bootstrap": None}
    if one["precision"] and other["precision"]:
        both["precision"] = precision.joined(evaluator, one["precision"], other["precision"])
    if weights is not None:
        found = {name: judged(float(value[0]), float(other["whole"][name][0]), other["draws"][name] - one["draws"][name], images)
                 for name, value in one["whole"].items() if not math.isnan(value[0])}
        both["bootstrap"] = {"images": images, "resamples": resamples, "seed": seed, "level": LEVEL, "power": POWER,
                             "metrics": {name: found[name] for name in METRIC_NAMES if name in found},
                             "per_class": {name[3:]: value for name, value in found.items() if name.startswith("AP ")}}
    return both


def paired(truth: Any, ref: list[dict], cand: list[dict], *, resamples: int = RESAMPLES, seed: int = 0, jobs: int = 2) -> dict[str, Any]:
    """The ``bootstrap`` part alone; see `evaluate_sides`. UserError for a side without detections."""
    if not ref or not cand:
        raise UserError("a list of detections is empty: there is nothing to resample; give a file that holds detections")
    return evaluate_sides(truth, ref, cand, resamples=resamples, seed=seed, jobs=jobs)["bootstrap"]


def judged(ref: float, cand: float, deltas: np.ndarray, images: int) -> dict[str, Any]:
    """One number's row. `deltas` (draws,): the differences of the draws; those without an object of the class are NaN and left out."""
    known = deltas[~np.isnan(deltas)]
    delta = cand - ref
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) else (math.nan, math.nan)
    error = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    from scipy.stats import norm  # slow to import

    reach = norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER)
    needed = math.ceil(images * (reach * error / delta) ** 2) if delta and error > 0 else None
    return {"pytorch": ref, "jittor": cand, "delta": delta, "standard_error": error, "low": float(low), "high": float(high),
            "decided": bool(low > 0 or high < 0), "draws": len(known), "images_needed": needed}

"""Two lists of detections of the same images, matched one to one, and a cause for every difference.

Within each image and class the pairing is optimal (Hungarian algorithm on ``1 - IoU``) and no detection is used twice. What remains is then paired
across classes where the box is the same (`relabelled`). Causes come from `alignment.flips`; only differences without one count as `unexplained`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignment.flips import Causes, ImageSide, Limits, explain_image
from alignment.noise import WIDEST_BOX_FLOOR, WIDEST_SCORE_FLOOR
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult


@dataclass(frozen=True)
class Rules:
    """The detector's post-processing, by which a flip may be explained, and the overlaps by which detections are paired.

    A box is suppressed when its IoU with a better one of its class is **above** `nms_iou`. `pair_iou`: least overlap of two detections of one
    class that are called the same object; `same_box_iou`: least overlap of two of different classes that are called one relabelled box.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.6
    max_per_image: int = 100
    pair_iou: float = 0.5
    same_box_iou: float = 0.99


@dataclass(frozen=True)
class DetectionFloor:
    """How far scores (0 to 1) and box corners (pixels) move between runs that are equal but for rounding; measured by the caller."""

    score: float
    box: float


@dataclass(frozen=True)
class Difference:
    """One difference. `kind`: moved, missing (only the reference has it), extra (only the candidate), relabelled. `cause` is "" when unexplained;
    `margin` is how far the decision was from going the other way, in the unit of the cause (score or IoU). Boxes are COCO's x, y, w, h."""

    kind: str
    image_id: int
    category_ref: int | None
    category_cand: int | None
    box_ref: tuple[float, ...] | None
    box_cand: tuple[float, ...] | None
    score_ref: float | None
    score_cand: float | None
    box_diff: float | None = None
    score_diff: float | None = None
    cause: str = ""
    margin: float | None = None


@dataclass
class DetectionDiff:
    """Counts, the largest differences over all pairs of one class, and every difference. `moved` are pairs farther apart than the floor."""

    floor: DetectionFloor
    rules: Rules
    images: int = 0
    total_ref: int = 0
    total_cand: int = 0
    matched: int = 0
    moved: int = 0
    missing: int = 0
    extra: int = 0
    relabelled: int = 0
    unexplained: int = 0
    max_box_diff: float = 0.0
    max_score_diff: float = 0.0
    causes: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def row(self, name: str = "detections") -> TensorResult:
        """The verdict as a row: nothing on either side is not comparable, one unexplained difference fails, a floor too wide decides nothing."""
        row = TensorResult(
            name, name, Verdict.PASS, Reason.OK, Gate.EXACT, stage="post", size=self.total_ref, max_abs=self.max_score_diff, beyond=self.unexplained,
        )
        if self.total_ref == 0 and self.total_cand == 0:
            return dataclasses.replace(row, verdict=Verdict.NOT_COMPARABLE, reason=Reason.NOTHING_COMPARED, gate=Gate.COUNT, hint="no detection on either side")
        if self.unexplained:
            first = next(one for one in self.differences if not one.cause)
            hint = f"{self.unexplained} differences without a cause; the first is {first.kind} in image {first.image_id}"
            return dataclasses.replace(row, verdict=Verdict.FAIL, reason=Reason.UNEXPLAINED_DETECTIONS, hint=hint)
        if self.differences and (self.floor.score > WIDEST_SCORE_FLOOR or self.floor.box > WIDEST_BOX_FLOOR):
            hint = f"causes rest on a floor of {self.floor.score:.3g} in score and {self.floor.box:.3g} pixels, which is too wide to decide"
            return dataclasses.replace(row, verdict=Verdict.INCONCLUSIVE, reason=Reason.FLOOR_TOO_WIDE, hint=hint)
        return row


def compare_detections(
    ref: Sequence[Mapping[str, Any]], cand: Sequence[Mapping[str, Any]], *, floor: DetectionFloor, rules: Rules = Rules(),
    candidates_ref: Iterable[Mapping[str, Any]] | None = None, candidates_cand: Iterable[Mapping[str, Any]] | None = None,
    sizes: Mapping[int, tuple[float, float]] | None = None, pixels: Mapping[int, float] | None = None,
) -> DetectionDiff:
    """Match and explain.

    `ref`, `cand`: COCO result dicts (``image_id, category_id, bbox`` x y w h in pixels, ``score``) of the same images. `candidates_*`: the same
    kind of dicts for what each side had *before* suppression; only with them can a difference be put down to a near-tie of scores, because a
    tie that cannot be shown could be any bug. `sizes`: width and height by image. `pixels`: by how much the network's input differed, for the images
    where it did: what has no other cause there is put down to ``different_pixels``, and the caller judges the pixels. Raises ValueError for a dict without these keys or a box that is not four numbers.
    """
    left, right = _by_image(ref), _by_image(cand)
    before_left, before_right = (_by_image(list(found)) if found is not None else {} for found in (candidates_ref, candidates_cand))
    diff = DetectionDiff(floor, rules, images=len(left.keys() | right.keys()), total_ref=len(ref), total_cand=len(cand))
    nobody = ImageSide.empty()
    for image in sorted(left.keys() | right.keys()):
        a, b = left.get(image, nobody), right.get(image, nobody)
        first = len(diff.differences)
        _compare_image(image, a, b, diff, before_left.get(image), before_right.get(image), (sizes or {}).get(image))
        if image in (pixels or {}):
            diff.differences[first:] = [one if one.cause else dataclasses.replace(one, cause="different_pixels", margin=pixels[image])
                                        for one in diff.differences[first:]]
    diff.causes = dict(Counter(one.cause or "unexplained" for one in diff.differences))
    diff.unexplained = diff.causes.get("unexplained", 0)
    return diff


def _by_image(detections: Sequence[Mapping[str, Any]]) -> dict[int, ImageSide]:
    if not detections:
        return {}
    try:
        images = np.array([one["image_id"] for one in detections])
        classes = np.array([one["category_id"] for one in detections])
        boxes = np.array([one["bbox"] for one in detections], dtype=np.float64)
        scores = np.array([one["score"] for one in detections], dtype=np.float64)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a detection lacks image_id, category_id, bbox or score ({error})") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError("a bbox must be the four numbers x, y, w, h")
    boxes[:, 2:] += boxes[:, :2]
    order = np.argsort(images, kind="stable")
    values, starts = np.unique(images[order], return_index=True)
    return {
        image.item(): ImageSide(boxes[where], classes[where], scores[where])
        for image, where in zip(values, np.split(order, starts[1:]))
    }


def assign(overlap: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the (n, m) overlaps: as many as possible with an overlap of at least `least`, and of those the best in sum."""
    from scipy.optimize import linear_sum_assignment  # here: it takes half of the time of starting a command

    if not overlap.size:
        return []
    allowed = overlap >= least
    rows = np.flatnonzero(allowed.any(1))
    best = np.where(allowed, overlap, -1.0)[rows].argmax(1)
    # When every row can have its favourite, no other assignment is better; this is the usual case, and far quicker.
    if len(np.unique(best)) == len(best):
        return list(zip(rows.tolist(), best.tolist()))
    columns = np.flatnonzero(allowed.any(0))
    cost = np.where(allowed, 1.0 - overlap, 1e3)[np.ix_(rows, columns)]
    return [
        (int(rows[i]), int(columns[j])) for i, j in zip(*linear_sum_assignment(cost)) if allowed[rows[i], columns[j]]
    ]


def _compare_image(image: int, a: ImageSide, b: ImageSide, diff: DetectionDiff, before_a: ImageSide | None, before_b: ImageSide | None,
                   size: tuple[float, float] | None) -> None:
    overlap = a.iou(b)
    same = a.classes[:, None] == b.classes[None, :]
    pairs = assign(np.where(same, overlap, -1.0), diff.rules.pair_iou)
    moved = []
    for i, j in pairs:
        box, score = float(np.abs(a.boxes[i] - b.boxes[j]).max()), abs(float(a.scores[i] - b.scores[j]))
        diff.max_box_diff, diff.max_score_diff = max(diff.max_box_diff, box), max(diff.max_score_diff, score)
        # Written so that NaN does not count as close.
        if box <= diff.floor.box and score <= diff.floor.score:
            diff.matched += 1
        else:
            moved.append((i, j))
    left = sorted(set(range(len(a))) - {i for i, _ in pairs})
    right = sorted(set(range(len(b))) - {j for _, j in pairs})
    swapped = [(left[i], right[j]) for i, j in assign(overlap[np.ix_(left, right)], diff.rules.same_box_iou)] if left and right else []
    missing = sorted(set(left) - {i for i, _ in swapped})
    extra = sorted(set(right) - {j for _, j in swapped})
    diff.moved, diff.relabelled = diff.moved + len(moved), diff.relabelled + len(swapped)
    diff.missing, diff.extra = diff.missing + len(missing), diff.extra + len(extra)
    if not (moved or swapped or missing or extra):
        return
    known = set(moved)
    causes = explain_image(
        a, b, (missing, extra), moved + swapped, [pair for pair in pairs if pair not in known],
        Limits(diff.floor.score, diff.floor.box, diff.rules.score_threshold, diff.rules.nms_iou, diff.rules.max_per_image), (before_a, before_b), size,
    )
    entries = [("moved", i, j) for i, j in moved] + [("relabelled", i, j) for i, j in swapped]
    entries += [("missing", i, None) for i in missing] + [("extra", None, j) for j in extra]
    diff.differences += [_difference(kind, image, a, b, i, j, causes) for kind, i, j in entries]


def _difference(kind: str, image: int, a: ImageSide, b: ImageSide, i: int | None, j: int | None, causes: Causes) -> Difference:
    # Both halves of a pair must be explained, otherwise the pair is not.
    halves = [causes[key] for key in (("ref", i), ("cand", j)) if key[1] is not None and key in causes]
    whole = len(halves) == (i is not None) + (j is not None)
    cause, margin = max(halves, key=lambda half: half[1]) if whole else ("", None)
    return Difference(
        kind, image, None if i is None else int(a.classes[i]), None if j is None else int(b.classes[j]), None if i is None else a.xywh(i),
        None if j is None else b.xywh(j), None if i is None else float(a.scores[i]), None if j is None else float(b.scores[j]),
        None if i is None or j is None else float(np.abs(a.boxes[i] - b.boxes[j]).max()),
        None if i is None or j is None else abs(float(a.scores[i] - b.scores[j])), cause, margin,
    )

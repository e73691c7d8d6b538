"""Why a detection is on one side and not on the other, as rules that each need a measured margin.

A detector decides by thresholds; rounding may tip a decision only when the decision was within rounding of the threshold. So every cause below is a
*necessary* condition with a margin of the order of the floor. A difference that meets none of them is unexplained.

- ``score_threshold``: its score is within the floor of the score threshold.
- ``nms_overlap``: its IoU with a better box of its class, which both sides have, is within rounding of the suppression threshold.
- ``best_100``: the other side is full, and this score is no higher (within the floor) than the lowest kept there.
- ``follows``: on the other side it is suppressed by a detection that is itself an explained flip.
- ``near_tie``: with the lists from before suppression as proof: the other side had this very box and score, and suppressed it in favour of one
  whose score is within the floor. Two equal scores alone prove nothing: a shifted box has them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

#: (side, position) -> (cause, margin)
Causes = dict[tuple[str, int], tuple[str, float]]


@dataclass(frozen=True)
class ImageSide:
    """The detections of one side in one image: `boxes` (N, 4) x1 y1 x2 y2 in pixels, `classes` (N,), `scores` (N,)."""

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    @classmethod
    def empty(cls) -> "ImageSide":
        return cls(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))

    def __len__(self) -> int:
        return len(self.scores)

    def xywh(self, index: int) -> tuple[float, ...]:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return (x1, y1, x2 - x1, y2 - y1)

    def areas(self) -> np.ndarray:
        return np.maximum(self.boxes[:, 2] - self.boxes[:, 0], 0.0) * np.maximum(self.boxes[:, 3] - self.boxes[:, 1], 0.0)

    def iou(self, other: "ImageSide") -> np.ndarray:
        """(N, M) overlaps, without the ``+ 1`` of older detectors; 0 for boxes without area."""
        corner = np.maximum(self.boxes[:, None, :2], other.boxes[None, :, :2])
        sides = np.maximum(np.minimum(self.boxes[:, None, 2:], other.boxes[None, :, 2:]) - corner, 0.0)
        inter = sides[..., 0] * sides[..., 1]
        union = self.areas()[:, None] + other.areas()[None, :] - inter
        return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def overlap_slack(box: np.ndarray, others: np.ndarray, overlap: np.ndarray, shift: float) -> np.ndarray:
    """How far the IoU of `box` (4,) with `others` (M, 4) may change when every corner moves by at most `shift` pixels (first order, from above)."""
    def sides(boxes):
        return np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)

    area, areas = sides(box).prod(-1), sides(others).prod(-1)
    inter = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0.0)
    change = 2 * shift * (inter.sum(-1) + 2 * shift)
    grown = 2 * shift * (sides(box).sum(-1) + sides(others).sum(-1) + 4 * shift)
    union = np.maximum(area + areas - inter.prod(-1), np.finfo(np.float64).tiny)
    return (change + overlap * (grown + change)) / union


def explain_image(
    ref: ImageSide, cand: ImageSide, only_ref: Iterable[int], only_cand: Iterable[int], pairs: Iterable[tuple[int, int]], *, score_floor: float,
    box_floor: float, score_threshold: float, nms_iou: float, max_per_image: int, before_ref: ImageSide | None = None, before_cand: ImageSide | None = None,
) -> Causes:
    """Causes of the detections at `only_ref` in `ref` and `only_cand` in `cand`, which the other side lacks; `pairs` are those both sides have.

    The halves of a pair that has moved or changed its class are given as two such detections: the old one lost, the new one gained.
    """
    sides = {"ref": ref, "cand": cand}
    before = {"ref": before_ref, "cand": before_cand}
    pairs = list(pairs)
    shared = {"ref": np.array([i for i, _ in pairs], np.int64), "cand": np.array([j for _, j in pairs], np.int64)}
    open_items = [("ref", i) for i in only_ref] + [("cand", j) for j in only_cand]
    lacking = {side: np.array([k for s, k in open_items if s == side], np.int64) for side in sides}
    other = {"ref": "cand", "cand": "ref"}
    inner = {side: sides[side].iou(sides[side]) for side in sides}
    across = ref.iou(cand)
    causes: Causes = {}

    def base(side: str, k: int) -> tuple[str, float] | None:
        here, there = sides[side], sides[other[side]]
        score = float(here.scores[k])
        if abs(score - score_threshold) <= score_floor:
            return "score_threshold", score - score_threshold
        # Suppressed there by a better box that both sides have: here the overlap must lie just at the threshold.
        rivals = shared[side]
        rivals = rivals[(here.classes[rivals] == here.classes[k]) & (here.scores[rivals] >= score - score_floor)]
        if rivals.size:
            overlap = inner[side][k, rivals]
            margin = np.abs(overlap - nms_iou)
            near = margin <= overlap_slack(here.boxes[k], here.boxes[rivals], overlap, box_floor)
            if near.any():
                return "nms_overlap", float(margin[near].min())
        if len(there) >= max_per_image and score <= float(there.scores.min()) + score_floor:
            return "best_100", float(there.scores.min()) - score
        return near_tie(side, k)

    def suppressors(side: str, k: int, among: np.ndarray) -> np.ndarray:
        """Detections `among` those of the other side that would suppress this one."""
        here, there = sides[side], sides[other[side]]
        among = among[there.classes[among] == here.classes[k]] if among.size else among
        if not among.size:
            return among
        overlap = (across[k] if side == "ref" else across[:, k])[among]
        slack = overlap_slack(here.boxes[k], there.boxes[among], overlap, box_floor)
        return among[(overlap > nms_iou - slack) & (there.scores[among] >= here.scores[k] - score_floor)]

    def near_tie(side: str, k: int) -> tuple[str, float] | None:
        here, there, proof = sides[side], sides[other[side]], before[other[side]]
        if proof is None or not len(proof):
            return None
        same = (proof.classes == here.classes[k]) & (np.abs(proof.boxes - here.boxes[k]).max(1) <= box_floor)
        if not (same & (np.abs(proof.scores - here.scores[k]) <= score_floor)).any():
            return None
        winners = suppressors(side, k, np.arange(len(there)))
        gap = np.abs(there.scores[winners] - here.scores[k])
        return ("near_tie", float(gap.min())) if gap.size and gap.min() <= 2 * score_floor else None

    for item in open_items:
        found = base(*item)
        if found:
            causes[item] = found
    changed = True
    while changed:
        changed = False
        for side, k in open_items:
            if (side, k) in causes:
                continue
            away = lacking[other[side]]
            leaders = [x for x in suppressors(side, k, away).tolist() if (other[side], x) in causes]
            if leaders:
                causes[(side, k)] = ("follows", causes[(other[side], leaders[0])][1])
                changed = True
    return causes

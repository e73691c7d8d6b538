"""Why a detection is on one side and not on the other, as rules that each need a measured margin.

A detector decides by thresholds; rounding may tip a decision only when the decision was within rounding of the threshold. So every cause below is a
*necessary* condition with a margin of the order of the floor. A difference that meets none of them is unexplained.

- ``score_threshold``: its score is within the floor of the score threshold.
- ``nms_overlap``: its IoU with a better box of its class, which both sides have, is within rounding of the suppression threshold.
- ``best_100``: the other side is full, this one not overfull, and this score is no higher (within the floor) than the lowest kept there.
- ``follows``: on the other side it is suppressed by a detection that is itself an explained flip.
- ``near_tie``: with the lists from before suppression as proof: the other side had this very box and score, and suppressed it in favour of one
  whose score is within the floor (tie order). Two equal scores alone prove nothing: a shifted box has them too.
- ``class_near_tie``: one box under two classes, and before suppression *both* sides had both classes there with scores closer than two floors.
- ``border_clip``: clipping to the picture left a box no wider or no higher than the floor, which one side dropped.
- ``moved_box``: on the other side it is suppressed by a box that moved. This explains the consequence alone: the moved box stays unexplained.
"""

from __future__ import annotations

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


def overlap_slack(boxes: np.ndarray, others: np.ndarray, overlap: np.ndarray, shift: float) -> np.ndarray:
    """How far the IoU of `boxes` with `others` (both (M, 4), or one (4,)) may change when every corner moves by at most `shift` pixels.

    First order, from above: the intersection changes by at most its half perimeter times ``2 shift``, and so does either area.
    """
    def sides(some: np.ndarray) -> np.ndarray:
        return np.maximum(some[..., 2:] - some[..., :2], 0.0)

    inter = np.maximum(np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2]), 0.0)
    change = 2 * shift * (inter.sum(-1) + 2 * shift)
    grown = 2 * shift * (sides(boxes).sum(-1) + sides(others).sum(-1) + 4 * shift)
    union = np.maximum(sides(boxes).prod(-1) + sides(others).prod(-1) - inter.prod(-1), np.finfo(np.float64).tiny)
    return (change + overlap * (grown + change)) / union


@dataclass(frozen=True)
class Limits:
    """Floors and thresholds of one comparison; the names are those of `alignment.detections`."""

    score_floor: float
    box_floor: float
    score_threshold: float
    nms_iou: float
    max_per_image: int


class _Flips:
    """The detections of one image that one side lacks, seen from the side (`here`) that has them."""

    def __init__(self, side: str, here: ImageSide, there: ImageSide, across: np.ndarray, lone: list[int], linked: list[int], limits: Limits):
        self.side, self.here, self.there, self.across, self.limits = side, here, there, across, limits
        self.lone, self.linked = lone, linked
        self.all = np.array(lone + linked, np.int64)

    def base(self, shared: np.ndarray, proof: ImageSide | None, size: tuple[float, float] | None = None) -> Causes:
        """Causes that need no other flip. `size`: width and height of the picture."""
        causes: Causes = {}
        # The half of a moved or relabelled pair has a partner of its own rank there, so neither threshold nor cut can have removed it.
        for k in self.lone:
            score, rank = float(self.here.scores[k]), self.there.scores
            if abs(score - self.limits.score_threshold) <= self.limits.score_floor:
                causes[(self.side, k)] = ("score_threshold", score - self.limits.score_threshold)
            elif len(rank) >= self.limits.max_per_image >= len(self.here) and score <= float(rank.min()) + self.limits.score_floor:
                causes[(self.side, k)] = ("best_100", float(rank.min()) - score)
            elif size is not None and (thin := self._clipped(k, size)) is not None:
                causes[(self.side, k)] = ("border_clip", thin)
        for k, margin in self._near_threshold(shared):
            causes.setdefault((self.side, k), ("nms_overlap", margin))
        if proof is not None and len(proof):
            for k in self.all.tolist():
                gap = self._tie(k, proof)
                if gap is not None:
                    causes.setdefault((self.side, k), ("near_tie", gap))
        return causes

    def _near_threshold(self, shared: np.ndarray) -> list[tuple[int, float]]:
        """Suppressed there by a better box that both sides have; here the overlap of the two must lie just at the threshold."""
        if not shared.size or not self.all.size:
            return []
        here = self.here
        rivals = (here.classes[self.all][:, None] == here.classes[shared]) & (here.scores[shared] >= here.scores[self.all][:, None] - self.limits.score_floor)
        rows, columns = np.nonzero(rivals)
        k, r = self.all[rows], shared[columns]
        overlap = paired_iou(here.boxes[k], here.boxes[r])
        margin = np.abs(overlap - self.limits.nms_iou)
        near = margin <= overlap_slack(here.boxes[k], here.boxes[r], overlap, self.limits.box_floor)
        return sorted(zip(k[near].tolist(), margin[near].tolist()), key=lambda found: found[1])

    def suppressors(self, k: int, among: np.ndarray) -> np.ndarray:
        """Detections `among` those of the other side that would suppress `k`."""
        if among.size:
            among = among[self.there.classes[among] == self.here.classes[k]]
        if not among.size:
            return among
        overlap = self.across[k, among]
        slack = overlap_slack(self.here.boxes[k], self.there.boxes[among], overlap, self.limits.box_floor)
        return among[(overlap > self.limits.nms_iou - slack) & (self.there.scores[among] >= self.here.scores[k] - self.limits.score_floor)]

    def _clipped(self, k: int, size: tuple[float, float]) -> float | None:
        """Width or height that is left of a box at the picture's border, when that is no more than the floor."""
        x1, y1, x2, y2 = self.here.boxes[k]
        left = [side for side, at_border in ((x2 - x1, x1 <= 0 or x2 >= size[0]), (y2 - y1, y1 <= 0 or y2 >= size[1])) if at_border]
        return float(min(left)) if left and min(left) <= self.limits.box_floor else None

    def _tie(self, k: int, proof: ImageSide) -> float | None:
        here = self.here
        same = (proof.classes == here.classes[k]) & (np.abs(proof.boxes - here.boxes[k]).max(1) <= self.limits.box_floor)
        if not (same & (np.abs(proof.scores - here.scores[k]) <= self.limits.score_floor)).any():
            return None
        winners = self.suppressors(k, np.arange(len(self.there)))
        gap = np.abs(self.there.scores[winners] - here.scores[k])
        return float(gap.min()) if gap.size and gap.min() <= 2 * self.limits.score_floor else None


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes (M, 4) with others (M, 4), one by one."""
    inter = np.maximum(np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2]), 0.0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def class_near_tie(ref: ImageSide, cand: ImageSide, pair: tuple[int, int], before: tuple[ImageSide, ImageSide], limits: Limits) -> float | None:
    """The larger score gap between the two classes of a relabelled box, over both sides' own lists from before suppression; None without that proof."""
    gaps = []
    for own, k, other, proof in ((ref, pair[0], cand.classes[pair[1]], before[0]), (cand, pair[1], ref.classes[pair[0]], before[1])):
        there = (proof.classes == other) & (np.abs(proof.boxes - own.boxes[k]).max(1) <= limits.box_floor)
        gap = np.abs(proof.scores[there] - own.scores[k])
        if not gap.size or gap.min() > 2 * limits.score_floor:
            return None
        gaps.append(float(gap.min()))
    return max(gaps)


def explain_image(
    ref: ImageSide, cand: ImageSide, lone: tuple[list[int], list[int]], linked: list[tuple[int, int]], shared: list[tuple[int, int]], limits: Limits,
    before: tuple[ImageSide | None, ImageSide | None] = (None, None), size: tuple[float, float] | None = None,
) -> Causes:
    """Causes of what one side of an image lacks.

    `lone`: positions in `ref` missing from `cand`, and positions in `cand` that `ref` lacks. `linked`: pairs that moved or changed their class;
    each half counts as a detection the other side lacks. `shared`: pairs both sides have. `before`: what each side had before suppression.
    `size`: width and height of the picture, where known.
    """
    across = ref.iou(cand)
    sides = {
        "ref": _Flips("ref", ref, cand, across, lone[0], [i for i, _ in linked], limits),
        "cand": _Flips("cand", cand, ref, across.T, lone[1], [j for _, j in linked], limits),
    }
    causes = sides["ref"].base(np.array([i for i, _ in shared], np.int64), before[1], size)
    causes.update(sides["cand"].base(np.array([j for _, j in shared], np.int64), before[0], size))
    for i, j in linked if before[0] is not None and before[1] is not None else ():
        gap = class_near_tie(ref, cand, (i, j), before, limits) if ref.classes[i] != cand.classes[j] else None
        if gap is not None:
            causes.setdefault(("ref", i), ("class_near_tie", gap))
            causes.setdefault(("cand", j), ("class_near_tie", gap))
    other = {"ref": "cand", "cand": "ref"}
    waiting = [(side, k) for side in sides for k in sides[side].all.tolist() if (side, k) not in causes]
    while causes:
        explained = {side: np.array([k for s, k in causes if s == side], np.int64) for side in sides}
        found: Causes = {}
        for side, k in waiting:
            leaders = sides[side].suppressors(k, explained[other[side]])
            if leaders.size:
                found[(side, k)] = ("follows", causes[(other[side], int(leaders[0]))][1])
        if not found:
            break
        causes.update(found)
        waiting = [item for item in waiting if item not in found]
    shifts = {(i, j): float(np.abs(ref.boxes[i] - cand.boxes[j]).max()) for i, j in linked if ref.classes[i] == cand.classes[j]}
    for side, k in waiting:
        place = 1 if side == "ref" else 0  # of the other side in a pair
        movers = np.array([pair[place] for pair, shift in shifts.items() if shift > limits.box_floor], np.int64)
        leaders = sides[side].suppressors(k, movers) if k in sides[side].lone else movers[:0]
        if leaders.size:
            causes[(side, k)] = ("moved_box", max(shift for pair, shift in shifts.items() if pair[place] in leaders))
    return causes

"""Detections are matched one to one, and only a margin within rounding excuses a difference."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from alignment.detections import DetectionFloor, Rules, assign, compare_detections
from alignment.flips import overlap_slack, paired_iou
from alignment.reasons import Reason, Verdict

FLOOR = DetectionFloor(score=1e-5, box=1e-3)


def detection(x, y, w, h, score, category=1, image=1):
    return {"image_id": image, "category_id": category, "bbox": [x, y, w, h], "score": score}


def scene(seed, images=10, per_image=60):
    """Random detections, far enough from every threshold that rounding flips none."""
    rng = np.random.default_rng(seed)
    return [
        detection(*rng.uniform(0, 280, 2), *rng.uniform(10, 120, 2), rng.uniform(0.06, 1), int(rng.integers(1, 9)), image)
        for image in range(images) for _ in range(per_image)
    ]


def rounded(found, seed=0, score=4e-6, box=4e-4):
    rng = np.random.default_rng(seed)
    return [{**one, "bbox": [v + rng.uniform(-box, box) for v in one["bbox"]], "score": one["score"] + rng.uniform(-score, score)} for one in found]


BASE = [detection(10, 10, 100, 100, 0.9), detection(300, 20, 50, 80, 0.7), detection(150, 200, 60, 60, 0.4, 2)]


def counts(diff):
    return {name: getattr(diff, name) for name in ("matched", "moved", "missing", "extra", "relabelled", "unexplained")}


@pytest.mark.parametrize("seed", range(30))
def test_no_fault_no_alarm(seed):
    ref = scene(seed)
    cand = rounded(ref, seed)
    np.random.default_rng(seed).shuffle(cand)
    diff = compare_detections(ref, cand, floor=FLOOR)
    assert counts(diff) == {"matched": len(ref), "moved": 0, "missing": 0, "extra": 0, "relabelled": 0, "unexplained": 0}
    assert 0 < diff.max_box_diff <= FLOOR.box and 0 < diff.max_score_diff <= FLOOR.score and diff.row().verdict is Verdict.PASS


@pytest.mark.parametrize("spoil, kind", [
    (lambda d: d[1:], "missing"),
    (lambda d: d + [detection(400, 300, 40, 40, 0.5)], "extra"),
    (lambda d: d + [dict(d[0])], "extra"),
    (lambda d: d + [{**d[0], "score": 0.3}], "extra"),
    (lambda d: [{**d[0], "category_id": 5}, *d[1:]], "relabelled"),
    (lambda d: [{**d[0], "bbox": [11, 10, 100, 100]}, *d[1:]], "moved"),
    (lambda d: [{**d[0], "score": 0.8}, *d[1:]], "moved"),
    (lambda d: [{**d[0], "score": float("nan")}, *d[1:]], "moved"),
], ids=["missing", "extra", "duplicate", "duplicate below", "relabelled", "box", "score", "nan score"])
def test_each_kind_of_unexplained_difference(spoil, kind):
    diff = compare_detections(BASE, spoil(list(BASE)), floor=FLOOR)
    assert getattr(diff, kind) == 1 and diff.unexplained == 1 and [one.kind for one in diff.differences] == [kind]
    row = diff.row()
    assert (row.verdict, row.reason) == (Verdict.FAIL, Reason.UNEXPLAINED_DETECTIONS) and f"first is {kind}" in row.hint


def test_nan_box_is_never_close():
    diff = compare_detections(BASE, [{**BASE[0], "bbox": [float("nan")] * 4}, *BASE[1:]], floor=FLOOR)
    assert (diff.missing, diff.extra, diff.unexplained) == (1, 1, 2)


@pytest.mark.parametrize("fault", [
    lambda d: {**d, "bbox": [d["bbox"][0] + 2, *d["bbox"][1:]]}, lambda d: {**d, "category_id": d["category_id"] % 8 + 1},
    lambda d: {**d, "score": d["score"] * 0.99}, lambda d: {**d, "bbox": [d["bbox"][1], d["bbox"][0], d["bbox"][3], d["bbox"][2]]},
    lambda d: {**d, "bbox": [round(v) for v in d["bbox"]]},
], ids=["boxes shifted", "classes off by one", "scores scaled", "x and y swapped", "boxes rounded to pixels"])
def test_a_systematic_bug_is_not_explained_away(fault):
    """With a hundred detections an image, every rule has its chance to excuse something."""
    ref = scene(1, images=6, per_image=100)
    diff = compare_detections(ref, [fault(one) for one in ref], floor=FLOOR)
    assert diff.unexplained > 0.98 * (len(ref) - diff.matched) and diff.row().failed


def test_matching_is_one_to_one_and_optimal():
    """Pairing greedily by score would give the first reference box to the second candidate and leave a poor pair."""
    ref = [detection(0, 0, 100, 100, 0.9), detection(40, 0, 100, 100, 0.8)]
    cand = [detection(18, 0, 100, 100, 0.9), detection(-18, 0, 100, 100, 0.8)]
    diff = compare_detections(ref, cand, floor=FLOOR)
    assert (diff.moved, diff.missing, diff.extra) == (2, 0, 0)
    assert {(one.box_ref[0], one.box_cand[0]) for one in diff.differences} == {(0, -18), (40, 18)}


@pytest.mark.parametrize("seed", range(40))
def test_assign_equals_the_hungarian_algorithm(seed):
    rng = np.random.default_rng(seed)
    overlap = rng.uniform(0, 1, (rng.integers(1, 9), rng.integers(1, 9)))
    pairs = assign(overlap, 0.5)
    cost = np.where(overlap >= 0.5, 1 - overlap, 1e3)
    best = cost[linear_sum_assignment(cost)]
    assert len(pairs) == np.count_nonzero(best < 1e3) and len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert sum(1 - overlap[i, j] for i, j in pairs) == pytest.approx(best[best < 1e3].sum())


def test_score_threshold():
    at = detection(400, 300, 40, 40, 0.05 + 4e-6)
    diff = compare_detections(BASE + [at], BASE, floor=FLOOR)
    assert counts(diff) | {"matched": 3, "missing": 1, "unexplained": 0} == counts(diff)
    assert diff.differences[0].cause == "score_threshold" and diff.differences[0].margin == pytest.approx(4e-6)
    above = detection(400, 300, 40, 40, 0.05 + 4e-5)
    assert compare_detections(BASE + [above], BASE, floor=FLOOR).unexplained == 1


def overlapping(iou, shift=0.0):
    """A box and a second one below it in score whose IoU with the first is as asked."""
    width = 100 * (1 - iou) / (1 + iou)
    return [detection(0, 0, 100, 100, 0.9), detection(width + shift, 0, 100, 100, 0.6)]


@pytest.mark.parametrize("iou, cause", [(0.6 - 1e-6, "nms_overlap"), (0.6 - 1e-4, ""), (0.55, ""), (0.9, "")])
def test_nms_overlap(iou, cause):
    ref = overlapping(iou)
    for left, right, kind in ((ref, ref[:1], "missing"), (ref[:1], ref, "extra")):
        diff = compare_detections(left, right, floor=DetectionFloor(1e-5, 1e-4))
        assert [(one.kind, one.cause) for one in diff.differences] == [(kind, cause)]


def test_nms_overlap_needs_a_better_box_of_the_same_class():
    ref = overlapping(0.6 - 1e-6)
    other_class = [ref[0], {**ref[1], "category_id": 2}]
    assert compare_detections(other_class, other_class[:1], floor=FLOOR).unexplained == 1
    assert compare_detections(ref, ref[1:], floor=FLOOR).unexplained == 1


def test_best_100():
    ref = [detection(10 * k, 0, 8, 8, 0.9 - 0.005 * k) for k in range(100)]
    swapped = ref[:99] + [detection(0, 300, 8, 8, ref[99]["score"] + 1e-6)]
    diff = compare_detections(ref, swapped, floor=FLOOR)
    assert {one.kind: one.cause for one in diff.differences} == {"missing": "best_100", "extra": "best_100"} and diff.unexplained == 0
    # The cut explains nothing while the other side has room, nor a detection well above the last.
    assert compare_detections(ref, swapped[:99], floor=FLOOR).unexplained == 1
    assert compare_detections(ref, ref[:50] + swapped[51:], floor=FLOOR).unexplained >= 1


def test_a_flip_that_follows_an_explained_flip():
    """The second box falls at the overlap threshold; with it gone, a third one that it had suppressed appears."""
    ref = overlapping(0.6 - 1e-6)
    third = {**ref[1], "bbox": [ref[1]["bbox"][0] + 70, 0, 100, 100], "score": 0.3}
    near = {**ref[1], "bbox": [ref[1]["bbox"][0] + 20, 0, 100, 100], "score": 0.3}
    diff = compare_detections(ref, [ref[0], near], floor=FLOOR)
    assert [(one.kind, one.cause) for one in diff.differences] == [("moved", "nms_overlap")]
    assert compare_detections(ref, [ref[0], third], floor=FLOOR).unexplained == 1


def test_both_halves_of_a_moved_pair_need_a_cause():
    """The old box falls at the overlap threshold, but nothing explains the new one: it would not have been suppressed by the old."""
    ref = overlapping(0.6 - 1e-6)
    new = {**ref[1], "bbox": [ref[1]["bbox"][0] + 28, 0, 100, 100], "score": 0.3}
    diff = compare_detections(ref, [ref[0], new], floor=FLOOR)
    assert [(one.kind, one.cause) for one in diff.differences] == [("moved", "")]


def test_neither_threshold_nor_cut_excuses_a_moved_or_relabelled_box():
    """Its partner on the other side was kept with the same score, so neither can have removed it."""
    at = detection(400, 300, 40, 40, 0.05 + 1e-6)
    for wrong in ({**at, "bbox": [402, 300, 40, 40]}, {**at, "category_id": 2}):
        assert compare_detections(BASE + [at], BASE + [wrong], floor=FLOOR).unexplained == 1
    full = [detection(10 * k, 0, 8, 8, 0.9 - 0.005 * k) for k in range(100)]
    for wrong in ({**full[99], "bbox": [992, 0, 8, 8]}, {**full[99], "category_id": 2}):
        assert compare_detections(full, full[:99] + [wrong], floor=FLOOR).unexplained == 1


def test_a_near_tie_needs_proof():
    ref, cand = [detection(0, 0, 100, 100, 0.5)], [detection(12, 0, 100, 100, 0.500004)]
    assert compare_detections(ref, cand, floor=FLOOR).unexplained == 1
    both = ref + cand
    diff = compare_detections(ref, cand, floor=FLOOR, candidates_ref=rounded(both), candidates_cand=rounded(both, 1))
    assert [(one.kind, one.cause) for one in diff.differences] == [("moved", "near_tie")]
    assert compare_detections(ref, cand, floor=FLOOR, candidates_ref=ref, candidates_cand=cand).unexplained == 1
    # The box was there before suppression, but with another score: that is no tie.
    other = [{**one, "score": 0.3} for one in both]
    assert compare_detections(ref, cand, floor=FLOOR, candidates_ref=other, candidates_cand=other).unexplained == 1


def test_a_wide_floor_decides_nothing_once_it_is_needed():
    at = detection(400, 300, 40, 40, 0.0501)
    diff = compare_detections(BASE + [at], BASE, floor=DetectionFloor(1e-2, 1e-3))
    assert diff.unexplained == 0 and (diff.row().verdict, diff.row().reason) == (Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE)


def test_nothing_on_either_side():
    row = compare_detections([], [], floor=FLOOR).row()
    assert (row.verdict, row.reason) == (Verdict.NOT_COMPARABLE, Reason.NOTHING_COMPARED)
    assert compare_detections(BASE, [], floor=FLOOR).missing == 3 and compare_detections([], BASE, floor=FLOOR).extra == 3


@pytest.mark.parametrize("bad", [{"image_id": 1}, {**BASE[0], "bbox": [1, 2, 3]}, {**BASE[0], "bbox": "x"}])
def test_malformed(bad):
    with pytest.raises(ValueError):
        compare_detections([bad], BASE, floor=FLOOR)


def test_overlap_slack_bounds_what_rounding_can_do():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 60, (2, 500, 2)), rng.uniform(5, 80, (2, 500, 2))
    a, b = np.concatenate([corner, corner + size], -1)
    exact = paired_iou(a, b)
    slack = overlap_slack(a, b, exact, 1e-3)
    for _ in range(50):
        moved = paired_iou(a + rng.choice([-1e-3, 1e-3], a.shape), b + rng.choice([-1e-3, 1e-3], b.shape))
        assert np.all(np.abs(moved - exact) <= slack)


def test_the_rules_are_the_callers():
    at = detection(400, 300, 40, 40, 0.3)
    assert compare_detections(BASE + [at], BASE, floor=FLOOR, rules=Rules(score_threshold=0.3)).unexplained == 0


def test_hundreds_of_images_take_seconds():
    ref = scene(2, images=200, per_image=100)
    cand, start = rounded(ref), time.perf_counter()
    compare_detections(ref, cand, floor=FLOOR)
    assert time.perf_counter() - start < 5


def test_a_relabelled_box_needs_both_classes_on_both_sides_as_proof() -> None:
    ref, cand = [detection(10, 10, 50, 50, 0.5, 1)], [detection(10, 10, 50, 50, 0.500004, 2)]
    both = [detection(10, 10, 50, 50, 0.5, 1), detection(10, 10, 50, 50, 0.499996, 2)], [detection(10, 10, 50, 50, 0.499999, 1), detection(10, 10, 50, 50, 0.500004, 2)]
    proven = compare_detections(ref, cand, floor=FLOOR, candidates_ref=both[0], candidates_cand=both[1])
    assert proven.causes == {"class_near_tie": 1} and proven.differences[0].margin == pytest.approx(5e-6)
    assert compare_detections(ref, cand, floor=FLOOR).unexplained == 1
    assert compare_detections(ref, cand, floor=FLOOR, candidates_ref=ref, candidates_cand=cand).unexplained == 1


def test_what_clipping_leaves_of_a_box() -> None:
    sliver = detection(399.9995, 10, 0.0005, 50, 0.5)
    assert compare_detections([*BASE, sliver], BASE, floor=FLOOR, sizes={1: (400, 300)}).causes == {"border_clip": 1}
    assert compare_detections([*BASE, {**sliver, "bbox": [200, 10, 0.0005, 50]}], BASE, floor=FLOOR, sizes={1: (400, 300)}).unexplained == 1


def test_a_moved_box_stays_unexplained_and_explains_what_it_suppressed() -> None:
    ref = [detection(100, 100, 100, 100, 0.9), detection(140, 100, 100, 100, 0.5)]
    found = compare_detections(ref, [detection(125, 100, 100, 100, 0.9)], floor=FLOOR)
    assert found.causes == {"moved_box": 1, "unexplained": 1} and not found.row().verdict is Verdict.PASS


def test_different_pixels_are_a_cause_only_where_pixels_differ() -> None:
    moved = [detection(12, 10, 100, 100, 0.9), *BASE[1:]]
    assert compare_detections(BASE, moved, floor=FLOOR, pixels={1: 0.25}).causes == {"different_pixels": 1}
    assert compare_detections(BASE, moved, floor=FLOOR, pixels={2: 0.25}).unexplained == 1

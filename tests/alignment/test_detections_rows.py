"""alignment.detections, field by field: every difference, count and row as a whole; limits just under, at and just over."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from alignment.detections import DetectionDiff, DetectionFloor, Difference, Rules, _difference, assign, compare_detections
from alignment.flips import ImageSide
from alignment.noise import WIDEST_BOX_FLOOR, WIDEST_SCORE_FLOOR
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult, plain

FLOOR = DetectionFloor(score=2.0**-12, box=2.0**-6)


def one(box, score, category=1, image=7):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


A = one((0, 0, 64, 64), 0.75)
B = one((200, 0, 32, 64), 0.5, 2)


def differences(ref, cand, **more):
    return compare_detections(ref, cand, floor=more.pop("floor", FLOOR), **more).differences


@pytest.mark.parametrize(("cand", "box", "box_diff", "score", "score_diff"), [
    ({"bbox": [1, 0, 64, 64]}, (1, 0, 64, 64), 1.0, 0.75, 0.0), ({"score": 0.5}, (0, 0, 64, 64), 0.0, 0.5, 0.25), ({"score": 1.0}, (0, 0, 64, 64), 0.0, 1.0, 0.25),
    ({"bbox": [0, 0, 64, 66]}, (0, 0, 64, 66), 2.0, 0.75, 0.0), ({"bbox": [-4, 0, 64, 64]}, (-4, 0, 64, 64), 4.0, 0.75, 0.0),
])
def test_a_moved_detection(cand, box, box_diff, score, score_diff):
    assert differences([A, B], [{**A, **cand}, B]) == [Difference("moved", 7, 1, 1, (0, 0, 64, 64), box, 0.75, score, box_diff, score_diff, "", None)]


def test_a_relabelled_detection():
    assert differences([A], [{**A, "category_id": 3, "score": 0.5}]) == [Difference("relabelled", 7, 1, 3, (0, 0, 64, 64), (0, 0, 64, 64), 0.75, 0.5, 0.0, 0.25, "", None)]


def test_a_missing_and_an_extra_detection():
    assert differences([A, B], [A]) == [Difference("missing", 7, 2, None, (200, 0, 32, 64), None, 0.5, None, None, None, "", None)]
    assert differences([A], [A, B]) == [Difference("extra", 7, None, 2, None, (200, 0, 32, 64), None, 0.5, None, None, "", None)]


def test_a_cause_and_its_margin():
    low = one((400, 0, 8, 8), 0.05 + 2.0**-13)
    (found,) = differences([A, low], [A])
    assert (found.cause, found.margin) == ("score_threshold", pytest.approx(2.0**-13))
    assert differences([A], [{**A, "score": 0.5}], pixels={7: 0.25}) == [
        Difference("moved", 7, 1, 1, (0, 0, 64, 64), (0, 0, 64, 64), 0.75, 0.5, 0.0, 0.25, "different_pixels", 0.25)]
    # a cause of its own stays, and so does what came before in other images
    found = differences([one((0, 0, 9, 9), 0.5, image=1), A, low], [A], pixels={7: 0.25})
    assert [(d.image_id, d.cause) for d in found] == [(1, ""), (7, "score_threshold")]


def test_a_pair_has_the_larger_margin_of_its_halves():
    """The reference's box lies at the overlap threshold with one rival, the candidate's with another."""
    rules = Rules(nms_iou=0.5, score_threshold=0.01)
    rivals = [one((0, 0, 48, 16), 0.9), one((64.0078125, 0, 48, 16), 0.9)]
    ref, cand = [*rivals, one((16, 0, 48, 16), 0.75)], [*rivals, one((48, 0, 48, 16), 0.75)]
    for left, right in ((ref, cand), (cand, ref)):
        diff = compare_detections(left, right, floor=FLOOR, rules=dataclasses.replace(rules, pair_iou=0.1))
        (found,) = diff.differences
        assert (found.kind, found.cause) == ("moved", "nms_overlap") and found.margin > 0


def test_the_counts():
    ref = [A, one((100, 0, 64, 64), 0.75), one((300, 0, 9, 9), 0.5), one((0, 0, 9, 9), 0.5, image=9)]
    cand = [A, one((101, 0, 64, 64), 0.5), one((300, 0, 9, 9), 0.5, 3), one((400, 0, 9, 9), 0.5), one((0, 0, 9, 9), 0.5, image=2)]
    diff = compare_detections(ref, cand, floor=FLOOR)
    document = plain(diff.to_json())
    assert len(document.pop("differences")) == 5 and json.dumps(document) and document == {
        "floor": {"score": FLOOR.score, "box": FLOOR.box}, "rules": {"score_threshold": 0.05, "nms_iou": 0.6, "max_per_image": 100, "pair_iou": 0.5, "same_box_iou": 0.99}, "images": 3,
        "total_ref": 4, "total_cand": 5, "matched": 1, "moved": 1, "missing": 1, "extra": 2, "relabelled": 1, "unexplained": 5, "max_box_diff": 1.0, "max_score_diff": 0.25,
        "causes": {"unexplained": 5}}
    assert [d.image_id for d in diff.differences] == [2, 7, 7, 7, 9] and all(type(d.image_id) is int for d in diff.differences)


@pytest.mark.parametrize(("box", "score", "matched"), [
    (FLOOR.box, 0.0, 1), (FLOOR.box + 2.0**-20, 0.0, 0), (0.0, FLOOR.score, 1), (0.0, FLOOR.score + 2.0**-30, 0), (FLOOR.box, -FLOOR.score, 1), (-FLOOR.box, 0.0, 1),
])
def test_at_the_floor_and_over_it(box, score, matched):
    diff = compare_detections([A], [{**A, "bbox": [box, 0, 64 - box, 64], "score": 0.75 + score}], floor=FLOOR)
    assert (diff.matched, diff.moved) == (matched, 1 - matched)


@pytest.mark.parametrize(("width", "kind"), [(32, "moved"), (31.75, "apart")])
def test_the_least_overlap_of_a_pair(width, kind):
    """IoU width / 64, with one half as the least."""
    found = differences([A], [{**A, "bbox": [0, 0, width, 64]}])
    assert [d.kind for d in found] == (["moved"] if kind == "moved" else ["missing", "extra"])


@pytest.mark.parametrize(("height", "kinds"), [(63, ["relabelled"]), (62.9, ["missing", "extra"])])
def test_the_least_overlap_of_one_box_with_two_labels(height, kinds):
    found = differences([A], [{**A, "bbox": [0, 0, 64, height], "category_id": 2}], rules=Rules(same_box_iou=63 / 64))
    assert [d.kind for d in found] == kinds


def test_whole_numbers_and_single_precision_are_compared_in_double():
    """A box of whole numbers and a score in float32 are the same detection as their doubles."""
    ref = [one(np.array([200, 0, 100, 200], np.uint8), np.float32(0.75))]
    assert compare_detections(ref, [one((200.0, 0.0, 100.0, 200.0), 0.75)], floor=FLOOR).matched == 1
    big = [one((2**24 + 1, 0, 8, 8), 0.75)]
    assert differences(big, [one((2**24 + 3, 0, 8, 8), 0.75)], floor=DetectionFloor(1e-3, 1.0))[0].box_diff == 2.0


def test_images_in_any_order_with_any_count():
    rng = np.random.default_rng(0)
    ref = [one((*rng.uniform(0, 300, 2), 20, 20), rng.uniform(0.1, 1), int(rng.integers(1, 4)), int(image)) for image in rng.permutation(np.repeat([3, 1, 2, 50], [1, 5, 2, 9]))]
    cand = [ref[k] for k in rng.permutation(len(ref))]
    diff = compare_detections(ref, cand, floor=FLOOR)
    assert (diff.images, diff.matched, diff.differences) == (4, 17, [])
    assert {d.image_id: d.kind for d in differences(ref, [d for d in cand if d["image_id"] != 3])} == {3: "missing"}


def test_differences_of_an_image_stand_in_the_order_of_its_detections():
    many = [one((9 * k, 0, 8, 8), 0.5, image=7 - k % 2) for k in range(200)]
    assert [(d.image_id, d.box_ref[0]) for d in differences(many, [])] == [(6, 9 * k) for k in range(1, 200, 2)] + [(7, 9 * k) for k in range(0, 200, 2)]


def test_the_larger_margin_speaks_whatever_the_causes_are_called():
    box = ImageSide(np.float64([[0, 0, 8, 8]]), np.array([1]), np.array([0.5]))
    for ref, cand in ((("nms_overlap", 0.125), ("follows", 0.25)), (("follows", 0.25), ("nms_overlap", 0.125))):
        found = _difference("moved", 7, box, box, 0, 0, {("ref", 0): ref, ("cand", 0): cand})
        assert (found.cause, found.margin) == ("follows", 0.25)


@pytest.mark.parametrize(("bad", "said"), [
    ({"image_id": 1}, r"^a detection lacks image_id, category_id, bbox or score \('category_id'\)$"), ({**A, "score": {}}, "^a detection lacks image_id, category_id, bbox or score"),
    ({**A, "bbox": [1, 2, 3]}, "^a bbox must be the four numbers x, y, w, h$"), ({**A, "bbox": 3}, "^a bbox must be the four numbers x, y, w, h$"),
    ({**A, "bbox": [[1, 2, 3, 4]]}, "^a bbox must be the four numbers x, y, w, h$"),
])
def test_what_is_no_detection(bad, said):
    with pytest.raises(ValueError, match=said):
        compare_detections([bad], [A], floor=FLOOR)


@pytest.mark.parametrize(("overlap", "least", "pairs"), [
    ([[0.5]], 0.5, [(0, 0)]), ([[0.4999999]], 0.5, []), (np.zeros((0, 3)), 0.5, []), ([[0.6, 0.9], [0.8, 0.85]], 0.5, [(0, 1), (1, 0)]),
    # as many pairs as possible come first, however poor
    ([[0.9, 0.51], [0.9, 0.0]], 0.5, [(0, 1), (1, 0)]), ([[0.99, 0.5], [0.99, 0.1]], 0.5, [(0, 1), (1, 0)]), ([[0.9, 0.0, 0.0], [0.8, 0.0, 0.0]], 0.5, [(0, 0)]),
])
def test_assignment(overlap, least, pairs):
    assert sorted(assign(np.array(overlap), least)) == pairs


def test_an_overlap_of_nothing_may_be_asked_for():
    """Pairs that are not allowed count less than any that is."""
    assert assign(np.array([[0.0, -1.0], [-1.0, 0.0]]), 0.0) == [(0, 0), (1, 1)]


# -- the row


def row(diff):
    return diff.row()


def base(**more) -> TensorResult:
    return TensorResult(**{"name_ref": "detections", "name_cand": "detections", "verdict": Verdict.PASS, "reason": Reason.OK, "gate": Gate.EXACT, "stage": "post", "size": 0, "max_abs": 0.0,
                           "beyond": 0, **more})


def test_rows():
    assert row(compare_detections([A, B], [A, {**B, "score": 0.5 + FLOOR.score}], floor=FLOOR)) == base(size=2, max_abs=FLOOR.score)
    assert compare_detections([A], [A], floor=FLOOR).row("boxes") == base(name_ref="boxes", name_cand="boxes", size=1)
    assert row(compare_detections([], [], floor=FLOOR)) == base(verdict=Verdict.NOT_COMPARABLE, reason=Reason.NOTHING_COMPARED, gate=Gate.COUNT, hint="no detection on either side")
    assert row(compare_detections([A, B], [A], floor=FLOOR)) == base(verdict=Verdict.FAIL, reason=Reason.UNEXPLAINED_DETECTIONS, size=2, beyond=1,
                                                                     hint="1 differences without a cause; the first is missing in image 7")
    assert row(compare_detections([], [A], floor=FLOOR)).hint == "1 differences without a cause; the first is extra in image 7"


@pytest.mark.parametrize(("score", "box", "wide"), [
    (WIDEST_SCORE_FLOOR, WIDEST_BOX_FLOOR, False), (WIDEST_SCORE_FLOOR + 1e-9, 0.0, True), (0.0, WIDEST_BOX_FLOOR + 1e-9, True), (0.0, 0.0, False),
])
def test_a_floor_too_wide_once_it_is_needed(score, box, wide):
    explained = Difference("missing", 7, 1, None, (0, 0, 1, 1), None, 0.05, None, cause="score_threshold", margin=0.0)
    diff = DetectionDiff(DetectionFloor(score, box), Rules(), total_ref=3, total_cand=2, differences=[explained])
    hint = f"causes rest on a floor of {score:.3g} in score and {box:.3g} pixels, which is too wide to decide"
    assert diff.row() == (base(size=3, verdict=Verdict.INCONCLUSIVE, reason=Reason.FLOOR_TOO_WIDE, hint=hint) if wide else base(size=3))
    assert dataclasses.replace(diff, differences=[]).row() == base(size=3)

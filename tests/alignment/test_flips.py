"""alignment.flips, rule by rule: each cause just within its margin, at it, and just outside. Scores and corners are binary fractions, so limits are exact."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.flips import ImageSide, Limits, _Flips, class_near_tie, explain_image, overlap_slack, paired_iou

LIMITS = Limits(score_floor=0.125, box_floor=0.5, score_threshold=0.25, nms_iou=0.5, max_per_image=2)


def side(*boxes) -> ImageSide:
    """Each (x1, y1, x2, y2, score) or (..., score, class)."""
    rows = [(*box, 1) if len(box) == 5 else box for box in boxes]
    return ImageSide(np.array([r[:4] for r in rows], np.float64), np.array([r[5] for r in rows]), np.array([r[4] for r in rows], np.float64)) if rows else ImageSide.empty()


def lone(ref, cand, *, before=(None, None), size=None, limits=LIMITS, linked=(), shared=()):
    """Causes when nothing is paired but `linked` and `shared`."""
    left = [i for i in range(len(ref)) if i not in {i for i, _ in (*linked, *shared)}]
    right = [j for j in range(len(cand)) if j not in {j for _, j in (*linked, *shared)}]
    return explain_image(ref, cand, (left, right), list(linked), list(shared), limits, before, size)


# -- geometry


def test_nobody():
    none = ImageSide.empty()
    assert len(none) == 0 and (none.boxes.shape, none.classes.shape, none.scores.shape) == ((0, 4), (0,), (0,)) and none.classes.dtype == np.int64
    assert none.iou(side((0, 0, 1, 1, 0.5))).shape == (0, 1)


def test_width_height_and_area():
    found = side((1, 2, 4, 9, 0.5), (1, 2, 1.5, 2.25, 0.5), (4, 9, 1, 2, 0.5), (1, 2, 1, 9, 0.5))
    assert found.xywh(0) == (1, 2, 3, 7) and found.areas().tolist() == [21, 0.125, 0, 0]


@pytest.mark.filterwarnings("error")
def test_overlaps():
    boxes = side((0, 0, 2, 2, 0), (1, 1, 3, 2, 0), (5, 5, 6, 6, 0), (0, 0, 0.5, 0.5, 0), (7, 7, 7, 7, 0), (2, 0, 4, 2, 0))
    expected = np.zeros((6, 6))
    np.fill_diagonal(expected, 1.0)
    expected[4, 4] = 0  # a box without area overlaps nothing, not even itself
    for i, j, value in ((0, 1, 1 / 5), (0, 3, 0.25 / 4), (1, 5, 1 / 5)):
        expected[i, j] = expected[j, i] = value
    assert boxes.iou(boxes) == pytest.approx(expected)
    rows, columns = np.indices((6, 6)).reshape(2, -1)
    assert paired_iou(boxes.boxes[rows], boxes.boxes[columns]).reshape(6, 6) == pytest.approx(expected)


def test_slack_is_its_formula():
    """Boxes 4 x 2 and 2 x 8 with an intersection of 2 x 1, corners that move by 0.25."""
    a, b = np.array([0.0, 0, 4, 2]), np.array([1.0, 1, 3, 9])
    change, grown, union = 0.5 * (3 + 0.5), 0.5 * (6 + 10 + 1), 8 + 16 - 2
    expected = (change + 0.125 * (grown + change)) / union
    assert overlap_slack(a, b, np.array(0.125), 0.25) == pytest.approx(expected)
    many = overlap_slack(np.stack([a, a, b]), b, np.array([0.125, 0.25, 1.0]), 0.25)
    assert many[0] == pytest.approx(expected) and many[1] == pytest.approx((change + 0.25 * (grown + change)) / union)
    own = 0.5 * (10 + 0.5)
    assert many[2] == pytest.approx((own + 0.5 * (20 + 1) + own) / 16)
    assert overlap_slack(np.stack([a, a]), np.stack([b, b]), np.array([0.125, 0.125]), 0.25) == pytest.approx([expected] * 2)


def test_slack_of_boxes_apart_and_without_area():
    apart = overlap_slack(np.array([0.0, 0, 4, 2]), np.array([10.0, 10, 12, 18]), np.array(0.0), 0.25)
    assert apart == pytest.approx(0.25 / 24)
    assert overlap_slack(np.array([0.0, 0, 0, 2]), np.array([10.0, 10, 10, 18]), np.array(0.0), 0.25) > 1e300
    assert overlap_slack(np.array([3.0, 0, 0, 2]), np.array([0.0, 0, 4, 2]), np.array(0.0), 0.25) == pytest.approx(0.5 * (2 + 0.5) / 8)


# -- causes of a lone detection


@pytest.mark.parametrize(("score", "cause"), [(0.25, 0.0), (0.375, 0.125), (0.125, -0.125), (0.3750001, None), (0.1249999, None)])
def test_score_threshold(score, cause):
    box = side((0, 0, 9, 9, score))
    expected = {} if cause is None else {("ref", 0): ("score_threshold", cause)}
    assert lone(box, ImageSide.empty()) == expected
    assert lone(ImageSide.empty(), box) == {("cand", k): v for (_, k), v in expected.items()}


@pytest.mark.parametrize(("score", "lowest", "count", "mine", "explained"), [
    (0.75, 0.75, 2, 1, True), (0.875, 0.75, 2, 1, True), (0.8750001, 0.75, 2, 1, False), (0.5, 0.75, 2, 1, True), (0.75, 0.75, 3, 1, True), (0.75, 0.75, 1, 1, False), (0.75, 0.75, 2, 2, True),
    (0.75, 0.75, 2, 3, False),
])
def test_best_100(score, lowest, count, mine, explained):
    """The cut is at two. `count` are kept there, the lowest with the score `lowest`; `mine` here."""
    here = side(*[(100 * k, 0, 100 * k + 9, 9, score) for k in range(mine)])
    there = side(*[(100 * k, 500, 100 * k + 9, 509, lowest + 0.125 * k) for k in range(count)])
    found = lone(here, there)
    assert found.get(("ref", 0)) == (("best_100", lowest - score) if explained else None)


@pytest.mark.parametrize(("box", "left"), [
    ((0, 10, 0.5, 60), 0.5), ((0, 10, 0.5000001, 60), None), ((99.5, 10, 100, 60), 0.5), ((99.75, 10, 100, 60), 0.25), ((10, 0, 60, 0.5), 0.5), ((10, 49.5, 60, 50), 0.5),
    ((10, 49.25, 60, 50), None), ((50, 10, 50.5, 40), None), ((10, 20, 60, 20.5), None), ((0.5, 10, 1, 40), None), ((10, 0.5, 60, 1), None), ((49.5, 10, 50, 40), None),
    ((0, 0, 0.25, 0.5), 0.25), ((0, 0, 60, 0.5), 0.5), ((-1, 10, -0.75, 60), 0.25), ((10, 50, 60, 50.5), 0.5), ((100, 10, 100.5, 40), 0.5),
])
def test_border_clip(box, left):
    """The picture is 100 wide and 50 high."""
    found = lone(side((*box, 0.75)), ImageSide.empty(), size=(100, 50))
    assert found == ({} if left is None else {("ref", 0): ("border_clip", left)})
    assert lone(ImageSide.empty(), side((*box, 0.75)), size=(100, 50)) == {("cand", k): v for (_, k), v in found.items()}
    assert lone(side((*box, 0.75)), ImageSide.empty()) == {}


NEAR = Limits(score_floor=0.125, box_floor=0.001, score_threshold=0.0, nms_iou=0.5, max_per_image=100)


@pytest.mark.parametrize(("rival_score", "explained"), [(0.75, True), (0.5, True), (0.375, True), (0.3749999, False)])
def test_nms_overlap_needs_a_rival_that_is_not_worse(rival_score, explained):
    """IoU of both boxes: 2 / 4, the threshold itself."""
    one, two = (0, 0, 3, 1, rival_score), (1, 0, 4, 1, 0.5)
    ref = side(one, two)
    found = lone(ref, side(one), shared=[(0, 0)], limits=NEAR)
    assert found == ({("ref", 1): ("nms_overlap", 0.0)} if explained else {})
    assert lone(side(one), ref, shared=[(0, 0)], limits=NEAR) == {("cand", k): v for (_, k), v in found.items()}


@pytest.mark.parametrize("shift", [0.0, 0.002, 0.004, 0.006, 0.01, 0.1])
def test_nms_overlap_within_the_slack_of_the_box_floor(shift):
    ref = side((0, 0, 3, 1, 0.75), (1 + shift, 0, 4 + shift, 1, 0.5))
    overlap = float(ref.iou(ref)[0, 1])
    slack = float(overlap_slack(ref.boxes[1], ref.boxes[0], np.array(overlap), 0.001))
    found = lone(ref, side((0, 0, 3, 1, 0.75)), shared=[(0, 0)], limits=NEAR)
    assert (("ref", 1) in found) == (0.5 - overlap <= slack)
    assert not found or found[("ref", 1)] == ("nms_overlap", pytest.approx(0.5 - overlap))


def test_the_nearest_of_several_rivals_gives_the_margin():
    """And other classes are no rivals."""
    far, near = (0.0005, 0, 3.0005, 1, 0.75), (0, 0, 3, 1, 0.75)
    ref = side(far, near, (1, 0, 4, 1, 0.5))
    assert lone(ref, side(far, near), shared=[(0, 0), (1, 1)], limits=NEAR)[("ref", 2)] == ("nms_overlap", 0.0)
    other = side((*near, 2), (1, 0, 4, 1, 0.5, 1))
    assert lone(other, side((*near, 2)), shared=[(0, 0)], limits=NEAR) == {}


def test_without_a_floor_the_threshold_itself_is_near():
    ref = side((0, 0, 3, 1, 0.75), (1, 0, 4, 1, 0.5))
    exact = Limits(0.125, 0.0, 0.0, 0.5, 100)
    assert lone(ref, side((0, 0, 3, 1, 0.75)), shared=[(0, 0)], limits=exact) == {("ref", 1): ("nms_overlap", 0.0)}


# -- what follows from another flip


@pytest.mark.parametrize(("leader_score", "overlap", "explained"), [(0.5, 3, True), (0.375, 3, True), (0.3749999, 3, False), (0.5, 1, False)])
def test_follows(leader_score, overlap, explained):
    """The candidate has a box at the score threshold; where it lies upon the reference's lone one, it may have suppressed it."""
    limits = Limits(0.125, 0.001, leader_score, 0.5, 100)
    ref, cand = side((0, 0, 4, 1, 0.5)), side((4 - overlap, 0, 8 - overlap, 1, leader_score))
    found = lone(ref, cand, limits=limits)
    causes = {("cand", 0): ("score_threshold", 0.0)}
    if abs(0.5 - leader_score) <= 0.125:
        causes[("ref", 0)] = ("score_threshold", 0.5 - leader_score)
    elif explained:
        causes[("ref", 0)] = ("follows", 0.0)
    assert found == causes


def test_a_chain_of_followers():
    """One at the threshold suppresses the second, whose absence lets a third through: each takes the margin of the first."""
    limits = Limits(0.0625, 0.001, 0.25, 0.5, 100)
    ref = side((0, 0, 4, 1, 0.3125), (2, 0, 6, 1, 0.75))
    cand = side((1, 0, 5, 1, 0.5))
    found = lone(ref, cand, limits=limits)
    assert found == {("ref", 0): ("score_threshold", 0.0625)}  # of lower score, it suppresses nobody
    wide = Limits(0.0625, 0.001, 0.6875, 0.5, 100)
    ref = side((0, 0, 4, 1, 0.75), (2, 0, 6, 1, 0.5))
    cand = side((1, 0, 5, 1, 0.5625))
    assert lone(ref, cand, limits=wide) == {("ref", 0): ("score_threshold", 0.0625), ("cand", 0): ("follows", 0.0625), ("ref", 1): ("follows", 0.0625)}


def test_a_follower_takes_the_smaller_margin_of_two_leaders():
    """Both leaders of the reference lie near the threshold beside the same rival, the later one nearer; either would suppress the candidate's box."""
    ref = side((0, 0, 3, 1, 0.75), (1.002, 0, 4.002, 1, 0.5), (1, 0, 4, 1, 0.5))
    cand = side((0, 0, 3, 1, 0.75), (1.5, 0, 4.5, 1, 0.375))
    found = lone(ref, cand, shared=[(0, 0)], limits=NEAR)
    assert found[("ref", 2)] == ("nms_overlap", 0.0) and found[("ref", 1)][1] > 0
    assert found[("cand", 1)] == ("follows", 0.0)


def test_a_suppressor_must_overlap_more_than_the_threshold_less_the_slack():
    flips = {}
    for shift in (0.99, 1.0, 1.05, 1.002):
        here, there = side((0, 0, 3, 1, 0.5)), side((shift, 0, 3 + shift, 1, 0.5))
        across = here.iou(there)
        made = _Flips("ref", here, there, across, [0], [], NEAR)
        slack = float(overlap_slack(here.boxes[0], there.boxes[0], across[0, 0], NEAR.box_floor))
        flips[shift] = made.suppressors(0, np.array([0])).tolist()
        assert flips[shift] == ([0] if across[0, 0] > 0.5 - slack else [])
    assert flips[1.0] == [0] and flips[1.05] == []
    exact = Limits(0.125, 0.0, 0.0, 0.5, 100)  # no slack: an overlap equal to the threshold survives
    here, there = side((0, 0, 3, 1, 0.5)), side((1, 0, 4, 1, 0.5), (0, 0, 3, 1, 0.375), (0, 0, 3, 1, 0.3749999), (0, 0, 3, 1, 0.9, 2))
    made = _Flips("ref", here, there, here.iou(there), [0], [], exact)
    assert made.suppressors(0, np.arange(4)).tolist() == [1] and made.suppressors(0, np.zeros(0, np.int64)).size == 0


@pytest.mark.parametrize(("moved", "explained"), [(0.5, False), (0.5000001, True), (1.0, True)])
@pytest.mark.parametrize("which", ["ref", "cand"])
def test_moved_box(which, moved, explained):
    """The linked pair moved by so much; there it lies upon the lone box of the side `which`."""
    limits = Limits(0.125, 0.5, 0.0, 0.5, 100)
    still, shifted, alone = (0, 0, 8, 1, 0.75), (moved, 0, 8 + moved, 1, 0.75), (1, 0, 9, 1, 0.25)
    if which == "ref":
        found = lone(side(still, alone), side(shifted), linked=[(0, 0)], limits=limits)
    else:
        found = lone(side(shifted), side(still, alone), linked=[(0, 0)], limits=limits)
    assert found == ({(which, 1): ("moved_box", pytest.approx(moved))} if explained else {})


@pytest.mark.parametrize("which", ["ref", "cand"])
def test_moved_boxes_are_told_apart_by_their_place_on_the_other_side(which):
    """Two pairs moved, each at another place in the two lists; only the one that moved by 1 lies upon the lone box, and its shift is the margin."""
    limits = Limits(0.125, 0.5, 0.0, 0.5, 100)
    here = side((50, 0, 58, 1, 0.75), (1, 0, 9, 1, 0.25), (0, 0, 8, 1, 0.75))
    there = side((1, 0, 9, 1, 0.75), (53, 0, 61, 1, 0.75))
    pairs = [(0, 1), (2, 0)]
    found = lone(here, there, linked=pairs, limits=limits) if which == "ref" else lone(there, here, linked=[(j, i) for i, j in pairs], limits=limits)
    assert found == {(which, 1): ("moved_box", 1.0)}


def test_a_relabelled_box_moves_nothing():
    limits = Limits(0.125, 0.5, 0.0, 0.5, 100)
    assert lone(side((0, 0, 8, 1, 0.75, 1), (1, 0, 9, 1, 0.25, 2)), side((1, 0, 9, 1, 0.75, 2)), linked=[(0, 0)], limits=limits) == {}


# -- proofs from before suppression


@pytest.mark.parametrize(("gap", "proof", "shift", "margin"), [
    (0.125, 0.0, 0.0, 0.125), (0.25, 0.0, 0.0, None), (0.125, 0.125, 0.5, 0.125), (0.125, 0.1250001, 0.0, None), (0.125, 0.0, 0.5000001, None), (-0.125, 0.0, 0.0, 0.125), (-0.2500001, 0.0, 0.0, None),
])
def test_near_tie(gap, proof, shift, margin):
    """The winner there is better by `gap`; before suppression it had this box, `shift` off, with a score `proof` off."""
    here, there = side((0, 0, 8, 8, 0.5)), side((1, 0, 9, 8, 0.5 + gap))
    before = side((shift, 0, 8 + shift, 8, 0.5 + proof), (0, 0, 8, 8, 0.5, 2), (90, 0, 98, 8, 0.5))
    found = lone(here, there, before=(None, before))
    # a winner that is worse by more than the floor is none, and one that is better by more than two floors is no tie
    wins = gap >= -0.125 and abs(gap) <= 0.25 and proof <= 0.125 and shift <= 0.5
    assert found.get(("ref", 0)) == (("near_tie", abs(gap)) if wins else None)
    assert (margin is None) or wins


@pytest.mark.parametrize(("gap", "tied"), [(0.25, True), (0.2500001, False), (0.3, False)])
def test_a_tie_is_within_two_floors(gap, tied):
    here, there = side((0, 0, 8, 8, 0.5)), side((1, 0, 9, 8, 0.5 + gap))
    assert (("ref", 0) in lone(here, there, before=(None, here))) is tied
    assert (("cand", 0) in lone(there, here, before=(here, None))) is tied
    assert lone(here, there, before=(here, None)) == {}  # the proof must be the other side's


BEFORE = (side((0, 0, 8, 8, 0.75, 1), (0, 0, 8, 8, 0.625, 2)), side((0, 0, 8, 8, 0.6875, 1), (0, 0, 8, 8, 0.75, 2)))


def test_class_near_tie():
    ref, cand = side((0, 0, 8, 8, 0.75, 1)), side((0, 0, 8, 8, 0.75, 2))
    assert class_near_tie(ref, cand, (0, 0), BEFORE, LIMITS) == 0.125
    assert lone(ref, cand, linked=[(0, 0)], before=BEFORE) == {("ref", 0): ("class_near_tie", 0.125), ("cand", 0): ("class_near_tie", 0.125)}
    for lacking in ((None, BEFORE[1]), (BEFORE[0], None)):
        assert lone(ref, cand, linked=[(0, 0)], before=lacking) == {}
    one_class = lone(ref, side((0, 0, 8, 8, 0.75, 1)), linked=[(0, 0)], before=BEFORE)  # nothing was relabelled
    assert {cause for cause, _ in one_class.values()} == {"near_tie"}
    shown = side((0, 0, 8, 8, 0.9, 1)), side((0, 0, 8, 8, 0.4, 1))  # of one class, with other scores, just as before suppression
    assert lone(*shown, linked=[(0, 0)], before=shown) == {}


@pytest.mark.parametrize(("score", "shift", "gap"), [(0.5, 0, 0.25), (0.4999999, 0, None), (0.625, 0.5, 0.125), (0.625, 0.5000001, None), (1.0, 0, 0.25), (1.0000001, 0, None)])
@pytest.mark.parametrize("which", [0, 1])
def test_both_classes_were_there_before_suppression(score, shift, gap, which):
    """On one side the other class has such a score and place; on the other side they are equal."""
    ref, cand = side((90, 0, 98, 8, 0.5, 9), (0, 0, 8, 8, 0.75, 1)), side((0, 0, 8, 8, 0.75, 2))
    even = [side((0, 0, 8, 8, 0.75, 1), (0, 0, 8, 8, 0.75, 2)) for _ in range(2)]
    other = 2 - which  # the class that this side did not keep
    even[which] = side((0, 0, 8, 8, 0.75, 3 - other), (0, shift, 8, 8 + shift, score, other))
    found = class_near_tie(ref, cand, (1, 0), tuple(even), LIMITS)
    assert found == (None if gap is None else gap)
    even[which] = ImageSide.empty()
    assert class_near_tie(ref, cand, (1, 0), tuple(even), LIMITS) is None

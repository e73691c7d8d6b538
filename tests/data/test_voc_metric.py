"""VOC's average precision against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet.data.voc_metric import area, average_precision, eleven_points, iou, voc_metrics

BOX = [10, 10, 20, 20]
FAR = [100, 100, 20, 20]


def found(*scores_and_boxes, image=1):
    return [{"image_id": image, "score": score, "bbox": box} for score, box in scores_and_boxes]


def objects(*boxes, hard=()):
    return {1: [(list(box), n in hard) for n, box in enumerate(boxes)]}


@pytest.mark.parametrize("rule", ["2007", "2012"])
@pytest.mark.parametrize(("truth", "detections", "want"), [
    (objects(BOX, FAR), found((0.9, BOX), (0.8, FAR)), {"2007": 1, "2012": 1}),
    (objects(BOX, FAR), [], {"2007": 0, "2012": 0}),
    # recall 1/2 at precision 1: six of the eleven points; half the area
    (objects(BOX, FAR), found((0.9, BOX)), {"2007": 6 / 11, "2012": 0.5}),
    # a second hit on the same object is wrong: precision 1/2 after it, 2/3 at full recall
    (objects(BOX, FAR), found((0.9, BOX), (0.8, BOX), (0.7, FAR)), {"2007": (6 + 5 * 2 / 3) / 11, "2012": 0.5 + 0.5 * 2 / 3}),
    # wrong first: precision 1/2, then 2/3
    (objects(BOX, FAR), found((0.9, [300, 0, 9, 9]), (0.8, BOX), (0.7, FAR)), {"2007": 2 / 3, "2012": 2 / 3}),
    # a difficult object: neither asked for, nor an error however often it is found
    (objects(BOX, FAR, hard={1}), found((0.9, FAR), (0.85, FAR), (0.8, BOX)), {"2007": 1, "2012": 1}),
    # an overlap of exactly one half counts, one below does not
    (objects(BOX), found((0.9, [10, 10, 20, 10])), {"2007": 1, "2012": 1}),
    (objects(BOX), found((0.9, [10, 10, 20, 9.99])), {"2007": 0, "2012": 0}),
])  # fmt: skip
def test_by_hand(truth, detections, want, rule):
    assert average_precision(truth, detections, rule) == pytest.approx(want[rule])


def test_a_detection_belongs_to_the_object_it_overlaps_most():
    """The better one is taken already: then it is wrong, even where a second object overlaps by more than one half."""
    near = [12, 10, 20, 20]
    truth = objects(BOX, near)
    assert average_precision(truth, found((0.9, BOX), (0.8, BOX), (0.7, near)), "2012") == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_equal_scores_keep_their_order():
    truth = objects(BOX)
    assert average_precision(truth, found((0.5, BOX), (0.5, FAR)), "2012") == 1
    assert average_precision(truth, found((0.5, FAR), (0.5, BOX)), "2012") == 0.5


def test_a_class_without_objects_is_left_out_of_the_mean():
    truth = {
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "cow"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": BOX, "ignore": 0}, {"image_id": 1, "category_id": 2, "bbox": BOX, "ignore": 1}],
    }
    detections = [{**one, "category_id": 1} for one in found((0.9, BOX))] + [{**one, "category_id": 3} for one in found((0.9, BOX))]
    assert voc_metrics(truth, detections, "2007") == {"mAP": 1.0, "per_class": {"dog": pytest.approx(1), "cat": None, "cow": None}}
    with pytest.raises(ValueError, match="2010"):
        voc_metrics(truth, detections, "2010")


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_the_sum_over_found_objects(seed):
    """Another way to say it: each found object adds the best precision at its place or later, over the number of objects."""
    rng = np.random.default_rng(seed)
    right = rng.random(40) < 0.5
    positives = int(right.sum()) + 3
    hits = np.cumsum(right)
    precision = hits / np.arange(1, 41)
    want = sum(precision[n:].max() for n in np.flatnonzero(right)) / positives
    assert area(hits / positives, precision) == pytest.approx(want)
    elevens = [precision[hits * 10 >= t * positives].max(initial=0) for t in range(11)]
    assert eleven_points(hits / positives, precision) == pytest.approx(np.mean(elevens))


def test_converted_boxes_have_the_devkits_overlap():
    """The devkit adds 1 to every side of inclusive corners; boxes converted as docs/voc.md says need no such term."""
    a, b = (3, 4, 40, 30), (20, 10, 50, 44)  # xmin, ymin, xmax, ymax
    inter = (min(a[2], b[2]) - max(a[0], b[0]) + 1) * (min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    converted = [[box[0] - 1, box[1] - 1, box[2] - box[0] + 1, box[3] - box[1] + 1] for box in (a, b)]
    assert iou(*converted) == pytest.approx(inter / (sum(areas) - inter))

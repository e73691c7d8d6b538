"""docs/conventions.md, sentence by sentence: test_NN holds sentence NN, at its boundary, on every side that has the code."""
import importlib
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jt_nanodet.config import DatasetConfig, LrScheduleConfig, OptimizerConfig, PipelineConfig, ScheduleConfig, WarmupConfig, load_config
from jt_nanodet.data import warp
from jt_nanodet.data.coco import CocoDataset
from jt_nanodet.data.evaluator import detections_to_coco
from jt_nanodet.data.transforms import preprocess_image

ROOT = Path(__file__).resolve().parents[1]
TORCH, JITTOR = pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor)
HEAD = SimpleNamespace(num_classes=3, reg_max=7, strides=(8, 16, 32, 64))
F = np.float32


class Side:
    """One side's modules by name, and NumPy in and out of them."""

    def __init__(self, package, tensor, numpy):
        self.package, self.tensor, self.numpy = package, tensor, numpy

    def __getattr__(self, name):
        return importlib.import_module(f"{self.package}.{name}")


@pytest.fixture(params=[TORCH, JITTOR])
def side(request):
    """Each framework in turn."""
    if request.param == "jt_nanodet":
        jt = request.getfixturevalue("jittor")
        return Side("jt_nanodet", lambda x: jt.array(np.asarray(x, F)), lambda x: x.numpy())
    torch = pytest.importorskip("torch")
    return Side("torch_ref", lambda x: torch.from_numpy(np.array(x, F)), lambda x: x.detach().numpy())


@pytest.fixture(params=[TORCH, JITTOR])
def nms(request):
    """multiclass_nms of each side on NumPy arrays: (boxes, scores, ...) to (detections, labels, priors)."""
    found = importlib.import_module(f"{request.param}.postprocess").multiclass_nms
    if request.param == "jt_nanodet":
        request.getfixturevalue("jittor")
        return lambda boxes, scores, **more: found(np.array(boxes, F), np.array(scores, F), **more)
    torch = pytest.importorskip("torch")
    return lambda boxes, scores, **more: tuple(x.numpy() for x in found(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32), **more))


def decoded(side, raw, hw):
    integral = side.layers.Integral(HEAD.reg_max)
    boxes, scores = side.decode.decode(side.tensor(raw), integral, HEAD, hw)
    return side.numpy(boxes), side.numpy(scores)


def raw_output(hw, side_bins=(0, 0, 0, 0)):
    """Zero logits, and all of a side's weight on one bin: (1, P, 3 + 4·8)."""
    count = sum(math.ceil(hw[0] / s) * math.ceil(hw[1] / s) for s in HEAD.strides)
    raw = np.full((1, count, 3 + 32), -200, F)
    raw[..., :3] = 0
    for k, b in enumerate(side_bins):
        raw[..., 3 + 8 * k + b] = 200
    return raw


FAR = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]


# -- boxes and priors


def test_01_raw_output_holds_class_logits_then_four_times_the_bins(side):
    raw = raw_output((64, 64), (0, 0, 1, 2))
    raw[..., 1] = 50  # class 1
    boxes, scores = decoded(side, raw, (64, 64))
    assert scores.shape == (1, raw.shape[1], 3) and scores[0, 0].argmax() == 1
    assert boxes[0, 0].tolist() == [0, 0, 8, 16]  # nothing to the left and top, one stride to the right, two down


def test_02_xyxy_inside_xywh_in_coco_files():
    info = {"id": 1, "width": 100, "height": 100}
    (entry,) = detections_to_coco(F([[10, 20, 30, 60, 0.5]]), [0], info, np.eye(3), [1])
    assert entry["bbox"] == [10, 20, 20, 40]


def test_03_priors_lie_at_multiples_of_the_stride(side):
    want = [[0, 0, 8, 8], [8, 0, 8, 8], [16, 0, 8, 8], [0, 8, 8, 8], [8, 8, 8, 8], [16, 8, 8, 8], [0, 0, 16, 16], [16, 0, 16, 16]]
    assert side.decode.center_priors((16, 24), (8, 16)).tolist() == want


@pytest.mark.parametrize(("width", "columns"), [(320, 10), (321, 11), (330, 11), (351.5, 11), (352, 11), (352.1, 12)])
def test_04_a_cell_partly_inside_counts(side, width, columns):
    got = side.decode.center_priors((33, width), (32,))
    assert len(np.unique(got[:, 0])) == columns and len(np.unique(got[:, 1])) == 2


def test_05_a_distance_is_the_expected_bin_times_the_stride(side):
    raw = raw_output((64, 64))
    raw[..., 3:] = 0  # all bins alike: the mean of 0 … 7
    boxes, _ = decoded(side, raw, (64, 64))
    at = 4 * 8 + 4  # column 4, row 4 of stride 8: 3.5 strides to every side
    assert boxes[0, at].tolist() == [4, 4, 60, 60]


def test_06_boxes_are_clipped_to_the_input_both_ends_included(side):
    boxes, _ = decoded(side, raw_output((64, 128), (7, 7, 7, 7)), (64, 128))
    assert boxes.min() == 0 and boxes[..., 2].max() == 128 and boxes[..., 3].max() == 64


def test_07_a_score_is_the_sigmoid_of_its_own_logit(side):
    raw = raw_output((64, 64))
    raw[..., :3] = (0, 0, 100)
    assert decoded(side, raw, (64, 64))[1][0, 0].tolist() == [0.5, 0.5, 1]


def test_08_no_plus_one_in_widths(side):
    boxes = side.tensor([[0, 0, 10, 10], [10, 0, 20, 10], [5, 0, 15, 10]])
    assert side.numpy(side.boxes.box_area(boxes)).tolist() == [100] * 3
    got = side.numpy(side.boxes.pairwise_overlap(boxes, boxes))
    assert got[0, 1] == 0 and got[0, 2] == F(50) / F(150)


# -- from scores to detections


def test_09_score_strictly_above_the_threshold_in_float32(nms):
    at = F(0.05)
    dets, _, priors = nms(FAR, [[at], [np.nextafter(at, F(1))], [np.nextafter(at, F(0))]])
    assert priors.tolist() == [1]
    assert float(at) > 0.05  # in float64 the dropped score would have passed
    assert dets[0, 4] == np.nextafter(at, F(1))


def test_10_one_prior_may_give_several_classes(nms):
    _, labels, priors = nms(FAR[:1], [[0.3, 0.01, 0.9]])
    assert labels.tolist() == [2, 0] and priors.tolist() == [0, 0]


def test_11_the_class_offset_is_added_in_float32(nms):
    # Far out, float32 cannot hold the thin boxes' width: there they have no area, so neither suppresses the other.
    boxes = [[0, 0, 320, 320], [100, 100, 100.0005, 320], [100, 100, 100.0005, 320]]
    offset = F(79 * 321)
    assert F(100.0005) > F(100) and F(100.0005) + offset == F(100) + offset
    scores = np.zeros((3, 80), F)
    scores[0, 5], scores[1, 79], scores[2, 79] = 0.5, 0.9, 0.8
    assert nms(boxes, scores)[2].tolist() == [1, 2, 0]
    scores[:, 0], scores[:, 79] = scores[:, 79], 0
    assert nms(boxes, scores)[2].tolist() == [1, 0]  # in class 0 nothing is added, and of the equal boxes one stays


def test_11_the_offset_knows_only_boxes_that_passed(nms):
    # The box of 1e9 did not pass; were it the largest coordinate, every class would collapse to one point.
    far = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 1e9, 1e9]]
    assert nms(far, [[0, 0.9], [0, 0.8], [0.01, 0]])[2].tolist() == [0]


def test_12_an_iou_equal_to_the_threshold_survives(nms):
    boxes = [[0, 0, 2, 1], [0, 0, 1, 1]]  # IoU exactly one half
    assert nms(boxes, [[0.9], [0.8]], iou_threshold=0.5)[2].tolist() == [0, 1]
    assert nms(boxes, [[0.9], [0.8]], iou_threshold=np.nextafter(0.5, 0))[2].tolist() == [0]


def test_13_three_fifths_are_above_the_threshold_of_six_tenths(nms):
    boxes = [[0, 0, 5, 1], [0, 0, 3, 1]]
    assert float(F(3) / F(5)) > 0.6
    assert nms(boxes, [[0.9], [0.8]])[2].tolist() == [0]


def test_14_a_box_without_area_meets_no_other(nms):
    flat = [[5, 5, 5, 9], [5, 5, 5, 9], [0, 0, 10, 10]]
    assert sorted(nms(flat, [[0.9], [0.8], [0.7]])[2].tolist()) == [0, 1, 2]


def test_15_the_best_hundred_are_counted_after_suppression(nms):
    # 101 apart, each with a worse twin that suppression removes: counting before would leave 50.
    boxes = [[20 * (i // 2), 0, 20 * (i // 2) + 10, 10] for i in range(202)]
    scores = [[0.9 - 0.001 * (i // 2) - 0.0001 * (i % 2)] for i in range(202)]
    assert nms(boxes, scores)[2].tolist() == list(range(0, 200, 2))


def test_16_ties_go_to_the_lower_prior_and_class(nms):
    many = [[20 * i, 0, 20 * i + 10, 10] for i in range(40)]
    _, labels, priors = nms(many, np.full((40, 2), 0.5))
    assert list(zip(priors.tolist(), labels.tolist())) == [(i, c) for i in range(40) for c in range(2)]


def test_17_boxes_come_out_as_they_went_in(nms):
    boxes = F([[0.1, 0.2, 319.9, 319.7]])
    scores = np.zeros((1, 80), F)
    scores[0, 79] = 0.9
    np.testing.assert_array_equal(nms(boxes, scores)[0][:, :4], boxes)


# -- pictures and files


def test_18_bgr_divided_by_255_less_mean_by_deviation_in_float32():
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:] = (255, 128, 0)  # pure blue with some green
    got, _ = preprocess_image(picture, (8, 8), False, (mean, std))
    want = [(F(v) / F(255) - F(m) / F(255)) / (F(s) / F(255)) for v, m, s in zip((255, 128, 0), mean, std)]
    assert got.dtype == F and got[:, 3, 3].tolist() == [float(x) for x in want]


def test_19_the_matrix_stretches_without_a_half_pixel_shift():
    _, matrix = preprocess_image(np.zeros((50, 200, 3), np.uint8), (320, 320), False, ((0, 0, 0), (1, 1, 1)))
    assert matrix.dtype == np.float64
    ulp = np.finfo(np.float64).eps * 320
    assert np.abs(matrix @ [200, 50, 1] - [320, 320, 1]).max() <= 4 * ulp
    assert np.abs(matrix @ [0, 0, 1] - [0, 0, 1]).max() <= 4 * ulp


def test_20_back_by_the_inverse_as_hull_clipped_in_float32():
    quarter = np.array([[0.0, -2, 100], [2, 0, 0], [0, 0, 1]])  # a turn by 90 degrees, doubled
    got = warp.unwarp_boxes(F([[20, 40, 60, 80]]), quarter, 35, 30)
    assert got.dtype == F and got.tolist() == [[20, 20, 35, 30]]  # y from 20 to 40 is cut at 30, x from 20 to 40 at 35


def test_21_result_entries_stand_by_class_with_the_files_own_ids():
    dets = F([[0, 0, 1, 1, 0.9], [0, 0, 2, 2, 0.8], [0, 0, 3, 3, 1 / 3]])
    got = detections_to_coco(dets, [1, 0, 1], {"id": 7, "width": 9, "height": 9}, np.eye(3), [18, 44])
    assert [e["category_id"] for e in got] == [18, 44, 44] and [e["bbox"][2] for e in got] == [2, 1, 3]
    assert got[2]["score"] == float(F(1 / 3)) and got[2]["image_id"] == 7


def test_22_slivers_are_dropped_and_crowds_kept_apart(tmp_path):
    import cv2

    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    boxes = [([0, 0, 1, 1], {}), ([0, 0, 0.99, 5], {}), ([0, 0, 5, 5], {"area": 0}), ([2, 2, 4, 4], {"iscrowd": 1})]
    annotations = [{"id": i + 1, "image_id": 1, "category_id": 3, "bbox": b, "area": b[2] * b[3], "iscrowd": 0, **more} for i, (b, more) in enumerate(boxes)]
    images = [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "x"}]}))
    pipeline = PipelineConfig(normalize=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    data = CocoDataset(DatasetConfig("CocoDataset", (20, 20), pipeline, str(tmp_path / "images"), str(tmp_path / "a.json")), "test")
    kept, labels, ignored = data.annotation(0)
    assert kept.tolist() == [[0, 0, 1, 1]] and labels.tolist() == [0] and ignored.tolist() == [[2, 2, 6, 6]]


# -- layers and weights


def test_23_leaky_slope(side):
    assert side.numpy(side.layers.activation_layer("LeakyReLU")(side.tensor([-10, 10]))).tolist() == [-1, 10]


def test_24_batchnorm_normalises_biased_and_keeps_unbiased(side):
    norm = side.layers.BatchNorm2d(1)
    norm.train()
    got = side.numpy(norm(side.tensor([1, 3]).reshape(1, 1, 1, 2))).reshape(-1)
    assert abs(float(got[1]) - 1 / math.sqrt(1 + 1e-5)) <= 2 * np.finfo(F).eps  # biased: variance 1
    one_ulp = np.finfo(F).eps  # at values from 1 to 2
    assert abs(float(side.numpy(norm.running_var).reshape(-1)[0]) - (0.9 * 1 + 0.1 * 2)) <= one_ulp  # unbiased: variance 2
    assert abs(float(side.numpy(norm.running_mean).reshape(-1)[0]) - 0.1 * 2) <= one_ulp


def test_25_two_groups_interleave(side):
    x = side.tensor(np.arange(6)).reshape(1, 6, 1, 1)
    assert side.numpy(side.layers.channel_shuffle(x, 2)).reshape(-1).tolist() == [0, 3, 1, 4, 2, 5]


def test_26_upsampling_is_bilinear_without_aligned_corners(side):
    up = side.layers.Upsample(scale_factor=2, mode="bilinear")
    got = side.numpy(up(side.tensor([[0, 4], [0, 4]]).reshape(1, 1, 2, 2)))
    assert got[0, 0, 0].tolist() == [0, 1, 3, 4]


def test_27_zero_dimensional_weights(side):
    config = load_config(ROOT / "configs" / "shapes.yml")
    model = side.detector.build_model(config.model.arch)
    zero = {k for k, v in side.detector.state_arrays(model).items() if v.shape == ()}
    assert {k.rsplit(".", 1)[-1] for k in zero} == {"scale", "num_batches_tracked"}
    held = {tuple(v.shape) for k, v in model.state_dict().items() if k in zero}
    assert held == ({()} if side.package == "torch_ref" else {(1,)})


@pytest.mark.torch
def test_28_names_and_order_of_weights(golden_dir):
    detector = importlib.import_module("torch_ref.detector")
    ours = detector.build_model(load_config(ROOT / "configs" / "nanodet-plus-m_320.yml").model.arch).state_dict()
    with np.load(golden_dir / "nanodet-plus-m_320.npz", allow_pickle=False) as golden:
        header = json.loads(bytes(golden["header"]))
    assert len(ours) == 887
    assert list(ours) == [name for name, *_ in header["keys"]]


# -- training


def test_29_a_candidate_is_strictly_inside(side):
    centers = F([[8, 8], [8, 16], [np.nextafter(F(8), F(9)), 16], [16, 16]])
    assert side.assigner.inside_any(centers, F([[8, 8, 24, 24]])).tolist() == [2, 3]


def test_30_boxes_count_from_one(side):
    from jt_nanodet.config import AssignerConfig

    priors = F([[8, 8, 8, 8], [40, 40, 8, 8], [100, 100, 8, 8], [200, 200, 8, 8]])
    boxes = F([[0, 0, 16, 16], [32, 32, 48, 48], [90, 90, 110, 110], [190, 190, 210, 210]])
    assigner = side.assigner.DynamicSoftLabelAssigner(AssignerConfig(ignore_iof_thr=0.5))
    found = assigner.assign(side.tensor(np.zeros((4, 2))), side.tensor(boxes), priors, boxes[[1, 0]], np.array([0, 1]), boxes[3:])
    assert found.gt_index.tolist() == [2, 1, 0, -1]


def test_31_distance_targets_stop_before_the_last_bin(side):
    chosen = side.assigner.Assignment(np.array([1], np.int32), F([0.5]))
    cfg = SimpleNamespace(num_classes=2, reg_max=7)
    got = side.losses.build_targets([chosen], F([[100, 100, 8, 8]]), [F([[101, 92, 900, 156]])], [np.array([0])], cfg)
    assert got.distance.tolist() == [0, 1, F(6.9), F(6.9)]  # outside, one stride, and two beyond 6.9: 100 and 7 strides


def test_32_warm_up_holds_up_to_and_with_its_last_step(side):
    cfg = ScheduleConfig(OptimizerConfig("AdamW", 1.0), WarmupConfig("linear", 4, 0.25), 10, LrScheduleConfig("CosineAnnealingLR", 10, 0.0))
    rate, seen = side.schedule.LearningRate(cfg), []
    for step in range(6):
        group = SimpleNamespace(lr=9.0, initial_lr=1.0)
        rate.before_step([group], step)
        seen.append(group.lr)
    assert seen == [0.25, 0.4375, 0.625, 0.8125, 1.0, 9.0]


def test_33_the_average_weighs_the_new_value(side):
    model = SimpleNamespace(state_dict=lambda: {"w": side.tensor([0.0])})
    average = side.ema.ExpMovingAverager(model, 0.9998)
    assert average.factor(1) == 0.9998 * math.exp(-2 / 2000) + (1 - 0.9998)
    average.update(SimpleNamespace(state_dict=lambda: {"w": side.tensor([1.0])}), 1)
    assert average.state()["w"].tolist() == [F(average.factor(1))]


def test_every_sentence_has_its_test():
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8"), re.M)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 20
    tested = {int(name[5:7]) for name in globals() if re.match(r"test_\d\d_", name)}
    assert tested == set(numbers)

"""jt_nanodet.data.warp and transforms: upstream's recorded samples, order of the draws, matrices at the edges."""

import dataclasses
import random
import zlib

import numpy as np
import pytest

from jt_nanodet.config import PipelineConfig, load_config
from jt_nanodet.config_reader import read_dataclass
from jt_nanodet.data import transforms, warp
from jt_nanodet.data.coco import CocoDataset

NORMALIZE = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
#: Limits under which every draw shows in the matrix.
ALL = PipelineConfig(
    NORMALIZE, 0, 0.0005, (0.6, 1.4), ((0.8, 1.2), (0.7, 1.3)), 10.0, 5.0, 0.2, 0.5, 0.2, (0.6, 1.4), (0.5, 1.2)
)
#: Allowed against the recorded samples: the matrix to this much, pixels to one grey level's step after normalising.
MATRIX_BOUND = 1e-9
PIXEL_BOUND = 1.0 / 57.12


def picture(h=60, w=90, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (h, w, 3)).astype(np.uint8)


class Recorder:
    """A random source that answers with the middle of what is asked and writes down each question."""

    def __init__(self, heads=1):
        self.asked, self.heads = [], heads

    def uniform(self, a, b):
        self.asked.append((a, b))
        return (a + b) / 2

    def random(self):
        self.asked.append("random")
        return 0.9

    def randint(self, a, b):
        self.asked.append("coin")
        return self.heads


def read_golden(path):
    import json

    z = np.load(path)
    return json.loads(bytes(z["header"]).decode()), z


@pytest.mark.golden
def test_the_64_recorded_samples(shared, golden_dir, repository):
    header, arrays = read_golden(golden_dir / "augment.npz")
    base = load_config(repository / "configs/nanodet-plus-m_320.yml").data.train
    base = dataclasses.replace(
        base,
        img_path=str(shared / "data/coco/val2017"),
        ann_path=str(shared / "data/coco/annotations" / header["annotations"]),
    )
    dataset = CocoDataset(base, "train")
    at = {int(i): n for n, i in enumerate(dataset.ids)}
    assert len(header["cases"]) == 64
    for case in header["cases"]:
        pipeline = read_dataclass(PipelineConfig, header["pipelines"][case["pipeline"]], "pipeline", "augment.npz")
        dataset.config = dataclasses.replace(base, keep_ratio=case["keep_ratio"], pipeline=pipeline)
        sample, name = dataset.sample(at[case["image_id"]], random.Random(case["seed"])), case["case"]
        assert list(sample["img"].shape) == case["shape"], name
        flat = sample["img"].reshape(-1)
        kept = np.random.RandomState(zlib.crc32(f"augment:{name}".encode())).choice(flat.size, 2048, replace=False)
        assert np.abs(sample["warp_matrix"] - arrays[f"{name}/warp_matrix"]).max() <= MATRIX_BOUND, name
        assert np.array_equal(sample["gt_bboxes"], arrays[f"{name}/boxes"]), name
        assert np.array_equal(sample["gt_labels"], arrays[f"{name}/labels"]), name
        difference = np.abs(flat[kept] - arrays[f"{name}/img"]).max()
        assert difference <= PIXEL_BOUND, name
        if header["opencv"] == __import__("cv2").__version__.rsplit(".", 1)[0]:
            assert difference == 0, name


#: What `draw_matrix` asks its random source with these limits, in upstream's order.
SHAPE_DRAWS = [(-0.0005, 0.0005)] * 2 + [(0.6, 1.4), (0.8, 1.2), (0.7, 1.3), (-10, 10), (-5, 5), (-5, 5), "random", (0.3, 0.7), (0.3, 0.7)]


def test_order_of_the_shape_draws():
    rng = Recorder()
    transforms.draw_matrix(ALL, (90, 60), rng)
    assert rng.asked == SHAPE_DRAWS


@pytest.mark.parametrize("name", ["scale_matrix", "rotation_matrix", "flip_matrix"])
def test_an_augmentation_drawn_twice_is_seen(name, monkeypatch):
    """Planted: one of the numbers is drawn once more than upstream draws it. The order of the draws tells, and so does every number drawn after it."""
    honest = getattr(warp, name)
    right = transforms.draw_matrix(ALL, (90, 60), random.Random(0))
    monkeypatch.setattr(warp, name, lambda amount, rng: (honest(amount, rng), honest(amount, rng))[1])
    rng = Recorder()
    transforms.draw_matrix(ALL, (90, 60), rng)
    assert len(rng.asked) == len(SHAPE_DRAWS) + 1 and rng.asked != SHAPE_DRAWS
    assert np.abs(transforms.draw_matrix(ALL, (90, 60), random.Random(0)) - right).max() > 1e6 * MATRIX_BOUND


def test_shape_numbers_are_drawn_even_when_they_do_nothing():
    rng = Recorder()
    transforms.draw_matrix(PipelineConfig(NORMALIZE), (90, 60), rng)
    assert len(rng.asked) == 11 and rng.asked[-1] == (0.5, 0.5)


def test_order_of_the_colour_draws_and_no_coin_for_absent_keys():
    for pipeline, heads, asked in [
        (ALL, 1, ["coin", (-0.2, 0.2), "coin", (0.6, 1.4), "coin", (0.5, 1.2)]),
        (ALL, 0, ["coin"] * 3),
        (PipelineConfig(NORMALIZE, contrast=(0.5, 2.0)), 1, ["coin", (0.5, 2.0)]),
        (PipelineConfig(NORMALIZE), 1, []),
    ]:
        rng = Recorder(heads)
        transforms.colour_transform(picture(), pipeline, rng)
        assert rng.asked == asked


def test_factor_of_the_frame_is_drawn_only_when_asked():
    rng = Recorder()
    assert transforms.draw_frame(None, (320, 320), rng) == (320, 320) and rng.asked == []
    assert transforms.draw_frame((0.5, 1.0), (321, 200), rng) == (240, 150) and rng.asked == [(0.5, 1.0)]


def test_test_time_matrix_is_the_plain_stretch():
    image, matrix = transforms.preprocess_image(picture(426, 640), (320, 320), False, NORMALIZE)
    assert image.shape == (3, 320, 320) and image.dtype == np.float32 and image.flags.c_contiguous
    assert np.array_equal(matrix, np.diag([320 / 640, 320 / 426, 1.0]))


def test_unchanged_size_gives_the_normalised_pixels_exactly():
    pixels = picture(64, 64)
    image, matrix = transforms.preprocess_image(pixels, (64, 64), False, NORMALIZE)
    assert np.array_equal(matrix, np.eye(3))
    mean, std = (np.array(v, np.float32).reshape(1, 1, 3) / 255 for v in NORMALIZE)
    expected = (pixels.astype(np.float32) / 255 - mean) / std
    assert np.array_equal(image, expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "size,frame,divisible,fitted",
    [
        ((640, 426), (320, 320), 0, (320, 213)),
        ((426, 640), (320, 320), 0, (213, 320)),
        ((100, 100), (320, 320), 0, (320, 320)),
        ((640, 426), (320, 320), 32, (320, 224)),
        ((1000, 10), (320, 320), 32, (320, 32)),
    ],
)
def test_fitted_size(size, frame, divisible, fitted):
    assert warp.fitted_size(size, frame, divisible) == fitted


def test_keep_ratio_shrinks_the_frame():
    image, matrix = transforms.preprocess_image(picture(426, 640), (320, 320), True, NORMALIZE)
    assert image.shape == (3, 213, 320)
    assert matrix[0, 0] == matrix[1, 1] == 0.5


def test_boxes_follow_the_pixels():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[30:50, 20:60] = 255
    rng = random.Random(3)
    warped, matrix = transforms.shape_transform(
        pixels, dataclasses.replace(ALL, perspective=0.0), (100, 100), False, rng
    )
    box = warp.warp_boxes(np.array([[20, 30, 60, 50]], np.float32), matrix, 100, 100)[0]
    ys, xs = np.nonzero(warped[..., 0] > 127)
    assert np.abs(box - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() < 2  # pixels, the width of an edge


def test_warp_boxes_clips_and_keeps_empty_input():
    empty = warp.warp_boxes(np.zeros((0, 4), np.float32), np.eye(3), 10, 10)
    assert empty.shape == (0, 4) and empty.dtype == np.float32
    out = warp.warp_boxes(np.array([[-5.0, 2, 30, 8]]), np.eye(3), 10, 5)
    assert out.tolist() == [[0, 2, 10, 5]] and out.dtype == np.float32


def test_flip_mirrors_and_unwarp_undoes():
    flipped = np.diag([-1.0, 1.0, 1.0])
    flipped[0, 2] = 100
    boxes = np.array([[10, 20, 30, 40], [0, 0, 100, 50]], np.float32)
    moved = warp.warp_boxes(boxes, flipped, 100, 100)
    assert moved.tolist() == [[70, 20, 90, 40], [0, 0, 100, 50]]
    assert warp.unwarp_boxes(moved, flipped, 100, 100).tolist() == boxes.tolist()

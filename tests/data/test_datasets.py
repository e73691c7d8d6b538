"""jt_nanodet.data.dataset, coco, cocofile, voc, yolo, batches: selection rules, layouts and refusals."""

import dataclasses
import json
import pickle

import cv2
import numpy as np
import pytest

from jt_nanodet.config import DatasetConfig, PipelineConfig
from jt_nanodet.data import build_dataset
from jt_nanodet.data.batches import batches, stack_images
from jt_nanodet.errors import UserError

PIPELINE = PipelineConfig(((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)))
CONFIG = DatasetConfig("CocoDataset", (64, 64), PIPELINE, keep_ratio=False)


def entry(image_id, box, category=3, **more):
    return {
        "id": more.pop("id", 0),
        "image_id": image_id,
        "category_id": category,
        "bbox": box,
        "area": box[2] * box[3],
        **more,
    }


@pytest.fixture
def coco(tmp_path):
    """Three pictures listed out of order, categories 3 and 7; a folder and a dictionary."""
    images = []
    for n, (w, h) in {5: (80, 40), 2: (64, 64), 9: (30, 60)}.items():
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.random.RandomState(n).randint(0, 256, (h, w, 3)).astype(np.uint8))
        images.append({"id": n, "file_name": f"{n}.png", "width": w, "height": h})
    annotations = [
        entry(5, [10, 10, 20, 20], 7),
        entry(5, [0, 0, 0.5, 9]),
        entry(5, [1, 1, 9, 9], area=0),
        entry(5, [0, 0, 40, 40], iscrowd=1),
        entry(5, [2, 2, 30, 30], 3),
        entry(5, [4, 4, 8, 8], ignore=1),
        entry(9, [3, 3, 5, 5], 8),
    ]
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }
    return tmp_path, data


def open_coco(folder, data, mode="test", **changes):
    (folder / "ann.json").write_text(json.dumps(data))
    return build_dataset(
        dataclasses.replace(CONFIG, img_path=str(folder), ann_path=str(folder / "ann.json"), **changes), mode
    )


def test_selection_rules(coco):
    dataset = open_coco(*coco)
    assert dataset.ids.tolist() == [2, 5, 9] and dataset.cat_ids == [3, 7] and dataset.class_names == ["dog", "cat"]
    boxes, labels, ignored = dataset.annotation(1)
    assert boxes.tolist() == [[10, 10, 30, 30], [2, 2, 32, 32]] and labels.tolist() == [1, 0]
    assert ignored.tolist() == [[0, 0, 40, 40], [4, 4, 12, 12]]
    for n in (0, 2):  # no box, and a box of a category that is not listed
        boxes, labels, ignored = dataset.annotation(n)
        assert boxes.shape == ignored.shape == (0, 4) and labels.shape == (0,) and labels.dtype == np.int64


def test_sample_has_the_agreed_fields(coco):
    sample = open_coco(*coco)[1]
    assert sample["img"].shape == (3, 64, 64) and sample["warp_matrix"].dtype == np.float64
    assert sample["img_info"] == {"id": 5, "file_name": "5.png", "height": 40, "width": 80}
    assert np.array_equal(sample["gt_bboxes"], np.array([[8, 16, 24, 48], [1.6, 3.2, 25.6, 51.2]], np.float32))
    assert sample["gt_bboxes_ignore"].shape == (2, 4)


def test_batches_are_padded_to_a_multiple_of_32(coco):
    dataset = open_coco(*coco, keep_ratio=True, input_size=(70, 70))
    assert [dataset[n]["img"].shape for n in range(3)] == [(3, 70, 70), (3, 35, 70), (3, 70, 35)]
    parts = list(batches(dataset, None, 2))
    assert [p["img"].shape for p in parts] == [(2, 3, 96, 96), (1, 3, 96, 64)] and [p["index"] for p in parts] == [
        [0, 1],
        [2],
    ]
    assert np.array_equal(parts[0]["img"][1, :, :35, :70], dataset[1]["img"])
    assert not parts[0]["img"][1, :, 35:].any() and not parts[0]["img"][1, :, :, 70:].any()
    assert [i["id"] for i in parts[0]["img_info"]] == [2, 5] and parts[0]["img"].flags.c_contiguous


def test_equal_images_are_only_stacked():
    images = [np.full((3, 32, 64), n, np.float32) for n in range(2)]
    assert np.array_equal(stack_images(images), np.stack(images))


def test_annotations_of_another_folder(coco, tmp_path):
    folder, data = coco
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.png").write_bytes(b"")
    (folder / "ann.json").write_text(json.dumps(data))
    config = dataclasses.replace(CONFIG, img_path=str(other), ann_path=str(folder / "ann.json"))
    for mode in ("train", "test"):
        with pytest.raises(UserError, match="none of its 3 images is in"):
            build_dataset(config, mode)
    (folder / "9.png").unlink()
    with pytest.raises(UserError, match="1 of its 3 images are not in .*9.png"):
        open_coco(folder, data)
    assert open_coco(folder, data, "train").warnings == [f"1 of 3 images are not in {folder} (for example 9.png)"]
    with pytest.raises(UserError, match="no such folder of images"):
        build_dataset(dataclasses.replace(config, img_path=str(tmp_path / "none")), "test")


def test_annotations_of_other_sizes(coco):
    folder, data = coco
    data["images"][0]["width"] = 800
    with pytest.raises(UserError, match="says 800x40 of .*5.png, which has 80x40 pixels"):
        open_coco(folder, data)[1]


def test_unreadable_picture_is_named_in_evaluation(coco):
    folder, data = coco
    (folder / "5.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="5.png"):
        list(batches(open_coco(folder, data), None, 2))


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda d: d.pop("categories"), "lacks the lists"),
        (lambda d: d["images"][0].pop("width"), r"images\[0\] has no width"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), r"annotations\[1\].bbox"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, float("nan"), 3]), r"annotations\[1\].bbox"),
        (lambda d: d["annotations"][0].update(image_id=77), "image 77, which is not listed"),
        (lambda d: d["images"].append(dict(d["images"][0])), "two images share an id"),
        (lambda d: d["images"][0].update(id="5"), "use whole numbers"),
        (lambda d: (d["images"].clear(), d["annotations"].clear()), "lists no image"),
    ],
)
def test_broken_annotation_files(coco, change, words):
    folder, data = coco
    change(data)
    with pytest.raises(UserError, match=words):
        open_coco(folder, data)


def test_annotation_file_that_is_no_json(coco):
    folder, _ = coco
    (folder / "ann.json").write_text('{"images": [\n')
    config = dataclasses.replace(CONFIG, img_path=str(folder), ann_path=str(folder / "ann.json"))
    with pytest.raises(UserError, match="not valid JSON at line 2"):
        build_dataset(config, "test")
    with pytest.raises(UserError, match="no such annotation file"):
        build_dataset(dataclasses.replace(config, ann_path=str(folder / "none.json")), "test")


def test_more_classes_than_the_model(coco):
    folder, data = coco
    (folder / "ann.json").write_text(json.dumps(data))
    config = dataclasses.replace(CONFIG, img_path=str(folder), ann_path=str(folder / "ann.json"))
    with pytest.raises(UserError, match="2 classes and the model 1; set num_classes to 2"):
        build_dataset(config, "test", 1)
    build_dataset(config, "test", 2)


def test_a_pickled_dataset_draws_the_same(coco):
    dataset = open_coco(*coco, "train")
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[1]["img"], dataset[1]["img"])
    assert again.coco.getImgIds() == [5, 2, 9]


def test_multi_scale_draws_the_frame(coco):
    dataset = open_coco(*coco, "train", multi_scale=(0.5, 1.5))
    shapes = {dataset.draw(0, seed)["img"].shape for seed in range(5)}
    assert len(shapes) > 1 and all(32 <= s[1] <= 96 for s in shapes)


XML = """<annotation><filename>{name}</filename>
<size><width>80</width><height>40</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = (
    "<object><name>{0}</name><difficult>{1}</difficult><bndbox>"
    "<xmin>{2}</xmin><ymin>{3}</ymin><xmax>{4}</xmax><ymax>{5}</ymax></bndbox></object>"
)


@pytest.fixture
def voc(tmp_path):
    objects = (
        OBJECT.format("cat", 1, 10, 5, 30, 25)
        + OBJECT.format("cow", 0, 1, 1, 9, 9)
        + OBJECT.format("dog", 0, "2.7", 3, 79, 39)
        + OBJECT.format("dog", 0, 20, 3, 10, 9)
    )
    for name, text in (("b", objects), ("a", "")):
        (tmp_path / f"{name}.xml").write_text(XML.format(name=f"{name}.jpg", objects=text))
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), np.zeros((40, 80, 3), np.uint8))
    return dataclasses.replace(
        CONFIG, name="XMLDataset", img_path=str(tmp_path), ann_path=str(tmp_path), class_names=("dog", "cat")
    ), tmp_path


def test_voc(voc):
    config, _ = voc
    dataset = build_dataset(config, "test")
    assert dataset.file_names == ["a.jpg", "b.jpg"] and dataset.class_names == ["dog", "cat"]
    boxes, labels, ignored = dataset.annotation(1)
    assert boxes.tolist() == [[10, 5, 30, 25], [2, 3, 79, 39]] and labels.tolist() == [1, 0] and len(ignored) == 0
    assert [w.split(" left out")[0] for w in dataset.warnings] == [
        "1 objects",
        "1 boxes",
    ] and "cow (1)" in dataset.warnings[0]


def test_voc_split_list(voc):
    config, folder = voc
    (folder / "set.txt").write_text("b  1\n")
    assert build_dataset(dataclasses.replace(config, image_set=str(folder / "set.txt")), "test").file_names == ["b.jpg"]
    (folder / "set.txt").write_text("c\n")
    with pytest.raises(UserError, match="names c, which has no XML"):
        build_dataset(dataclasses.replace(config, image_set=str(folder / "set.txt")), "test")


@pytest.mark.parametrize(
    "text,words",
    [
        ("<annotation>", "a.xml: not valid XML at line 1"),
        ("<annotation><filename>a.jpg</filename></annotation>", "a.xml: lacks a VOC field"),
    ],
)
def test_voc_broken_file(voc, text, words):
    config, folder = voc
    (folder / "a.xml").write_text(text)
    with pytest.raises(UserError, match=words):
        build_dataset(config, "test")


def test_voc_real_pictures(shared, repository):
    from jt_nanodet.config import load_config

    root = shared / "data/VOCdevkit/VOC2012"
    config = load_config(repository / "configs/nanodet-plus-m_320_voc.yml").data.val
    config = dataclasses.replace(
        config, img_path=str(root / "JPEGImages"), ann_path=str(root / "Annotations"), image_set=None
    )
    dataset = build_dataset(config, "test", 20)
    assert (len(dataset), len(dataset.boxes), dataset.warnings) == (100, 273, [])
    parts = [
        build_dataset(dataclasses.replace(config, image_set=str(root / f"ImageSets/Main/{s}.txt")), "test")
        for s in ("trainval", "val")
    ]
    assert [len(p) for p in parts] == [70, 30] and sum(len(p.boxes) for p in parts) == 273


@pytest.fixture
def yolo(tmp_path):
    (tmp_path / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.05 0.5 0.2 0.2\n5 0.5 0.5 0.1 0.1\n")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 80, 3), np.uint8))
    return dataclasses.replace(
        CONFIG, name="YoloDataset", img_path=str(tmp_path), ann_path=str(tmp_path), class_names=("dog", "cat")
    ), tmp_path


def test_yolo(yolo):
    dataset = build_dataset(yolo[0], "test")
    boxes, labels, _ = dataset.annotation(0)
    # the left edge -4 is cut to 0 while the width 16 stays, as upstream has it
    assert boxes.tolist() == [[30, 10, 50, 30], [0, 16, 16, 24]] and labels.tolist() == [1, 0]
    assert "classes.txt" in dataset.warnings[0] and dataset.warnings[1].startswith("1 boxes left out")


@pytest.mark.parametrize("text", ["1 0.5 0.5 0.25", "a b c d e", "1 nan 0 0 0"])
def test_yolo_broken_line(yolo, text):
    config, folder = yolo
    (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n" + text)
    with pytest.raises(UserError, match="a.txt: line 2 is"):
        build_dataset(config, "test")


def test_empty_annotation_folder(yolo, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no .txt file"):
        build_dataset(dataclasses.replace(yolo[0], ann_path=str(tmp_path / "none")), "test")

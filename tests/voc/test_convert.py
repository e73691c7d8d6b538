"""The JSON files: what they hold, what training and evaluation make of difficult objects, and what stops a conversion."""

from __future__ import annotations

import dataclasses

import pytest

from jt_nanodet.config import load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.cocofile import as_coco, check_coco
from jt_nanodet.data.evaluator import CocoEvaluator
from jt_nanodet.errors import UserError
from jt_nanodet.voc import CLASSES
from jt_nanodet.voc.convert import clip, convert, write
from jt_nanodet.voc.devkit import default_splits, find_years
from tests.voc.devkit_maker import make, write_annotation


@pytest.fixture
def converted(tmp_path):
    make(tmp_path)
    lists = default_splits(find_years(tmp_path))["train"]
    document, counts = convert(lists, tmp_path / "VOCdevkit", "test")
    return tmp_path, document, counts


def test_what_the_file_holds(converted):
    _, document, counts = converted
    check_coco(document, "it")
    assert [c["name"] for c in document["categories"]] == list(CLASSES) and counts["images"] == 4 and counts["difficult"] == 1
    assert document["images"][0] == {"id": 1, "file_name": "VOC2012/JPEGImages/000001.jpg", "width": 60, "height": 40}
    dog, cat = document["annotations"][:2]
    assert dog["bbox"] == [0, 0, 60, 40] and dog["area"] == 2400 and (dog["ignore"], dog["iscrowd"]) == (0, 0)
    assert cat["ignore"] == cat["difficult"] == 1


def test_training_reads_it_and_leaves_difficult_objects_aside(converted, repository):
    root, document, _ = converted
    write(document, root / "annotations" / "voc_train.json")
    config = load_config(repository / "configs" / "nanodet-plus-m_320_voc.yml").data.train
    config = dataclasses.replace(config, name="CocoDataset", img_path=str(root / "VOCdevkit"), ann_path=str(root / "annotations" / "voc_train.json"))
    dataset = build_dataset(config, "val", 20)
    boxes, labels, ignored = dataset.annotation(0)
    assert labels.tolist() == [CLASSES.index("dog")] and len(ignored) == 1
    assert dataset.load(0).shape == (40, 60, 3)


def test_evaluation_ignores_difficult_objects(converted):
    _, document, _ = converted
    easy = [a for a in document["annotations"] if not a["difficult"]]
    found = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9} for a in easy]
    evaluator = CocoEvaluator(as_coco(document))
    assert evaluator.evaluate(found)["mAP"] == pytest.approx(1), "a difficult object that is missed costs nothing"
    hard = next(a for a in document["annotations"] if a["difficult"])
    extra = {"image_id": hard["image_id"], "category_id": hard["category_id"], "bbox": hard["bbox"], "score": 0.99}
    again = evaluator.evaluate([*found, extra])
    assert again["mAP"] == pytest.approx(1), "nor does finding it"
    assert again["per_class"]["cat"] is None, "a class with difficult objects only is not asked for"


def test_07_plus_12(tmp_path):
    make(tmp_path, "VOC2007", (("trainval", {"000011": []}), ("test", {"000012": []})))
    make(tmp_path, "VOC2012", (("trainval", {"2012_000001": []}),))
    splits = default_splits(find_years(tmp_path))
    said = {side: [f"{year.name} {split}" for year, split in lists] for side, lists in splits.items()}
    assert said == {"train": ["VOC2007 trainval", "VOC2012 trainval"], "val": ["VOC2007 test"]}


def test_train_is_trainval_without_val_where_there_is_no_train_list(tmp_path):
    folder = make(tmp_path)
    (folder / "ImageSets" / "Main" / "train.txt").rename(folder / "ImageSets" / "Main" / "trainval.txt")
    (year, split) = default_splits(find_years(tmp_path))["train"][0]
    assert split == "trainval-val" and year.names(split) == ["000001", "000002", "000003", "000004"]


@pytest.mark.parametrize(("objects", "said"), [([("unicorn", 1, 1, 5, 5, 0)], "unicorn"), ([("dog", 70, 1, 80, 5, 0)], "without area")])
def test_a_fault_stops_it_and_points_to_verify(tmp_path, objects, said):
    folder = make(tmp_path)
    write_annotation(folder / "Annotations", "000002", objects)
    with pytest.raises(UserError, match=said):
        convert(default_splits(find_years(tmp_path))["train"], tmp_path, "test")
    (folder / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(UserError, match="no picture 000002"):
        convert(default_splits(find_years(tmp_path))["train"], tmp_path, "test")


def test_clip():
    assert clip((-1, 5, 20, 50), 10, 40) == (0, 5, 10, 35) and clip((0, 0, 10, 40), 10, 40) == (0, 0, 10, 40)


def test_no_devkit(tmp_path):
    with pytest.raises(UserError, match="--download"):
        find_years(tmp_path)

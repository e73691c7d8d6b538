"""VOC's coordinates in COCO's sense, and a word for each way a file is wrong."""

from __future__ import annotations

import pytest

from jt_nanodet.voc.annotation import BadAnnotation, read_annotation
from tests.voc.devkit_maker import write_annotation


def test_one_based_inclusive_boxes(tmp_path):
    write_annotation(tmp_path, "a", [("dog", 1, 1, 60, 40, 1), ("cat", 7, 8, 7, 8, 0), ("cat", "45.70", 2, "50.2", 9, 0)])
    read = read_annotation(tmp_path / "a.xml")
    assert (read.file_name, read.width, read.height) == ("a.jpg", 60, 40)
    assert read.things[0].box == (0, 0, 60, 40), "the whole picture"
    assert read.things[1].box == (6, 7, 1, 1), "one pixel"
    assert read.things[2].box == pytest.approx((44.7, 1, 5.5, 8)), "a few files have decimals"
    assert [thing.difficult for thing in read.things] == [True, False, False]


@pytest.mark.parametrize(("old", "new", "said"), [
    ("</annotation>", "", "not valid XML at line"),
    ("<filename>a.jpg</filename>", "", "lacks the field filename"),
    ("<size>", "<siz>", "not valid XML"),
    ("<width>60</width>", "<width>0</width>", "0 x 40 pixels"),
    ("<xmin>1</xmin>", "<xmin>one</xmin>", "'one' as bndbox/xmin"),
    ("<xmin>1</xmin>", "<xmin>nan</xmin>", "'nan' as bndbox/xmin"),
    ("<ymax>40</ymax>", "", "lacks the field bndbox/ymax"),
    ("<name>dog</name>", "<name> </name>", "lacks the field name"),
])  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, old, new, said):
    write_annotation(tmp_path, "a", [("dog", 1, 1, 60, 40, 0)])
    path = tmp_path / "a.xml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BadAnnotation, match=said):
        read_annotation(path)


def test_what_is_no_annotation(tmp_path):
    (tmp_path / "big.xml").write_bytes(b" " * (2 << 20))
    (tmp_path / "code.xml").write_bytes(b'<?xml version="1.0" encoding="nonsense"?><a/>')
    for name in ("big.xml", "code.xml", "absent.xml"):
        with pytest.raises(BadAnnotation):
            read_annotation(tmp_path / name)


def test_entities_do_not_grow_without_end(tmp_path):
    layers = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    (tmp_path / "bomb.xml").write_text(f'<!DOCTYPE x [<!ENTITY e0 "eeeeeeeeee">{layers}]><annotation><filename>&e9;</filename></annotation>')
    with pytest.raises(BadAnnotation):
        read_annotation(tmp_path / "bomb.xml")

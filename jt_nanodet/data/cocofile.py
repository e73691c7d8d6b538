"""Reading and holding COCO annotation files, with a sentence for each way they are wrong."""

from __future__ import annotations

import contextlib
import io
import json
import math

from jt_nanodet.errors import UserError


def read_coco(path) -> dict:
    """The dictionary of a COCO annotation file, checked for what the rest of the project relies on."""
    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such annotation file; give the path of one") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the annotations ({error.strerror}); give a readable file") from None
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}: is not valid JSON{where}; give a COCO annotation file") from None
    check_coco(data, path)
    return data


def check_coco(data, path) -> None:
    """UserError unless ``data`` has images, annotations and categories that refer to each other."""
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise UserError(
            f"{path}: lacks the lists images, annotations and categories; give a COCO detection annotation file"
        )
    needs = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for part, keys in needs.items():
        for n, entry in enumerate(data[part]):
            lacking = [k for k in keys if not isinstance(entry, dict) or k not in entry]
            if lacking:
                raise UserError(f"{path}: {part}[{n}] has no {lacking[0]}; mend the annotation file")
    for part in ("images", "categories"):
        ids = [e["id"] for e in data[part]]
        odd = next((i for i in ids if not isinstance(i, int) or isinstance(i, bool)), None)
        if odd is not None:
            raise UserError(f"{path}: {part} have the id {odd!r}; use whole numbers")
        if len(set(ids)) != len(ids):
            raise UserError(f"{path}: two {part} share an id; give each its own")
    known = {e["id"] for e in data["images"]}
    for n, entry in enumerate(data["annotations"]):
        box = entry["bbox"]
        if (
            not isinstance(box, (list, tuple))
            or len(box) != 4
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
        ):
            raise UserError(f"{path}: annotations[{n}].bbox is {box!r}; write [x, y, width, height]")
        if entry["image_id"] not in known:
            raise UserError(
                f"{path}: annotations[{n}] is about image {entry['image_id']}, which is not listed; mend the "
                "annotation file"
            )


def as_coco(data: dict):
    """The pycocotools object of a dictionary, built without printing."""
    from pycocotools.coco import COCO

    for n, entry in enumerate(data["annotations"]):  # the evaluation needs what detection files may leave out
        entry.setdefault("id", n + 1)
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
    return coco


def of_images(coco, image_ids):
    """The annotations of these pictures alone, as a COCO object; `coco` itself when they are all of its pictures."""
    ids = set(image_ids)
    if ids == set(coco.getImgIds()):
        return coco
    return as_coco({"images": [i for i in coco.dataset["images"] if i["id"] in ids], "categories": coco.dataset["categories"],
                    "annotations": [a for a in coco.dataset["annotations"] if a["image_id"] in ids]})

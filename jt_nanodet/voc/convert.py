"""VOC's XML files to COCO's JSON: ``annotations/voc_train.json`` and ``annotations/voc_val.json``.

Difficult objects stay in, with ``ignore`` 1: training does not use them as targets and evaluation neither asks for them nor punishes finding them.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from jt_nanodet.checkpoint import replacing
from jt_nanodet.data.progress import Progress
from jt_nanodet.errors import UserError
from jt_nanodet.voc import CLASSES
from jt_nanodet.voc.annotation import BadAnnotation, read_annotation
from jt_nanodet.voc.devkit import Year, relative

FILES = {"train": "voc_train.json", "val": "voc_val.json"}


def convert(lists: list[tuple[Year, str]], root: Path, description: str) -> tuple[dict, Counter]:
    """(COCO dictionary, counts) of split lists; ``file_name`` is relative to ``root``.

    Counts: images, objects, difficult, clipped (boxes that reached beyond their picture by more than a rounding of one pixel). UserError for the first
    annotation or picture that is not as it must be: ``--verify`` lists all of them.
    """
    label_of = {name: n + 1 for n, name in enumerate(CLASSES)}
    images, annotations, counts, seen = [], [], Counter(), set()
    wanted = [(year, name) for year, split in lists for name in year.names(split)]
    progress = Progress(len(wanted), "annotations")
    for year, name in wanted:
        if (year.name, name) in seen:
            raise UserError(f"{year.name} lists {name} twice; type: python -m jt_nanodet voc --verify, which names every such fault")
        seen.add((year.name, name))
        path, picture = year.annotation(name), year.picture(name)
        if picture is None:
            raise UserError(f"{year.folder}/JPEGImages has no picture {name}, which a split list names; unpack the archive again, or see all faults with --verify")
        try:
            read = read_annotation(path)
        except BadAnnotation as error:
            raise UserError(f"{path} {error}; unpack the archive again, or see all faults with --verify") from None
        number = len(images) + 1
        images.append({"id": number, "file_name": relative(picture, root), "width": read.width, "height": read.height})
        for thing in read.things:
            if thing.name not in label_of:
                raise UserError(f"{path} has an object of the class {thing.name!r}, which is none of VOC's 20; mend the file")
            box = clip(thing.box, read.width, read.height)
            if box[2] <= 0 or box[3] <= 0:
                raise UserError(f"{path} has a {thing.name} without area inside its picture; mend the file, or see all faults with --verify")
            counts["clipped"] += max(abs(a - b) for a, b in zip(box, thing.box)) > 1
            counts["difficult"] += thing.difficult
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": label_of[thing.name], "bbox": [round(v, 3) for v in box],
                "area": round(box[2] * box[3], 3), "iscrowd": 0, "ignore": int(thing.difficult), "difficult": int(thing.difficult),
                "truncated": int(thing.truncated),
            })  # fmt: skip
        progress.step(len(images))
    counts.update(images=len(images), objects=len(annotations))
    categories = [{"id": n, "name": name, "supercategory": "voc"} for name, n in label_of.items()]
    return {"info": {"description": description}, "images": images, "annotations": annotations, "categories": categories}, counts


def clip(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a box that lies in its picture."""
    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[0] + box[2], width), min(box[1] + box[3], height)
    return x1, y1, x2 - x1, y2 - y1


def write(document: dict, path: Path) -> None:
    """Write the JSON file; it takes its name when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent} ({error.strerror}); choose another --data-dir") from None
    with replacing(path) as file:
        file.write(json.dumps(document).encode())

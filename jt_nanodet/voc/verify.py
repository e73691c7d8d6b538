"""Is the data whole? Every fault by kind, file and sentence, and what there is of each class.

Pictures are decoded whole and hashed, so that a damaged file, and one picture under two names, are found before a training finds them or learns from them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from jt_nanodet.data.images import UnreadableImage, read_image
from jt_nanodet.data.progress import Progress
from jt_nanodet.errors import UserError
from jt_nanodet.voc import CLASSES
from jt_nanodet.voc.annotation import Annotation, BadAnnotation, read_annotation
from jt_nanodet.voc.convert import clip
from jt_nanodet.voc.devkit import Year

#: Every kind of fault, with what it means.
KINDS = {
    "bad list": "a split list cannot be read or is empty",
    "listed twice": "a split list names a picture more than once",
    "train/val leak": "a picture is in the train and in the val lists",
    "missing picture": "a list names a picture that is not there",
    "missing annotation": "a list names a picture without an XML file",
    "malformed annotation": "an XML file cannot be read or lacks a field",
    "unreadable picture": "a picture is empty, cut short or damaged",
    "wrong size": "a picture has another size than its XML file says",
    "wrong file name": "an XML file is about another picture",
    "unknown class": "an object's class is none of VOC's 20",
    "empty box": "a box has no area inside its picture",
    "box outside": "a box reaches beyond its picture by more than a pixel",
    "same object twice": "two objects of a picture have one class and one box",
    "no objects": "an XML file names no object",
    "same picture twice": "two names hold the same bytes",
    "same picture in train and val": "a train and a val picture hold the same bytes",
}


@dataclass(frozen=True)
class Fault:
    """``kind``: one of KINDS; ``where``: a file or name; ``what``: the sentence."""

    kind: str
    where: str
    what: str


def verify(splits: dict[str, list[tuple[Year, str]]]) -> dict:
    """The report: ``faults``, ``counts`` of each kind, ``images`` and ``objects`` of each side, ``classes`` (objects, difficult, images)."""
    faults: list[Fault] = []
    sides: dict[str, dict[tuple[str, str], Year]] = {}
    for side, lists in splits.items():
        sides[side] = {}
        for year, split in lists:
            try:
                names = year.names(split)
            except UserError as error:
                faults.append(Fault("bad list", str(year.list_path(split)), str(error)))
                continue
            for name, times in Counter(names).items():
                if times > 1 or (year.name, name) in sides[side]:
                    faults.append(Fault("listed twice", name, f"{year.name}/{split}.txt names {name} {max(times, 2)} times"))
                sides[side][year.name, name] = year
    for key in sides["train"].keys() & sides["val"].keys():
        faults.append(Fault("train/val leak", key[1], f"{key[0]}/{key[1]} is in the train and in the val lists"))
    faults.sort(key=lambda fault: (fault.kind, fault.where))
    progress = Progress(sum(map(len, sides.values())), "pictures")
    classes = {side: {name: Counter() for name in CLASSES} for side in sides}
    digests: dict[str, list[tuple[str, str]]] = defaultdict(list)
    done, totals = 0, {side: Counter() for side in sides}
    for side, members in sides.items():
        for (year_name, name), year in members.items():
            picture = year.picture(name)
            read = _annotation(year, name, faults)
            if picture is None:
                faults.append(Fault("missing picture", name, f"{year_name} lists {name} and JPEGImages has no such picture"))
            else:
                digests[hashlib.sha256(picture.read_bytes()).hexdigest()].append((side, f"{year_name}/{name}"))
                _picture(picture, read, faults)
            totals[side]["images"] += 1
            if read is not None:
                _objects(read, year.annotation(name), faults, classes[side], totals[side])
            done += 1
            progress.step(done)
    for members in digests.values():
        names = sorted({name for _, name in members})
        if len(names) > 1:
            kind = "same picture in train and val" if len({side for side, _ in members}) > 1 else "same picture twice"
            faults.append(Fault(kind, names[0], f"{' and '.join(names)} hold the same bytes"))
    return {
        "schema_version": 1,
        "faults": [asdict(fault) for fault in faults],
        "counts": {kind: number for kind in KINDS if (number := sum(fault.kind == kind for fault in faults))},
        "totals": {side: dict(total) for side, total in totals.items()},
        "classes": {side: {name: dict(count) for name, count in table.items()} for side, table in classes.items()},
    }


def _annotation(year: Year, name: str, faults: list[Fault]) -> Annotation | None:
    path = year.annotation(name)
    if not path.is_file():
        faults.append(Fault("missing annotation", name, f"{year.name} lists {name} and Annotations has no {name}.xml"))
        return None
    try:
        read = read_annotation(path)
    except BadAnnotation as error:
        faults.append(Fault("malformed annotation", str(path), f"{path} {error}"))
        return None
    if Path(read.file_name).stem != name:
        faults.append(Fault("wrong file name", str(path), f"{path} is about {read.file_name!r:.80}"))
    return read


def _picture(path: Path, read: Annotation | None, faults: list[Fault]) -> None:
    try:
        height, width = read_image(path).shape[:2]
    except UnreadableImage as error:
        faults.append(Fault("unreadable picture", str(path), f"{path}: {error.reason}"))
        return
    if read is not None and (width, height) != (read.width, read.height):
        faults.append(Fault("wrong size", str(path), f"{path} has {width} x {height} pixels and its XML file says {read.width} x {read.height}"))


def _objects(read: Annotation, path: Path, faults: list[Fault], classes: dict[str, Counter], total: Counter) -> None:
    if not read.things:
        faults.append(Fault("no objects", str(path), f"{path} names no object"))
    for (name, box), times in Counter((thing.name, thing.box) for thing in read.things).items():
        if times > 1:
            faults.append(Fault("same object twice", str(path), f"{path} has {times} times the {name} at {_corners(box)}"))
    for thing in read.things:
        inside = clip(thing.box, read.width, read.height)
        if thing.name not in classes:
            faults.append(Fault("unknown class", str(path), f"{path} has the class {thing.name!r:.60}"))
        elif inside[2] <= 0 or inside[3] <= 0:
            faults.append(Fault("empty box", str(path), f"{path} has a {thing.name} without area at {_corners(thing.box)}"))
        elif max(abs(a - b) for a, b in zip(inside, thing.box)) > 1:
            faults.append(Fault("box outside", str(path), f"{path} has a {thing.name} at {_corners(thing.box)} in {read.width} x {read.height} pixels"))
        if thing.name in classes:
            classes[thing.name].update(objects=1, difficult=int(thing.difficult))
            total.update(objects=1, difficult=int(thing.difficult))
    for name in {thing.name for thing in read.things} & classes.keys():
        classes[name]["images"] += 1


def _corners(box: tuple[float, float, float, float]) -> str:
    """A box as the XML file has it."""
    return f"({box[0] + 1:g}, {box[1] + 1:g}) to ({box[0] + box[2]:g}, {box[1] + box[3]:g})"


def table(report: dict) -> str:
    """Objects, difficult ones and pictures of each class and side, as text."""
    sides = list(report["classes"])
    lines = ["class          " + "".join(f"{side:>26s}" for side in sides), "               " + "   objects difficult images" * len(sides)]
    for name in CLASSES:
        cells = [report["classes"][side][name] for side in sides]
        lines.append(f"{name:15s}" + "".join(f"{c.get('objects', 0):>10d}{c.get('difficult', 0):>10d}{c.get('images', 0):>7d}" for c in cells))
    totals = [report["totals"][side] for side in sides]
    lines.append(f"{'all':15s}" + "".join(f"{c.get('objects', 0):>10d}{c.get('difficult', 0):>10d}{c.get('images', 0):>7d}" for c in totals))
    return "\n".join(lines)

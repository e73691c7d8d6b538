"""One XML file of VOC, read with a word for each way it can be wrong.

VOC counts pixels from 1 and both ends of a box belong to it. COCO's boxes begin at 0 and end at an edge. So xmin 1, xmax 500 of a picture 500 wide is
x 0, width 500: x = xmin - 1, width = xmax - xmin + 1, and the plain IoU of the new boxes is the devkit's IoU with its "+ 1".
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

#: A VOC annotation has a few thousand bytes; more is no annotation.
MAX_BYTES = 1 << 20


class BadAnnotation(ValueError):
    """What is wrong with a file; the text ends the sentence that begins with its path."""


@dataclass(frozen=True)
class Thing:
    """An object. ``box``: x, y, width, height in COCO's sense, pixels, not clipped."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    truncated: bool


@dataclass(frozen=True)
class Annotation:
    """A picture's XML: its file name, size in pixels and objects."""

    file_name: str
    width: int
    height: int
    things: tuple[Thing, ...]


def read_annotation(path: Path) -> Annotation:
    """Read one file; raises BadAnnotation for what is no VOC annotation, and nothing else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadAnnotation(f"is larger than {MAX_BYTES >> 20} MiB, which no annotation is")
        data = path.read_bytes()
        if b"<!DOCTYPE" in data:
            raise BadAnnotation("declares entities of its own, which no annotation does")
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise BadAnnotation(f"is not valid XML at line {error.position[0]}") from None
    except OSError as error:
        raise BadAnnotation(f"cannot be read ({error.strerror})") from None
    except LookupError as error:
        raise BadAnnotation(f"has an {error}") from None
    width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
    if width < 1 or height < 1:
        raise BadAnnotation(f"says the picture has {width:g} x {height:g} pixels")
    return Annotation(_text(root, "filename"), int(width), int(height), tuple(_thing(node) for node in root.findall("object")))


def _thing(node: ElementTree.Element) -> Thing:
    x1, y1, x2, y2 = (_number(node, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
    flags = [_text(node, flag, "0").strip() == "1" for flag in ("difficult", "truncated")]
    return Thing(_text(node, "name"), (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1), *flags)


def _text(node: ElementTree.Element, path: str, default: str | None = None) -> str:
    found = node.find(path)
    if found is None or not (found.text or "").strip():
        if default is not None:
            return default
        raise BadAnnotation(f"lacks the field {path}")
    return found.text.strip()


def _number(node: ElementTree.Element, path: str) -> float:
    text = _text(node, path)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadAnnotation(f"has {text[:20]!r} as {path}, which is no number")
    return value

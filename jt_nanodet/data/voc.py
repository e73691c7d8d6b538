"""XMLDataset: Pascal VOC's XML files, turned into COCO's layout by upstream's rules "
"(``nanodet/data/dataset/xml_dataset.py``)."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections import Counter

from jt_nanodet.data.dataset import DetectionDataset
from jt_nanodet.data.images import EXTENSIONS
from jt_nanodet.errors import UserError


def files_below(folder: str, extension: str) -> list[str]:
    """Paths of all files with that extension in a folder and its sub-folders, sorted, so that ids are the same "
    "everywhere."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: there is no such folder of annotations; mend ann_path in the configuration")
    found = [
        os.path.join(root, n)
        for root, _, names in os.walk(folder)
        for n in names
        if os.path.splitext(n)[1] == extension
    ]
    if not found:
        raise UserError(f"{folder}: holds no {extension} file; give the folder of the annotations as ann_path")
    return sorted(found)


def read_image_set(path: str) -> list[str]:
    """Names of a VOC split list, in order; a second column (VOC's per-class lists) is passed over."""
    try:
        with open(path, encoding="utf-8") as f:
            names = [line.split()[0] for line in f if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{path}: cannot read the split list; give a text file with one image name a line as image_set"
        ) from None
    if not names:
        raise UserError(f"{path}: the split list is empty; put one image name a line there")
    return names


class XMLDataset(DetectionDataset):
    """One XML file a picture below ``ann_path``, pictures in ``img_path``; ``image_set`` keeps those of a split list.

    Objects marked difficult are ordinary objects, as upstream has it. Objects of a class that ``class_names`` lacks and
    boxes with a negative side are left out and counted in ``warnings``.
    """

    def read(self) -> dict:
        config = self.config
        files = files_below(config.ann_path, ".xml")
        if config.image_set is not None:
            by_stem = {os.path.splitext(os.path.basename(f))[0]: f for f in files}
            names = read_image_set(config.image_set)
            lacking = [n for n in names if n not in by_stem]
            if lacking:
                raise UserError(
                    f"{config.image_set}: names {lacking[0]}, which has no XML file in {config.ann_path}; give the "
                    "split list made for that folder"
                )
            files = [by_stem[n] for n in names]
        label_of = {name: n + 1 for n, name in enumerate(config.class_names)}
        images, annotations, unknown, odd = [], [], Counter(), []
        for n, file in enumerate(files):
            file_name, width, height, objects = _read_xml(file)
            images.append({"id": n + 1, "file_name": self._picture(file_name, file), "width": width, "height": height})
            for name, x1, y1, x2, y2 in objects:
                if name not in label_of:
                    unknown[name] += 1
                    continue
                w, h = x2 - x1, y2 - y1
                if w < 0 or h < 0:
                    odd.append(file)
                    continue
                box = [max(x1, 0), max(y1, 0), min(w, width), min(h, height)]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": n + 1,
                        "category_id": label_of[name],
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        if unknown:
            listed = ", ".join(f"{k} ({v})" for k, v in unknown.most_common(5))
            self.warnings.append(
                f"{sum(unknown.values())} objects left out because class_names lacks their class: {listed}"
            )
        if odd:
            self.warnings.append(f"{len(odd)} boxes left out because a side is negative (for example in {odd[0]})")
        return {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": n, "name": name} for name, n in label_of.items()],
        }

    def _picture(self, file_name: str, xml: str) -> str:
        """The name that the XML gives, or when no such file exists the XML's own name with a picture's ending."""
        folder = self.config.img_path
        if os.path.exists(os.path.join(folder, file_name)):
            return file_name
        stem = os.path.splitext(os.path.basename(xml))[0]
        return next((stem + e for e in EXTENSIONS if os.path.exists(os.path.join(folder, stem + e))), file_name)


def _read_xml(path: str) -> tuple[str, int, int, list[tuple[str, int, int, int, int]]]:
    """(file name, width, height, [(class, xmin, ymin, xmax, ymax)]) of one file; UserError names it when "
    "something lacks."""
    try:
        root = ElementTree.parse(path).getroot()
        size = root.find("size")
        objects = []
        for node in root.findall("object"):
            box = node.find("bndbox")
            # VOC has a few boxes written with decimals, which upstream's int() refuses
            objects.append(
                (node.find("name").text, *(int(float(box.find(k).text)) for k in ("xmin", "ymin", "xmax", "ymax")))
            )
        width, height = (int(float(size.find(k).text)) for k in ("width", "height"))
        if width < 1 or height < 1:
            raise ValueError
        return root.find("filename").text.strip(), width, height, objects
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not valid XML at line {error.position[0]}; mend or remove the file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the annotation ({error.strerror}); mend or remove the file") from None
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path}: lacks a VOC field (filename, size, or an object's name and bndbox); mend or remove the file"
        ) from None

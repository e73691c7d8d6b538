"""The folders of VOC: which years are there, which split lists, and where a name's picture and annotation lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jt_nanodet.data.images import EXTENSIONS
from jt_nanodet.data.voc import read_image_set
from jt_nanodet.errors import UserError


@dataclass(frozen=True)
class Year:
    """``VOCdevkit/VOC2007`` or ``VOC2012``: Annotations, JPEGImages and ImageSets/Main below ``folder``."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def list_path(self, split: str) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{split}.txt"

    def has(self, split: str) -> bool:
        """Whether the list is there; of ``a-b``, both."""
        return all(self.list_path(part).is_file() for part in split.split("-"))

    def names(self, split: str) -> list[str]:
        """The names a split list holds, in its order; ``a-b`` are those of a that b has not. UserError where one is missing, unreadable or empty."""
        first, *others = split.split("-")
        left_out = {name for other in others for name in read_image_set(str(self.list_path(other)))}
        return [name for name in read_image_set(str(self.list_path(first))) if name not in left_out]

    def annotation(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def picture(self, name: str) -> Path | None:
        """The picture of that name, or None; VOC's are .jpg, and other endings are taken too."""
        for ending in EXTENSIONS:
            path = self.folder / "JPEGImages" / (name + ending)
            if path.is_file():
                return path
        return None


def find_years(folder: Path) -> list[Year]:
    """The years below a data folder, a VOCdevkit or a single year's folder. UserError when there is none."""
    for base in (folder, folder / "VOCdevkit"):
        if (base / "Annotations").is_dir():
            return [Year(base)]
        found = sorted(path for path in base.glob("VOC20*") if (path / "Annotations").is_dir())
        if found:
            return [Year(path) for path in found]
    raise UserError(f"{folder} holds no VOCdevkit with a VOC2007 or VOC2012; type: python -m jt_nanodet voc --data-dir {folder} --download")


def default_splits(years: list[Year]) -> dict[str, list[tuple[Year, str]]]:
    """{"train": [(year, list)], "val": ...}. With VOC2007's test lists: all trainval lists against them, the usual "07+12". Else train against
    val; where a year has no train list, that is trainval without val."""
    tests = [(year, "test") for year in years if year.has("test")]
    if tests:
        chosen = {"train": [(year, "trainval") for year in years if year.has("trainval")], "val": tests}
    else:
        train = [(year, split) for year in years for split in [next((s for s in ("train", "trainval-val") if year.has(s)), "")] if split]
        chosen = {"train": train, "val": [(year, "val") for year in years if year.has("val")]}
    for side, lists in chosen.items():
        if not lists:
            place = years[0].folder / "ImageSets" / "Main"
            raise UserError(f"there is no split list for {side}; put {'trainval' if tests and side == 'train' else side}.txt into {place}")
    return chosen


def named_splits(years: list[Year], words: list[str]) -> list[tuple[Year, str]]:
    """(year, list) of words such as ``2007:trainval``."""
    known = {year.name.removeprefix("VOC"): year for year in years}
    found = []
    for word in words:
        year, _, split = word.partition(":")
        if year not in known or not split:
            raise UserError(f"{word!r} names no split list; write YEAR:LIST such as {next(iter(known))}:trainval")
        if not known[year].has(split):
            here = sorted(path.stem for path in known[year].list_path("x").parent.glob("*.txt"))
            raise UserError(f"{known[year].list_path(split)} does not exist; the lists there are: {', '.join(here[:8]) or 'none'}")
        found.append((known[year], split))
    return found


def relative(path: Path, root: Path) -> str:
    """``path`` below ``root`` with forward slashes, as COCO's file_name."""
    return os.path.relpath(path, root).replace(os.sep, "/")

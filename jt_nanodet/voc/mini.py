"""A small VOC out of a large one, for trials: seeded, with every class that can be there, in the layout of the large one."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

from jt_nanodet.errors import UserError
from jt_nanodet.voc import CLASSES
from jt_nanodet.voc.annotation import BadAnnotation, read_annotation
from jt_nanodet.voc.devkit import Year


def choose(classes_of: dict[str, set[str]], count: int, seed: int) -> list[str]:
    """``count`` of the names, drawn with ``seed``: first for each class, the rarest first, one picture that has it; then any. Sorted.

    ``classes_of``: name -> its classes. The result depends on the names, not on their order.
    """
    rng = random.Random(seed)
    pool = sorted(classes_of)
    rng.shuffle(pool)
    holders = {c: [name for name in pool if c in classes_of[name]] for c in {c for found in classes_of.values() for c in found}}
    chosen: list[str] = []
    for wanted in sorted(holders, key=lambda c: (len(holders[c]), c)):
        if len(chosen) < count and not any(wanted in classes_of[name] for name in chosen):
            chosen.append(holders[wanted][0])
    taken = set(chosen)
    chosen += [name for name in pool if name not in taken][: count - len(chosen)]
    return sorted(chosen)


def make(years: dict[str, list[tuple[Year, str]]], target: Path, counts: dict[str, int], seed: int) -> dict:
    """Write ``target/VOCdevkit/VOC20xx`` with ``counts`` pictures of each side; returns names and classes of each side.

    Pictures that both sides list are taken for train only. UserError when there are too few pictures or ``target`` is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"'{target}' is there already and not empty; give another --dst-dir, or remove it")
    chosen: dict[str, list[tuple[Year, str]]] = {}
    report, used = {}, set()
    for side, lists in years.items():
        owner, classes_of = {}, {}
        for year, split in lists:
            for name in year.names(split):
                key = f"{year.name}/{name}"
                if key not in used and year.picture(name) is not None:
                    owner[key], classes_of[key] = year, _classes(year, name)
        if counts[side] > len(owner):
            raise UserError(f"{counts[side]} pictures for {side} are wanted and the lists hold {len(owner)} that can be used; ask for fewer with --{side}-samples")
        picked = choose(classes_of, counts[side], seed)
        used.update(picked)
        chosen[side] = [(owner[key], key.split("/", 1)[1]) for key in picked]
        there = set().union(*(classes_of[key] for key in picked)) if picked else set()
        report[side] = {"names": picked, "classes": sorted(there), "lacking": [c for c in CLASSES if c not in there]}
    parent = target.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-mini-", dir=parent) as folder:
            _write(chosen, Path(folder) / "new")
            if target.exists():
                target.rmdir()
            os.replace(Path(folder) / "new", target)
    except OSError as error:
        raise UserError(f"'{target}' cannot be written ({error.strerror or error}); make room or choose another --dst-dir") from None
    return report


def _classes(year: Year, name: str) -> set[str]:
    try:
        return {thing.name for thing in read_annotation(year.annotation(name)).things}
    except BadAnnotation as error:
        raise UserError(f"{year.annotation(name)} {error}; see all faults with: python -m jt_nanodet voc --verify") from None


def _write(chosen: dict[str, list[tuple[Year, str]]], target: Path) -> None:
    lists: dict[tuple[str, str], list[str]] = {}
    for side, members in chosen.items():
        for year, name in members:
            folder = target / "VOCdevkit" / year.name
            for source, kind in ((year.annotation(name), "Annotations"), (year.picture(name), "JPEGImages")):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / kind / source.name)
            lists.setdefault((year.name, side), []).append(name)
            lists.setdefault((year.name, "trainval"), []).append(name)
    for (year_name, split), names in lists.items():
        place = target / "VOCdevkit" / year_name / "ImageSets" / "Main"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{split}.txt").write_text("".join(f"{name}\n" for name in sorted(names)))

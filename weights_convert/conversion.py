"""Load weights of any format; convert one file into another, with an account of every key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jt_nanodet.checkpoint import check_finite, replacing, weights_sha256
from jt_nanodet.errors import UserError
from weights_convert import account, fit, formats, half
from weights_convert.account import Row


@dataclass(frozen=True)
class Loaded:
    """Weights of a file. ``weights``: upstream's plain names -> arrays, in the file's order; ``account``: one Row per
    source key; ``source``: path, format, layout, selected ("ema", "raw" or "only"), foreign_classes."""

    weights: dict[str, np.ndarray]
    account: list[Row]
    source: dict


@dataclass(frozen=True)
class Converted:
    """What ``convert`` wrote: the weights, their account towards the destination, notes for the user, their hash."""

    weights: dict[str, np.ndarray]
    account: list[Row]
    source: dict
    notes: list[str]
    sha256: str


def load(path: str | os.PathLike, which: str = "auto", *, allow_nonfinite: bool = False) -> Loaded:
    """Read ``.pth``/``.pt``, Lightning ``.ckpt``, ``.npz``, ``.pkl`` or ncnn's ``.param`` without running anything in it.

    ``which`` is "auto" (EMA weights where the file has them), "raw" or "ema". Raises UserError for a file that
    cannot be read or lacks that set, and for NaN or infinite values unless ``allow_nonfinite``.
    """
    path = Path(path)
    weights, rows, source = formats.read_source(path, which)
    if not allow_nonfinite:
        check_finite(weights, path)
    return Loaded(weights, rows, source)


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    which: str = "auto",
    allow_nonfinite: bool = False,
    table: str | os.PathLike | None = None,
    fp16: bool = False,
) -> Converted:
    """Convert ``src`` into ``dst``; the suffixes name the formats. ``table`` gets the whole account as JSON; ``fp16`` stores every float as float16.

    The new file is read back and compared bit for bit before it takes the place of an older one. Raises UserError
    (nothing is written then) for unreadable sources, weights that do not fit ``config``, and unwritable places.
    """
    src, dst = Path(src), Path(dst)
    suffix = formats.format_of(dst)
    formats.source_format(src)
    outputs = [dst] if table is None else [dst, Path(table)]
    _check_places(src, outputs)
    formats.require_writer(dst)
    loaded = load(src, which, allow_nonfinite=allow_nonfinite)

    notes = []
    if fp16:
        weights, rows, said = half.halved(loaded.weights, loaded.account, src)
        loaded = Loaded(weights, rows, loaded.source)
        notes += said
    if loaded.source["foreign_classes"]:
        classes = loaded.source["foreign_classes"]
        shown = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        notes.append(f"{len(classes)} foreign classes named in the file were neither imported nor run: {shown}")
    if config is not None:
        expected = fit.expected_state(Path(config))
        notes += fit.check_fit(loaded.weights, expected, src, config)
    if os.path.exists(dst):
        notes.append(f"'{dst}' existed and was replaced")

    rows = account.retarget(loaded.account, formats.FORMATS[suffix][1])
    sha256 = weights_sha256(loaded.weights)
    with replacing(dst, check=lambda temporary: _verify(temporary, loaded.weights, dst)) as file:
        formats.write_destination(file, suffix, loaded.weights)
    if table is not None:
        about = {"source": loaded.source, "destination": str(dst), "notes": notes, "weights_sha256": sha256}
        with replacing(table) as file:
            file.write(account.to_json(rows, **about))
    return Converted(loaded.weights, rows, loaded.source, notes, sha256)


def _check_places(src: Path, outputs: list[Path]) -> None:
    taken = {os.path.realpath(src): "the source"}
    for path in outputs:
        real = os.path.realpath(path)
        same = real in taken or (os.path.exists(path) and os.path.exists(src) and os.path.samefile(path, src))
        if same:
            raise UserError(f"'{path}' is {taken.get(real, 'the source')} as well; give another path to write to")
        taken[real] = "the destination"
        folder = path.parent
        if not os.path.isdir(folder):
            raise UserError(f"there is no folder '{folder}' to write '{path.name}' into; type: mkdir -p '{folder}'")
        if os.path.isdir(path):
            raise UserError(f"'{path}' is a folder; give the path of a file to write")


def _verify(path: Path, weights: Mapping[str, np.ndarray], dst: Path) -> None:
    back, _, _ = formats.read_source(path, "auto")
    if list(back) != list(weights) or weights_sha256(back) != weights_sha256(weights):
        raise UserError(f"'{dst}' did not read back as it was written; check the disk and convert once more")

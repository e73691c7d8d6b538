"""The table of ``bench kernels``: how many times as fast the kernels are as what else does the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jt_nanodet.errors import UserError

SCENE = ("kind", "size", "batch", "boxes")
KINDS = {"assign": ("label assignment", "标签分配"), "nms": ("suppression", "抑制")}
AGAINST = {"tensor": ("this project without the kernel", "本项目，不用内核"), "upstream": ("as upstream writes it, in PyTorch", "上游写法，PyTorch"),
           "torchvision": ("torchvision's operator", "torchvision 的算子")}


def ratios(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """(kind, contestant) -> how many times as fast the kernel is, a number for each scene."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for name, ratio in row["kernel_is_faster"].items():
            found.setdefault((row["kind"], name), []).append(ratio)
    return found


def earlier(path: str | None) -> list[dict[str, Any]]:
    """The scenes of an earlier file of this measurement, none where there is no file. Raises UserError for another file."""
    if path is None or not Path(path).is_file():
        return []
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = document["rows"] if document["command"].startswith("python -m jt_nanodet bench kernels") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        rows = None
    if rows is None:
        raise UserError(f"{path} is no file of bench kernels, so nothing can be added to it: give another --output, or leave --add out")
    return rows


def joined(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All scenes; those measured again in the place of their old ones."""
    return list({tuple(row[name] for name in SCENE): row for row in [*old, *new]}.values())


def tables(rows: list[dict[str, Any]], note: str) -> dict[str, Any]:
    """`kernels`: a row for each kind and contestant."""
    def table(chinese: int) -> list[list[str]]:
        lines = []
        for (kind, name), values in ratios(rows).items():
            scenes = [row for row in rows if row["kind"] == kind and name in row["kernel_is_faster"]]
            ends = [f"{np.median([row[who]['ms']['median'] for row in scenes]):.3g}" for who in ("kernel", name)]
            lines.append([KINDS[kind][chinese], AGAINST.get(name, (name, name))[chinese], *ends, f"{np.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}", str(len(values))])
        return lines

    return {"kernels": {"columns": ["kernel", "against", "kernel, ms", "the other, ms", "times as fast, median", "least", "most", "scenes"],
                        "columns_zh": ["内核", "对照", "内核，毫秒", "对照，毫秒", "快几倍，中位数", "最小", "最大", "场景数"], "rows": table(0), "note": note}}

"""The table of ``bench kernels``: how many times as fast the kernels are as what else does the same."""

from __future__ import annotations

from typing import Any

import numpy as np

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

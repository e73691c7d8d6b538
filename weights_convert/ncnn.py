"""``.param`` and ``.bin`` of ncnn as upstream's weights.

ncnn stores a convolution with its batch normalisation already in it. The state dict wants both: the convolution gets the stored weight, and the
normalisation is made neutral, with the stored bias as its shift: mean 0, variance 1, scale √(1 + eps), so that the model computes the stored sums.
The auxiliary branch is not in the file, as it is for training only.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from jt_nanodet.errors import UserError
from weights_convert.account import Row
from weights_convert.ncnn_file import Layer, read_ncnn
from weights_convert.ncnn_names import Mismatch, name_layers

#: BatchNorm2d's default in PyTorch, which upstream keeps.
EPS = 1e-5
#: Order of the state dict: parts of the model, then parts of a module. Numbers go by value.
_PARTS = (
    "backbone.conv1", "backbone.stage2", "backbone.stage3", "backbone.stage4", "fpn.reduce_layers", "fpn.top_down_blocks", "fpn.downsamples",
    "fpn.bottom_up_blocks", "fpn.extra_lvl_in_conv", "fpn.extra_lvl_out_conv", "head.distribution_project", "head.cls_convs", "head.gfl_cls",
)  # fmt: skip
_WORDS = ("ghost1", "ghost2", "primary_conv", "cheap_operation", "shortcut", "branch1", "branch2", "conv", "bn", "depthwise", "pointwise", "dwnorm",
          "pwnorm", "weight", "bias", "running_mean", "running_var")  # fmt: skip
MADE = "(not in the file)"


def read_ncnn_weights(path: Path) -> tuple[dict[str, np.ndarray], list[Row]]:
    """(weights under upstream's names in upstream's order, one Row each) of ``X.param`` with ``X.bin`` beside it."""
    layers = read_ncnn(path)
    try:
        names, classes = name_layers(layers)
    except (Mismatch, KeyError) as error:
        raise UserError(f"'{path}' is no export of NanoDet-Plus with ShuffleNetV2 ({error}); convert the released .pth or .ckpt in its place") from None
    weights: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for layer in (layer for layer in layers if layer.weight is not None):
        _add(layer, *names[layer.name], weights, rows)
    bins, rest = divmod(len(weights["head.gfl_cls.0.bias"]) - classes, 4)
    if bins < 2 or rest:
        raise UserError(f"'{path}' has a head of {classes} classes whose other outputs are not four times the same number; export it again")
    project = "head.distribution_project.project"
    weights[project] = np.linspace(0, bins - 1, bins, dtype=np.float32)
    rows.append(Row(MADE, project, "value_converted", (bins,), "float32", f"made: the bins 0 to {bins - 1} of the distances"))
    order = sorted(weights, key=_place)
    place = {name: n for n, name in enumerate(order)}
    return {name: weights[name] for name in order}, sorted(rows, key=lambda row: place[row.target])


def _add(layer: Layer, conv: str, norm: str | None, weights: dict[str, np.ndarray], rows: list[Row]) -> None:
    widened = layer.stored != "float32"
    reason = "found by the layer's place in the graph" + ("; float16 widened to float32, exactly" if widened else "")

    def put(name: str, array: np.ndarray, source: str, status: str, why: str, dtype: str = "float32") -> None:
        weights[name] = array
        rows.append(Row(source, name, status, array.shape, dtype, why))

    put(f"{conv}.weight", layer.weight, f"{layer.name} weight", "value_converted" if widened else "renamed", reason, layer.stored)
    put(f"{norm or conv}.bias", layer.bias, f"{layer.name} bias", "renamed", "found by the layer's place in the graph")
    if norm:
        made = {"weight": math.sqrt(1 + EPS), "running_mean": 0, "running_var": 1}
        for entry, value in made.items():
            array = np.full(layer.bias.shape, value, np.float32)
            put(f"{norm}.{entry}", array, MADE, "value_converted", "made: the normalisation is in the convolution already, so this one is neutral")


def _place(name: str) -> tuple:
    part = next(n for n, start in enumerate(_PARTS) if name.startswith(start + "."))
    rest = name[len(_PARTS[part]) + 1 :]
    words = [int(word) if re.fullmatch(r"\d+", word) else _WORDS.index(word) if word in _WORDS else -1 for word in rest.split(".")]
    return (part, *words)

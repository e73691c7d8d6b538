"""What a golden file leaves out, drawn again: weights, images and sampled positions follow from (seed, name, shape) alone.

Own code after the description in the shared design notes, so that the golden tests run wherever the arrays are; NumPy only.
One generator a name: MT19937 seeded with the CRC-32 of ``"seed:name"``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zlib
from pathlib import Path

import numpy as np

from jt_nanodet.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("GOLDEN_DIR") or ROOT.parent / "shared" / "golden")
#: Values kept of one stage's output, and of a head's.
STAGE_SAMPLES, HEAD_SAMPLES = 2048, 65536


def files() -> list[Path]:
    """Every recorded model, whatever its configuration; empty where the folder is absent."""
    return sorted(FOLDER.glob("nanodet-plus-*.npz"))


def load(path) -> tuple[dict, dict[str, np.ndarray]]:
    """(header, arrays) of a golden file."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays.pop("header").tobytes().decode()), arrays


def draw(header: dict, name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f"{header['seed']}:{name}".encode()))


def entry(header: dict, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One entry of the state dict."""
    random, last = draw(header, name), name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "project":
        return np.arange(shape[0], dtype=np.float32)
    if len(shape) == 4:
        spread = 3.0 if "gfl_" in name else 1.0
        # the division comes before the factor: another order rounds otherwise
        value = random.randn(*shape) / math.sqrt(math.prod(shape[1:])) * spread
    elif last == "scale":
        value = np.asarray(1.0 + 0.1 * random.randn())
    elif last in ("running_var", "weight"):
        value = 0.8 + 0.4 * random.rand(*shape)
    elif last in ("running_mean", "bias"):
        value = 0.1 * random.randn(*shape)
        if last == "bias" and "gfl_cls" in name:
            value[: header["num_classes"]] -= 4.0
    else:
        raise KeyError(f"no rule for {name}")
    return value.astype(np.float32)


def state(header: dict) -> dict[str, np.ndarray]:
    """The whole state dict, in the header's order."""
    return {name: entry(header, name, tuple(shape)) for name, shape, _ in header["keys"]}


def images(header: dict) -> np.ndarray:
    """Network input (B, 3, H, W) float32."""
    width, height = header["input_wh"]
    return draw(header, "image").randn(header["batch"], 3, height, width).astype(np.float32)


def sampled(array: np.ndarray, header: dict, name: str) -> np.ndarray:
    """The values of an ``eval/*`` array that its file keeps; `name` is the array's, such as ``eval/fpn/2``."""
    values = np.asarray(array).reshape(-1)
    count = HEAD_SAMPLES if name.endswith("head") else STAGE_SAMPLES
    if values.size <= count:
        return values.copy()
    word = "sample:" + name.removeprefix("eval/").replace("/", "")
    return values[draw(header, word).choice(values.size, count, replace=False)]


def config_for(header: dict):
    """The configuration a header names, with its class count and its changes to the backbone."""
    config = load_config(ROOT / "configs" / f"{header['config']}.yml")
    arch, classes = config.model.arch, header["num_classes"]
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in header["backbone_overrides"].items()}
    shapes = {name: shape for name, shape, _ in header["keys"]}
    # what the neck takes in follows from the backbone; the file knows it best
    taken = tuple(shapes[f"fpn.reduce_layers.{i}.conv.weight"][1] for i in range(len(arch.fpn.in_channels)))
    arch = dataclasses.replace(
        arch, backbone=dataclasses.replace(arch.backbone, **changes), fpn=dataclasses.replace(arch.fpn, in_channels=taken),
        head=dataclasses.replace(arch.head, num_classes=classes), aux_head=dataclasses.replace(arch.aux_head, num_classes=classes),
    )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, arch=arch))

"""Network inputs for the comparisons, prepared once by the command and handed to both sides as a file; framework-free."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import weights_convert
from jt_nanodet.config import Config
from jt_nanodet.data.batches import stack_images
from jt_nanodet.data.images import list_images, read_image
from jt_nanodet.data.transforms import preprocess_image
from jt_nanodet.errors import UserError


def network_input(config: Config, images: Path | None, count: int, seed: int) -> tuple[np.ndarray, str]:
    """(count, 3, H, W) float32, and where it came from: the first images of a folder, drawn shapes, or seeded noise."""
    val = config.data.val
    if images is not None:
        paths = list_images(images)[:count]
        if len(paths) < count:
            raise UserError(f"{images} holds {len(paths)} images, {count} are asked for: give --images {len(paths)}")
        batch = [preprocess_image(read_image(path), val.input_size, val.keep_ratio, val.pipeline.normalize)[0] for path in paths]
        return stack_images(batch), ", ".join(Path(path).name for path in paths)
    if val.name == "ShapesDataset":
        from jt_nanodet.data import build_dataset

        dataset = build_dataset(val, "test")
        return stack_images([dataset[(seed + i) % len(dataset)]["img"] for i in range(count)]), f"drawn images {seed} to {seed + count - 1}"
    width, height = val.input_size
    return np.random.RandomState(seed).randn(count, 3, height, width).astype(np.float32), f"normal noise of seed {seed}"


def write_input(folder: Path, array: np.ndarray) -> Path:
    path = folder / "input.npy"
    np.save(path, array)
    return path


#: Least value of every number a command takes.
LEAST = {"seed": 0, "images": 1, "batch_size": 1, "limit": 1, "rounds": 0, "threads": 1, "resamples": 0}


def check_arguments(args: argparse.Namespace) -> None:
    """What is wrong with numbers and weight files is said before a framework starts, and before anything is written. Raises UserError."""
    for name, least in LEAST.items():
        value = getattr(args, name, None)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value} and must be at least {least}: give such a number")
    for path in (getattr(args, "pytorch_model", None), getattr(args, "jittor_model", None)):
        if path is not None:
            weights_convert.load(path)

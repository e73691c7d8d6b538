"""Images per second of the data pipeline alone: ``python -m jt_nanodet.data.bench CONFIG [--workers N] [--images N]``.

Prints one JSON object; the model is not built. The first batch is left out,
so that the start of the workers is not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

from jt_nanodet.config import load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.loader import DataLoader
from jt_nanodet.errors import UserError, run_cli


def measure(
    config_path: str,
    workers: int,
    images: int,
    batch_size: int | None = None,
    img_path: str | None = None,
    ann_path: str | None = None,
    seed: int = 0,
) -> dict:
    """Draw at least ``images`` training images; returns counts, seconds and images per second."""
    config = load_config(config_path)
    changes = {k: v for k, v in (("img_path", img_path), ("ann_path", ann_path)) if v is not None}
    dataset = build_dataset(dataclasses.replace(config.data.train, **changes), "train")
    batch = min(batch_size or config.device.batchsize_per_gpu, len(dataset))
    with DataLoader(dataset, batch, seed=seed, workers=workers) as loader:
        started, done, epoch, first = time.perf_counter(), 0, 0, None
        while first is None or done < images:
            for b in loader.epoch(epoch):
                if first is None:
                    first = time.perf_counter()
                    continue
                done += len(b["index"])
                if done >= images:
                    break
            epoch += 1
        seconds = time.perf_counter() - first
        return {
            "config": config_path,
            "workers": workers,
            "batch_size": batch,
            "images": done,
            "seconds": round(seconds, 4),
            "images_per_second": round(done / seconds, 2),
            "seconds_to_first_batch": round(first - started, 4),
            "skipped": loader.skipped,
        }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m jt_nanodet.data.bench", description="Images per second of the training data pipeline alone."
    )
    parser.add_argument("config")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--train-images", default=None, help="folder of images in place of the configuration's")
    parser.add_argument("--annotations", default=None, help="annotation file in place of the configuration's")
    args = parser.parse_args(argv)
    if args.images < 1 or args.workers < 0:
        raise UserError("--images and --workers are counts; write for example --images 256 --workers 2")
    print(
        json.dumps(
            measure(args.config, args.workers, args.images, args.batch_size, args.train_images, args.annotations)
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))

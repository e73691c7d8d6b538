"""``python -m alignment.train``: training compared step by step, from the same start on the same batches.

Resynchronised: before every step the port takes over the reference's whole state (weights, BatchNorm statistics, moments, averages,
counters), so that each step is judged alone, against measured floors (`train_floors` says at which steps). Beside it the port also runs freely, which is shown and not judged.

    python -m alignment.train --config configs/shapes.yml --steps 10 --output out
    python -m alignment.train --config C.yml --weights A.pth --train-images DIR --annotations FILE.json --steps 100 --output out
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from alignment import pair, pair_train
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.result import Result
from alignment.runners import child
from alignment.train_run import Comparison, text
from alignment.train_sides import Partner
from jt_nanodet.checkpoint import weights_sha256
from jt_nanodet.config import Config, load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.loader import DataLoader
from jt_nanodet.errors import UserError
from jt_nanodet.run.start import starting_weights
from jt_nanodet.weight_rules import lively_weights


def write_batches(config: Config, folder: Path, count: int, epochs: list[int], seed: int, size: int) -> list[Path]:
    """`count` batches of `size` images, as the trainers would draw them in these epochs; one file each."""
    dataset = build_dataset(config.data.train, "train", config.model.arch.head.num_classes)
    if len(dataset) < size:
        raise UserError(f"there are {len(dataset)} training images, a batch takes {size}: give --batch-size {len(dataset)}")
    paths: list[Path] = []
    with DataLoader(dataset, size, seed=seed) as loader:
        for number, epoch in enumerate(epochs):
            wanted = count // len(epochs) + (number < count % len(epochs))
            drawn = 0
            while drawn < wanted:
                for batch in loader.epoch(epoch):
                    path = folder / f"batch{len(paths):04d}.npz"
                    lists = {f"{k}/{i}": np.asarray(a, np.int64 if k == "gt_labels" else np.float32)
                             for k in ("gt_bboxes", "gt_labels", "gt_bboxes_ignore") for i, a in enumerate(batch[k])}
                    np.savez(path, img=batch["img"], **lists)
                    paths.append(path)
                    drawn += 1
                    if drawn == wanted:
                        break
    return paths


def start_weights(config: Config, given: Path | None, shapes: dict[str, tuple[int, ...]], seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """What both sides start from: a file's weights, completed as the trainers do it, or lively ones drawn from the seed."""
    if given is None:
        return lively_weights(shapes, seed), [f"lively weights of seed {seed}"]
    import weights_convert

    if not given.is_file():
        raise UserError(f"there is no file {given}: give the weights with --weights")
    return starting_weights(shapes, seed, weights_convert.load(given, "auto").weights, config.model.arch.head.num_classes)


def regimes(config: Config, epoch: int | None, steps: int) -> list[tuple[int, int]]:
    """(epoch, steps) of each part: the given epoch, or half of the steps before `detach_epoch` and half from it on."""
    detach = config.model.arch.detach_epoch
    if epoch is not None or detach == 0 or steps < 2:
        return [(epoch or 0, steps)]
    return [(0, (steps + 1) // 2), (detach, steps // 2)]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m alignment.train", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                   epilog="example: python -m alignment.train --config configs/shapes.yml --steps 4 --output out")
    made.add_argument("--weights", metavar="FILE", type=Path, help="weights both sides start from (.pth .ckpt .npz .pkl); default: seeded weights")
    made.add_argument("--train-images", metavar="DIR", type=Path, help="folder of training pictures; default: the configuration's training set")
    made.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures")
    made.add_argument("--steps", metavar="N", type=int, default=10, help="how many steps (default: 10)")
    made.add_argument("--epoch", metavar="E", type=int, help="epoch to be in; default: half of the steps in epoch 0, half in `detach_epoch`")
    made.add_argument("--batch-size", metavar="N", type=int, default=4, help="images a step (default: 4)")
    made.add_argument("--floors-every", metavar="K", type=int, default=10, help="measure the floors at the first step of each regime, at every Kth after it, and where "
                      "a row does not pass by half of the largest measured so far (default: 10; 1 measures them at every step)")
    made.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    made.add_argument("--pair", metavar="FILE.py", help=pair.HELP)
    made.add_argument("--plant", help=argparse.SUPPRESS)
    return made


def main(argv: list[str]) -> int:
    if pair.asked(argv):
        return pair_train.main(argv)
    args = parser().parse_args(argv)
    if args.steps < 1 or args.batch_size < 1 or args.floors_every < 1 or (args.epoch is not None and args.epoch < 0):
        raise UserError("--steps, --batch-size and --floors-every must be at least 1 and --epoch at least 0: type \"python -m alignment.train --help\"")
    if (args.train_images is None) != (args.annotations is None):
        raise UserError("--train-images and --annotations belong together: give both, or neither for the configuration's own training set")
    folder, config = prepare_output(args.output), load_config(args.config)
    if args.train_images:
        train = dataclasses.replace(config.data.train, name="CocoDataset", img_path=str(args.train_images), ann_path=str(args.annotations))
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, train=train))
    return compare(args, config, folder)


def compare(args: argparse.Namespace, config: Config, folder: Path) -> int:
    started, parts, scratch = time.perf_counter(), regimes(config, args.epoch, args.steps), folder / "steps"
    for old in (scratch, folder / "repro"):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir()
    common = {"config": str(args.config), "device": args.device, "seed": args.seed, "threads": args.threads, "start": str(scratch / "start.safetensors")}
    result = Result("train", device=args.device, seeds={"seed": args.seed})
    sides: dict[str, Partner] = {}
    try:
        batches = write_batches(config, scratch, args.steps, [e for e, _ in parts], args.seed, args.batch_size)
        shapes = child.run("pytorch", [{"kind": "shapes"}], common, folder, verbosity=-1)
        result.versions.update(shapes["versions"])
        weights, remarks = start_weights(config, args.weights, {k: tuple(v) for k, v in shapes["tasks"][0]["shapes"].items()}, args.seed)
        save_file(weights, common["start"])
        for remark in remarks:
            say(remark, args.verbosity)
        for side in child.MODULES:
            say(f"{side}: model and optimiser", args.verbosity)
            sides[side] = Partner(side, {"kind": "train", "plant": args.plant} if side == "jittor" else {"kind": "train"}, common, folder, args.verbosity)
            result.versions.update(sides[side].read().get("versions", {}))
        result.hashes = {"config": config.sha256(), "weights": weights_sha256(weights), **{f"code_{side}": child.code_sha256(side) for side in sides}}
        comparison = Comparison(config, folder, result, parts, args.floors_every, args.verbosity)
        comparison.run(sides, batches)
    finally:
        for partner in sides.values():
            partner.close()
        shutil.rmtree(scratch, ignore_errors=True)
    result.durations = {"total": time.perf_counter() - started,
                        **{side: sum(s["seconds"][side] for s in comparison.steps) for side in child.MODULES}}
    result.parts["command_line"] = ["python", "-m", "alignment.train", *sys.argv[1:]]
    result.parts["peak_memory_mb"] = comparison.steps[-1]["peak_memory_mb"]
    result.parts["source"] = {"weights": "; ".join(remarks) or str(args.weights), "images": str(args.train_images or config.data.train.name),
                              "batch_size": args.batch_size}
    divergence = comparison.finish()
    if args.verbosity >= 0:
        print(text(result, divergence))
    return finish(result, folder, verbosity=args.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))

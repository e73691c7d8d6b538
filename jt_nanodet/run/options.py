"""The command line of ``train``, the same for both sides, applied to the configuration."""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass

from jt_nanodet.config import Config, load_config
from jt_nanodet.errors import UserError


@dataclass(frozen=True)
class Options:
    """``config`` has the command line's values in place already; ``notes`` says which fields follow from others."""

    config: Config
    path: str
    device: str
    seed: int
    load_weights: str | None
    resume: bool
    max_steps: int | None
    freeze_norm: bool
    threads: int | None
    plain: bool
    notes: tuple[str, ...]


def parse(argv: list[str], prog: str) -> Options:
    """Options from the words after ``train``; raises UserError for what does not fit together."""
    args = _parser(prog).parse_args(argv)
    config = load_config(args.config)
    resume = bool(args.resume or config.schedule.resume)
    if resume and args.load_weights:
        raise UserError("--resume goes on with the weights of the interrupted run: leave out --load-weights, or --resume")
    if args.lr is not None and not 0 < args.lr < float("inf"):
        raise UserError(f"--lr {args.lr:g}: give a rate above 0, such as 0.0001")
    for name in ("epochs", "batch_size", "max_steps", "threads", "val_intervals"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give a number of at least 1")
    for name in ("workers", "seed", "warmup_steps"):
        if getattr(args, name) is not None and getattr(args, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 0 or more")
    config, notes = _apply(config, args)
    device = args.device or ("cpu" if config.device.gpu_ids in (-1, (-1,)) else "cuda")
    return Options(
        config, args.config, device, args.seed, args.load_weights or config.schedule.load_model, resume, args.max_steps,
        args.freeze_bn, args.threads, args.plain, tuple(notes),
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Train a configuration; what is not given here stands in its file.")
    parser.add_argument("config", metavar="CONFIG", help="YAML file, e.g. configs/shapes.yml")
    parser.add_argument("--epochs", type=int, help="schedule.total_epochs; the cosine follows where it had the same length")
    parser.add_argument("--batch-size", type=int, help="device.batchsize_per_gpu: images a step of this process")
    parser.add_argument("--lr", type=float, help="schedule.optimizer.lr; the cosine's eta_min keeps its share of it")
    parser.add_argument("--warmup-steps", type=int, help="schedule.warmup.steps")
    parser.add_argument("--val-intervals", type=int, help="schedule.val_intervals: epochs from one validation to the next")
    parser.add_argument("--workers", type=int, help="device.workers_per_gpu: processes that read images; 0 reads in this one")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, order and augmentation (default 0)")
    parser.add_argument("--load-weights", metavar="FILE", help="start from these weights (.pkl, .npz; .pth for the reference)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the save folder")
    parser.add_argument("--save-dir", metavar="DIR", help="save_dir: folder of checkpoints, logs and curves")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda, or cpu where device.gpu_ids is -1")
    parser.add_argument("--max-steps", type=int, help="stop after so many steps in all")
    parser.add_argument("--threads", type=int, help="threads of this process's arithmetic")
    parser.add_argument("--freeze-bn", action="store_true", help="BatchNorm keeps its statistics and normalises with them")
    parser.add_argument("--plain", action="store_true", help="Jittor's own graph, without the operators in C++ (PyTorch has no other)")
    for side in ("train", "val"):
        parser.add_argument(f"--{side}-images", metavar="DIR", help=f"folder of COCO pictures in place of data.{side}")
        parser.add_argument(f"--{side}-annotations", metavar="FILE", help="their annotations")
    return parser


def _apply(config: Config, args) -> tuple[Config, list[str]]:
    replace, notes = dataclasses.replace, []
    schedule, device, data = config.schedule, config.device, config.data
    if args.epochs is not None:
        cosine = schedule.lr_schedule
        if cosine.T_max == schedule.total_epochs and args.epochs != cosine.T_max:
            notes.append(f"schedule.lr_schedule.T_max follows --epochs: {args.epochs} instead of {cosine.T_max}")
            cosine = replace(cosine, T_max=args.epochs)
        schedule = replace(schedule, total_epochs=args.epochs, lr_schedule=cosine)
    if args.lr is not None:
        eta_min = schedule.lr_schedule.eta_min * args.lr / schedule.optimizer.lr
        notes.append(f"schedule.lr_schedule.eta_min follows --lr: {eta_min:g} instead of {schedule.lr_schedule.eta_min:g}")
        schedule = replace(schedule, optimizer=replace(schedule.optimizer, lr=args.lr), lr_schedule=replace(schedule.lr_schedule, eta_min=eta_min))
    if args.warmup_steps is not None:
        schedule = replace(schedule, warmup=replace(schedule.warmup, steps=args.warmup_steps))
    if args.val_intervals is not None:
        schedule = replace(schedule, val_intervals=args.val_intervals)
    if args.batch_size is not None:
        device = replace(device, batchsize_per_gpu=args.batch_size)
    if args.workers is not None:
        device = replace(device, workers_per_gpu=args.workers)
    for side in ("train", "val"):
        images, annotations = getattr(args, f"{side}_images"), getattr(args, f"{side}_annotations")
        if bool(images) != bool(annotations):
            raise UserError(f"pictures and annotations go together: give --{side}-images and --{side}-annotations")
        if images:
            dataset = replace(getattr(data, side), name="CocoDataset", img_path=images, ann_path=annotations)
            data = replace(data, **{side: dataset})
    save_dir = args.save_dir or config.save_dir
    return replace(config, save_dir=os.path.expanduser(save_dir), schedule=schedule, device=device, data=data), notes

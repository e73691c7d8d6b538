"""A configuration that trains in seconds: the shapes configuration with 16 pictures of 64 pixels."""
import dataclasses
from pathlib import Path

import yaml

from jt_nanodet.config import load_config

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "configs" / "shapes.yml"


def tiny_tree(**schedule):
    """The YAML tree; `schedule` replaces fields of its schedule."""
    tree = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    for side, count in (("train", 16), ("val", 4)):
        tree["data"][side].update(count=count, image_size=[64, 64], input_size=[64, 64])
    tree["device"].update(workers_per_gpu=0, batchsize_per_gpu=4)
    tree["schedule"].update({"total_epochs": 2, "val_intervals": 1, "warmup": {"name": "linear", "steps": 3, "ratio": 0.01}, **schedule})
    tree["schedule"]["lr_schedule"]["T_max"] = tree["schedule"]["total_epochs"]
    tree["model"]["arch"]["detach_epoch"] = 1
    tree["log"]["interval"] = 1
    return tree


def write_tiny(folder, **schedule):
    """Path of the configuration file, with its run folder beside it."""
    tree = tiny_tree(**schedule)
    tree["save_dir"] = str(folder / "run")
    path = folder / "tiny.yml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def tiny_config(folder, **schedule):
    return load_config(write_tiny(folder, **schedule))


def with_assigner(config, **fields):
    """The configuration with other assigner fields."""
    arch = config.model.arch
    head = dataclasses.replace(arch.head, assigner_cfg=dataclasses.replace(arch.head.assigner_cfg, **fields))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, arch=dataclasses.replace(arch, head=head)))

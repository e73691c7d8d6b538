"""``python -m alignment.new FILE.py``: write a commented pair file that runs as it is."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from alignment.cli import run_cli
from jt_nanodet.errors import UserError

TEMPLATE = '''"""A pair of models for `--pair`: replace the two small ones by yours.

    python -m alignment.structure --pair {name} --output out
    python -m alignment.layers --pair {name} --output out
    python -m alignment.layers --pair {name} --backward --output out
    python -m alignment.train --pair {name} --output out
"""

import numpy as np

# Each side runs in a process of its own, without the other framework: import them inside the functions only.


def build_reference():
    """The original: a torch.nn.Module. It is put into eval() mode; its weights are the ones both sides get."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))


def build_candidate():
    """The port: a jittor.nn.Module. (Jittor's own BatchNorm keeps another running variance than PyTorch's: docs/examples/resnet.py has one that does not.)"""
    from jittor import nn

    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))


def inputs(seed):
    """NumPy arrays: one, a tuple of positional arguments, or a dict of keyword arguments."""
    return np.random.RandomState(seed).randn(2, 3, 8, 8).astype(np.float32)


# def rename(key):
#     """Name of a weight in the reference -> its name in the candidate; only needed where automatic pairing guesses wrong."""
#     return key.replace("backbone.", "body.")


# def loss(outputs):
#     """One number of either framework, for --backward and train; without it every floating output counts, with seeded weights or goals."""
#     return (outputs * outputs).mean()
'''


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.new", description=__doc__, epilog="example: python -m alignment.new my_pair.py")
    parser.add_argument("file", metavar="FILE.py", type=Path, help="where to write it")
    path = parser.parse_args(argv).file
    if path.suffix != ".py":
        raise UserError(f"{path} is no .py file: type \"python -m alignment.new {path.stem or 'pair'}.py\"")
    if path.exists():
        raise UserError(f"{path} exists and is kept: give another name")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(TEMPLATE.format(name=path), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): give a place you can write to") from error
    print(f"{path} written; now: python -m alignment.layers --pair {path} --output out")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""Two folders of dumped tensors, for frameworks that are not run here: ``python -m alignment.layers --ref DIR --cand DIR --output out``.

A folder holds .safetensors and .npz files; names are the tensors' own, in order of file name. The reference's folder may hold sub-folders of the same
names: ``float64`` (the same run in float64) and ``repeat*`` (the same run under a harmless change each: threads, algorithm, input moved by one ULP).
From these the floor is measured. Without them equal bits pass and any other difference stays undecided: nobody can say what is too much.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from alignment import locate
from alignment.cli import finish, parent_parser, prepare_output
from alignment.compare import compare_bundles
from alignment.noise import Tolerance, measure_floor, tolerance_from_floor
from alignment.result import Result
from jt_nanodet.errors import UserError


def asked(argv: list[str]) -> bool:
    return any(word.split("=")[0] in ("--ref", "--cand") for word in argv)


def read(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder. UserError when it holds none, a file is cut short, or two files name the same tensor."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.suffix not in (".safetensors", ".npz"):
            continue
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    tensors = {name: file[name] for name in file.files}
            else:
                tensors = load_file(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): dump it again") from error
        twice = sorted(set(tensors) & set(found))
        if twice:
            raise UserError(f"{path} names {twice[0]!r}, which an earlier file of {folder} has: keep one of them")
        found.update(tensors)
    if not found:
        raise UserError(f"{folder} holds no .safetensors or .npz file with a tensor: give a folder of dumped tensors")
    return found


def tolerances(folder: Path, ref: dict[str, np.ndarray]) -> tuple[dict[str, Tolerance], dict[str, np.ndarray], list[str]]:
    """(bounds, float64 run, names of the repeats), as far as the reference's folder has them."""
    if not (folder / "float64").is_dir():
        return {}, {}, []
    double, repeats = read(folder / "float64"), {p.name: read(p) for p in sorted(folder.glob("repeat*")) if p.is_dir()}
    bounds = {}
    for name, array in ref.items():
        runs = [array, *(run[name] for run in repeats.values() if name in run)]
        truth = double.get(name)
        if truth is None or array.size == 0 or array.dtype.kind != "f" or not all(np.isfinite(r).all() for r in (truth, *runs)):
            continue
        try:
            words = ["as is", *(n for n, run in repeats.items() if name in run)]
            bounds[name] = tolerance_from_floor(measure_floor(truth, runs, words, channel_axis=1 if array.ndim == 4 else None))
        except ValueError as error:
            raise UserError(f"{name} of {folder}: {error}; dump it again") from error
    return bounds, {n: a for n, a in double.items() if n in bounds}, list(repeats)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.layers", description=__doc__.split("\n\n")[0], parents=[parent_parser(config_required=False)],
                                     epilog="example: python -m alignment.layers --ref dumps/original --cand dumps/port --output out")
    parser.add_argument("--ref", metavar="DIR", type=Path, required=True, help="folder of the reference's tensors, with float64/ and repeat*/ for a floor")
    parser.add_argument("--cand", metavar="DIR", type=Path, required=True, help="folder of the candidate's tensors")
    args = parser.parse_args(argv)
    if args.ref.resolve() == args.cand.resolve():
        raise UserError("--ref and --cand are the same folder, which proves nothing: give two")
    ref, cand = read(args.ref), read(args.cand)
    bounds, double, repeats = tolerances(args.ref, ref)
    folder = prepare_output(args.output)
    result = Result("layers", device=args.device, seeds={"seed": args.seed})
    result.add(compare_bundles(ref, cand, bounds, ref64=double, allow_0d_as_1d=True))
    if not bounds:
        result.leave_out("floor", f"{args.ref} has no float64 folder: only equal bits can pass")
    divergence = locate.first_divergence(result.rows())
    result.parts = {"dumps": {"ref": str(args.ref), "cand": str(args.cand), "repeats": repeats}, "first_divergence": vars(divergence) if divergence else None}
    return finish(result, folder, verbosity=args.verbosity)

"""Two folders of dumped tensors, for frameworks that are not run here: ``python -m alignment.layers --ref DIR --cand DIR --output out``.

A folder holds .safetensors, .npz and .npy files; names are the tensors' own, in order of file name. The reference's folder may hold sub-folders of the same
names: ``float64`` (the same run in float64) and ``repeat*`` (the same run under a harmless change each: threads, algorithm, input moved by one ULP).
From these the floor is measured. Without them equal bits pass and any other difference stays undecided: nobody can say what is too much.
Tensors are read block by block (`dump_files`), so their size is limited by the disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment import locate
from alignment.blocks import Blocks, as_real
from alignment.cli import finish, parent_parser, prepare_output, say
from alignment.compare import compare_bundles
from alignment.dump_files import Folder
from alignment.measures import first_not_finite, held
from alignment.noise import Tolerance, measure_floor, tolerance_from_floor
from alignment.result import Result
from jt_nanodet.errors import UserError
from jt_nanodet.run.memory import peak_memory_bytes

#: A tensor of so many bytes takes seconds, so it is announced.
LARGE = 64 << 20


class Part(Mapping):
    """Some tensors of a folder or a run, in the order of `names`; a large one is announced when it is taken, unless `verbosity` is below 0."""

    def __init__(self, tensors: Mapping[str, Any], names: Collection[str], verbosity: int = -1):
        self.tensors, self.names, self.verbosity = tensors, dict.fromkeys(names), verbosity

    def __getitem__(self, name: str) -> Any:
        found = self.tensors[name]
        if found.nbytes >= LARGE:
            say(f"comparing {name!r}: {found.nbytes >> 20} MB", self.verbosity)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def asked(argv: list[str]) -> bool:
    return any(word.split("=")[0] in ("--ref", "--cand") for word in argv)


def tolerances(folder: Path, ref: Mapping[str, Blocks], verbosity: int = -1) -> tuple[dict[str, Tolerance], Mapping[str, Blocks], list[str]]:
    """(bounds, float64 run, names of the repeats), as far as the reference's folder has them."""
    if not (folder / "float64").is_dir():
        return {}, {}, []
    double, repeats = Folder(folder / "float64"), {p.name: Folder(p) for p in sorted(folder.glob("repeat*")) if p.is_dir()}
    bounds = {}
    for name, tensor in ref.items():
        truth, runs = double.get(name), [tensor, *(run[name] for run in repeats.values() if name in run)]
        if truth is None or tensor.size == 0 or tensor.dtype.kind not in "fc":
            continue
        if tensor.nbytes >= LARGE:
            say(f"floor of {name!r}: {len(runs)} runs of {tensor.nbytes >> 20} MB", verbosity)
        truth, *runs = (as_real(held(one)) for one in (truth, *runs))
        if any(first_not_finite(one) is not None for one in (truth, *runs)):
            continue
        try:
            words = ["as is", *(n for n, run in repeats.items() if name in run)]
            bounds[name] = tolerance_from_floor(measure_floor(truth, runs, words, channel_axis=1 if tensor.ndim == 4 else None))
        except ValueError as error:
            raise UserError(f"{name!r} of {folder}: {error}; dump it again") from error
    return bounds, Part(double, bounds), list(repeats)


def empty_pairs(ref: Mapping[str, Blocks], cand: Mapping[str, Blocks]) -> list[str]:
    """Tensors without elements, alike on both sides: there is nothing to compare, and nothing is wrong."""
    return [name for name, one in ref.items() if one.size == 0 and name in cand and (cand[name].shape, cand[name].dtype) == (one.shape, one.dtype)]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.layers", description=__doc__.split("\n\n")[0], parents=[parent_parser(config_required=False)],
                                     epilog="example: python -m alignment.layers --ref dumps/original --cand dumps/port --output out")
    parser.add_argument("--ref", metavar="DIR", type=Path, required=True, help="folder of the reference's tensors, with float64/ and repeat*/ for a floor")
    parser.add_argument("--cand", metavar="DIR", type=Path, required=True, help="folder of the candidate's tensors")
    args = parser.parse_args(argv)
    if args.ref.resolve() == args.cand.resolve():
        raise UserError("--ref and --cand are the same folder, which proves nothing: give two")
    ref, cand = Folder(args.ref), Folder(args.cand)
    folder = prepare_output(args.output)
    bounds, double, repeats = tolerances(args.ref, ref, args.verbosity)
    result = Result("layers", device=args.device, seeds={"seed": args.seed})
    empty = empty_pairs(ref, cand)
    for name in empty:
        result.leave_out(name, "empty, with the same shape, on both sides")
    left, right = (Part(side, [n for n in side if n not in empty], verbosity) for side, verbosity in ((ref, args.verbosity), (cand, -1)))
    result.add(compare_bundles(left, right, bounds, ref64=double, allow_0d_as_1d=True))
    if not bounds:
        result.leave_out("floor", f"{args.ref} has no float64 folder: only equal bits can pass")
    divergence = locate.first_divergence(result.rows())
    result.parts = {"dumps": {"ref": str(args.ref), "cand": str(args.cand), "repeats": repeats}, "first_divergence": vars(divergence) if divergence else None,
                    "peak_memory_mb": peak_memory_bytes() / 2**20}
    return finish(result, folder, verbosity=args.verbosity)

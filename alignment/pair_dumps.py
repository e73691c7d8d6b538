"""``--pair FILE.py`` with ``--ref DIR`` or ``--cand DIR``: a model that is run against a folder of tensors dumped elsewhere.

    python -m alignment.layers --pair my_pair.py --ref dumps/original --output out    # the port is run
    python -m alignment.layers --pair my_pair.py --cand dumps/port --output out       # the reference is run, and its floors are measured

Tensors are paired by name: the run's are the names of its calls (``layer1.bn2``, ``block.attn@2/0``, ``(model)``) and of its weights (``weight/fc.bias``);
``input/0``, ``input/1`` ... of the folder must equal what inputs() gives. The folder decides what is compared. docs/pairs.md is the user's page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignment import dumps, locate, pair
from alignment.blocks import Blocks
from alignment.bundle import Bundle
from alignment.cli import finish, prepare_output, say
from alignment.compare import compare_bundles, compare_tensors
from alignment.dump_files import Folder
from alignment.noise import Tolerance
from alignment.reasons import Reason, Verdict
from alignment.result import Result, TensorResult, check_row
from alignment.runners import child
from jt_nanodet.errors import UserError

INPUT, WEIGHT = "input/", "weight/"


class Dumped(Mapping):
    """The tensors of a folder under the run's names, in the given order; integers with 64 bits, as a run gives them, because Jittor keeps 32 of
    them, whatever they were. `places`: the run's name to the folder's."""

    def __init__(self, folder: Folder, places: Mapping[str, str]):
        self.folder, self.places = folder, places

    def __getitem__(self, name: str) -> Blocks:
        found = self.folder[self.places[name]]
        return Blocks(found.shape, np.dtype(np.int64), lambda start, stop: found[start:stop]) if found.dtype.kind == "i" else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class Outputs(Mapping):
    """What the bundle of a run holds, under the names that a folder uses: outputs by call, weights under ``weight/``; in order of execution."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        calls = [name for one in bundle.header.extra["calls"].values() for name in one["outputs"]]
        self.places = {**{name: f"out/{name}" for name in calls}, **{name: name for name in bundle if name.startswith(WEIGHT)}}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.bundle[self.places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def parser() -> argparse.ArgumentParser:
    made = pair.parser("layers")
    made.add_argument("--ref", metavar="DIR", type=Path, help="folder of the reference's tensors, with float64/ and repeat*/ for a floor: the port is run")
    made.add_argument("--cand", metavar="DIR", type=Path, help="folder of the candidate's tensors: the reference is run")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if (args.ref is None) == (args.cand is None):
        raise UserError("--pair runs one side and a folder of tensors stands for the other: give one of --ref DIR and --cand DIR")
    if args.backward:
        raise UserError("--backward needs both models, and a folder of tensors stands for one of them: leave it out")
    pair.check_arguments(args)
    names = pair.read_layer_map(args.layer_map)
    place = args.ref or args.cand
    folder = Folder(place)
    output = prepare_output(args.output)
    side, kind = ("jittor", "pair_alone") if args.ref else ("pytorch", "pair")
    say(f"{side}: {args.pair}", args.verbosity)
    bundle = output / pair.BUNDLES / side
    child.run(side, [{"kind": kind, "output": str(bundle)}], pair.common(args), output, verbosity=args.verbosity, timeout=args.timeout)
    run = Bundle.open(bundle)
    result = Result("layers", device=args.device, seeds={"seed": args.seed}, versions=run.header.versions)
    result.hashes = {"pair": run.header.config_sha256, "weights": run.header.weights_sha256, "inputs": run.header.inputs_sha256}
    result.parts = {"pair": args.pair, "dumps": {"ref" if args.ref else "cand": str(place), "run": side}}
    check_inputs(folder, run, result)
    if not result.objections:
        judge(folder, run, names, args, result)
    divergence = None if result.objections else locate.first_divergence(result.rows())
    result.parts["first_divergence"] = vars(divergence) if divergence else None
    if args.verbosity >= 0:
        pair.show_divergence(result)
    return finish(result, output, verbosity=args.verbosity)


def check_inputs(folder: Folder, run: Bundle, result: Result) -> None:
    """An objection for every dumped input that is not the run's."""
    given = pair.names_in(run.header.extra["value"])
    dumped = Dumped(folder, {name: name for name in folder if name.startswith(INPUT)})
    if not len(dumped):
        result.leave_out("inputs", f"{folder.path} holds no {INPUT}0: that both sides saw the same inputs is not shown")
    for name, found in dumped.items():
        number = name.removeprefix(INPUT)
        if not number.isdecimal() or int(number) >= len(given):
            result.object(Reason.INPUTS_DIFFER, f"{folder.path} has {name}, and inputs() gives {len(given)} arrays")
            continue
        row = compare_tensors(name, run[given[int(number)]], found, exact=True, allow_0d_as_1d=True)
        if row.failed and row.reason is not Reason.EMPTY:
            result.object(Reason.INPUTS_DIFFER, f"{name} of {folder.path} is not what inputs({run.header.seed}) gives: {row.hint}")


def places(folder: Folder, outputs: Outputs, names: Mapping[str, str], args: argparse.Namespace) -> dict[str, str]:
    """The run's name to the folder's, in the run's order, then what only the folder has. `names`: the layer map, reference's name to candidate's."""
    mapped = {run: dump for dump, run in names.items()} if args.ref else dict(names)
    for run, dump in mapped.items():
        for name, known, where in ((run, outputs, "the run"), (dump, folder, str(folder.path))):
            if name not in known:
                raise UserError(f"{args.layer_map} names {name!r}, which is no tensor of {where}: write `reference tensor: candidate tensor`, one pair a line")
    if len(mapped) < len(names) or len(set(mapped.values())) < len(mapped):
        raise UserError(f"{args.layer_map} names one tensor twice: give each a partner of its own")
    taken = set(mapped.values())
    found = {**mapped, **{name: name for name in folder if name not in taken and name not in mapped and not name.startswith(INPUT)}}
    order = {name: number for number, name in enumerate(outputs)}
    return dict(sorted(found.items(), key=lambda entry: order.get(entry[0], len(order))))


def judge(folder: Folder, run: Bundle, names: Mapping[str, str], args: argparse.Namespace, result: Result) -> None:
    """Rows for the tensors of the folder, in the run's order of execution, then those that the run lacks."""
    outputs = Outputs(run)
    where = places(folder, outputs, names, args)
    bounds, double = (floors_of_folder if args.ref else floors_of_run)(folder, run, where, args.verbosity)
    dumped = dumps.Part(Dumped(folder, where), where, args.verbosity)
    empty = dumps.empty_pairs(outputs, dumped)
    for name in empty:
        result.leave_out(name, "empty, with the same shape, on both sides")
    dumped, made = (dumps.Part(side, [n for n in where if n in side and n not in empty]) for side in (dumped, outputs))
    result.add(observer("jittor" if args.ref else "pytorch", run.header.extra["observer_moved"], bounds))
    rows = compare_bundles(*((dumped, made) if args.ref else (made, dumped)), bounds, ref64=double, allow_0d_as_1d=True)
    result.add(shown(row, where, args) for row in rows)
    if not bounds:
        result.leave_out("floor", f"{folder.path} has no float64 folder: only equal bits can pass" if args.ref else "no tensor of the folder has one")
    rest = [name for name in outputs if name not in where and not name.startswith(WEIGHT)]
    if rest:
        result.leave_out("outputs", f"{len(rest)} outputs of the run are not in {folder.path}, the first is {rest[0]}")


def shown(row: TensorResult, where: Mapping[str, str], args: argparse.Namespace) -> TensorResult:
    """A row with the name that the folder has for its tensor, where the layer map gave it another."""
    name = where.get(row.name_ref, row.name_ref)
    return row if name == row.name_ref else replace(row, match_method="override", **{"name_ref" if args.ref else "name_cand": name})


def floors_of_folder(folder: Folder, run: Bundle, where: Mapping[str, str], verbosity: int) -> tuple[dict[str, Tolerance], Mapping[str, Any]]:
    bounds, double, _ = dumps.tolerances(folder.path, folder, verbosity)
    known = {name: dump for name, dump in where.items() if dump in bounds}
    return {name: bounds[dump] for name, dump in known.items()}, Dumped(double, known)


def floors_of_run(folder: Folder, run: Bundle, where: Mapping[str, str], verbosity: int) -> tuple[dict[str, Tolerance], Mapping[str, Any]]:
    measured = run.header.extra["floors_whole"]
    bounds = {name: bound for name in where if (bound := pair.tolerance(measured.get(name))) is not None}
    return bounds, {name: run[f"run64/{name}"] for name in bounds}


def observer(side: str, moved: Mapping[str, float], bounds: Mapping[str, Tolerance]) -> TensorResult:
    """Whether recording changed the run's output: not in a bit, within the bound, more, or by what nobody can judge without a floor."""
    if not moved:
        return check_row(f"observer/{side}", True, Reason.OBSERVER_CHANGED_RESULT, stage="observer")
    worst = max(moved, key=lambda name: moved[name])
    row = check_row(f"observer/{side}", False, Reason.OBSERVER_CHANGED_RESULT, f"recording the run moved its output {worst} by {moved[worst]:.3g}", stage="observer")
    if any(name in bounds and moved[name] > bounds[name].bound or not np.isfinite(moved[name]) for name in moved):
        return row
    return replace(row, verdict=Verdict.WARN if all(name in bounds for name in moved) else Verdict.INCONCLUSIVE)

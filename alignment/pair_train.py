"""``python -m alignment.train --pair FILE.py``: training of any two models compared step by step, from the same start on the same inputs.

Before every step the port takes over the reference's whole state (weights, running statistics, moments), so that each step is judged alone, by the rules and floors of
the built-in pair (`train_run`, `train_judge`). Step k trains on ``inputs(seed + k)``, in training mode with dropout off; beside it the port also runs freely, which is shown and not judged.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignment import pair
from alignment.bundle import Bundle
from alignment.cli import finish, prepare_output, say
from alignment.result import Result, TensorResult
from alignment.runners import child
from alignment.runners.pair_train import split
from alignment.train_judge import CAUSES, StepJudgement
from alignment.train_run import Comparison, text
from alignment.train_sides import Partner
from jt_nanodet.config import OptimizerConfig
from jt_nanodet.errors import UserError

STEPS = 4
#: What is not stated on the command line; the rate stays as it is. The rest is PyTorch's: AdamW betas 0.9 and 0.999, eps 1e-8, decay 0.01; SGD decay 0.
OPTIMIZERS = {"adamw": OptimizerConfig("AdamW", 1e-3), "sgd": OptimizerConfig("SGD", 1e-2, momentum=0.9)}


def parser() -> argparse.ArgumentParser:
    made = pair.parser("train")
    arguments(made)
    made.add_argument("--floors-every", metavar="K", type=int, default=10, help="measure the floors at the first step, at every Kth after it, and where a row does not pass by half of the largest "
                      "measured so far (default: 10; 1 measures them at every step)")
    return made


def arguments(made: argparse.ArgumentParser) -> None:
    """What decides the training; of the report too."""
    made.add_argument("--steps", metavar="N", type=int, default=STEPS, help=f"how many steps (default: {STEPS})")
    made.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adamw", help="of both sides: AdamW (betas 0.9 0.999, eps 1e-8, decay 0.01) or SGD (momentum 0.9, decay 0); default: adamw")
    made.add_argument("--lr", metavar="R", type=float, help=f"learning rate, the same in every step (default: {', '.join(f'{one.lr:g} with {name}' for name, one in OPTIMIZERS.items())})")


def optimizer_of(args: argparse.Namespace) -> OptimizerConfig:
    if args.steps < 1 or (args.lr is not None and not 0 < args.lr < float("inf")):
        raise UserError("--steps must be at least 1 and --lr a number above 0: give such a number")
    found = OPTIMIZERS[args.optimizer]
    return found if args.lr is None else dataclasses.replace(found, lr=args.lr)


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    pair.check_arguments(args)
    optimizer = optimizer_of(args)
    if args.floors_every < 1:
        raise UserError("--floors-every must be at least 1: give such a number")
    overrides = pair.read_layer_map(args.layer_map)
    result, divergence = run(args, optimizer, prepare_output(args.output), overrides)
    if args.verbosity >= 0:
        pair.show_matches(result.parts["matches"])
        print(text(result, divergence))
    return finish(result, args.output, verbosity=args.verbosity)


def run(args: argparse.Namespace, optimizer: OptimizerConfig, folder: Path, overrides: dict[str, str]) -> tuple[Result, Any]:
    """(the result, the first divergence); `folder` keeps steps.csv, and what reproduces the first failed row."""
    started, scratch = time.perf_counter(), folder / "steps"
    for old in (scratch, folder / "repro"):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(parents=True)
    common = {**pair.common(args), "start": str(scratch / "start"), "optimizer": dataclasses.asdict(optimizer)}
    result, sides, ready = Result("train", device=args.device, seeds={"seed": args.seed}), {}, {}
    try:
        for side, task in (("pytorch", {}), ("jittor", {"layer_map": overrides})):
            say(f"{side}: {args.pair}, model and optimiser", args.verbosity)
            sides[side] = Partner(side, {"kind": "pair_train", **task}, common, folder, args.verbosity, args.timeout)
            ready[side] = sides[side].read()
            result.versions.update(ready[side]["versions"])
        told, begun = ready["jittor"], Bundle.open(common["start"])
        header = begun.header
        result.hashes = {"pair": header.config_sha256, "weights": header.weights_sha256, "inputs": header.inputs_sha256, **{f"code_{side}": child.code_sha256(side) for side in sides}}
        result.add(pair.weight_rows(told["account"], told["unfilled"]))
        comparison = PairComparison(optimizer, folder, result, args.steps, getattr(args, "floors_every", args.steps), args.verbosity)
        comparison.know(header.extra["modules"], told)
        comparison.run(sides, [scratch / f"batch{index:04d}.npz" for index in range(args.steps)])
    finally:
        for partner in sides.values():
            partner.close()
        shutil.rmtree(scratch, ignore_errors=True)
    off = {"reference": header.extra["dropout"], "candidate": told["dropout"]}
    if any(off.values()):
        result.leave_out("dropout", "switched off on both sides: " + "; ".join(f"{', '.join(paths)} of the {side}" for side, paths in off.items() if paths))
    result.durations = {"total": time.perf_counter() - started, **{side: sum(s["seconds"][side] for s in comparison.steps) for side in child.MODULES}}
    result.parts.update(pair=args.pair, matches=told["matches"], command_line=["python", "-m", "alignment.train", *sys.argv[1:]],
                        optimizer=dataclasses.asdict(optimizer), peak_memory_mb=comparison.steps[-1]["peak_memory_mb"])
    return result, comparison.finish()


class PairComparison(Comparison):
    """The run for a pair: one regime, an optimiser in place of a configuration, and rows that name the module on both sides."""

    causes = {**CAUSES, "loss": "the forward pass in training mode, or loss(), computes something else: alignment.layers with --pair and --backward names the module"}

    def __init__(self, optimizer: OptimizerConfig, folder: Path, result: Result, steps: int, floors_every: int, verbosity: int):
        super().__init__(SimpleNamespace(schedule=SimpleNamespace(optimizer=optimizer), grad_clip=0.0), folder, result, [(0, steps)], floors_every, verbosity)
        self.types: dict[str, str] = {}
        self.where: dict[str, str | None] = {}
        self.dropped: set[str] = set()

    def know(self, modules: list[dict[str, Any]], told: dict[str, Any]) -> None:
        """The reference's modules, and what the candidate said of its own when it was ready."""
        self.types = {row["path"]: row["type"] for row in modules}
        self.where = {row["source"]: row["target"] for row in told["account"]}
        self.dropped = {source for source, target in self.where.items() if target is None}

    def regimes(self) -> list[dict[str, Any]]:
        return [{"epoch": epoch, "steps": steps, "auxiliary": "none"} for epoch, steps in self.parts]

    def judge(self, index: int, ref: dict, cand: dict, double: dict, about: dict[str, Any], signs: dict[str, Any] | None, flips: float) -> StepJudgement:
        """A weight without partner is said once, by its own row. The norm of all gradients clips nothing here, and every gradient is judged itself."""
        order = [name for name in about["order"] if split(name)[1] not in self.dropped]
        found = super().judge(index, ref, cand, double, {**about, "order": order}, signs, flips)
        found.rows = [self.named(row) for row in found.rows if row.name_ref != "norm/own"]
        return found

    def named(self, row: TensorResult) -> TensorResult:
        prefix, key = split(row.name_ref)
        if not key:
            return row
        path, other = key.rpartition(".")[0], self.where.get(key)
        row = dataclasses.replace(row, name_cand=f"{prefix}{other}" if other else row.name_cand, module_type=self.types.get(path, ""))
        if not row.failed:
            return row
        port = f", {other} in the port" if other and other != key else ""
        return dataclasses.replace(row, hint=f"{key.rpartition('.')[2]} of module {path or '(model)'} ({row.module_type or 'unknown'}){port}" + (f": {row.hint}" if row.hint else ""))


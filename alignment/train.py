"""``python -m alignment.train``: training compared step by step, from the same start on the same batches.

Resynchronised: before every step the port takes over the reference's whole state (weights, BatchNorm statistics, moments, averages,
counters), so that each step is judged alone, against floors measured at that step. Beside it the port also runs freely, which is shown and not judged.

    python -m alignment.train --config configs/shapes.yml --steps 10 --output out
    python -m alignment.train --config C.yml --weights A.pth --train-images DIR --annotations FILE.json --steps 100 --output out
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from alignment import locate, train_repro
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.reasons import Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from alignment.train_judge import CAUSES, STAGES, StepJudgement, judge_step, rate_row
from jt_nanodet.checkpoint import weights_sha256
from jt_nanodet.config import Config, load_config
from jt_nanodet.data import build_dataset
from jt_nanodet.data.loader import DataLoader
from jt_nanodet.errors import UserError
from jt_nanodet.run.start import starting_weights
from jt_nanodet.weight_rules import lively_weights

COLUMNS = ("step", "epoch", "stage", "name", "verdict", "reason", "max_abs", "tolerance", "floor", "rel_l2", "cosine", "ulp_p99", "err_ref_fp64", "err_cand_fp64")
#: Failing steps after which the run stops: the first one says what is wrong, a few more how it goes on.
FAILING_STEPS = 3


class Partner:
    """One side's process: a line of JSON in, a line of JSON out."""

    def __init__(self, side: str, task: dict[str, Any], common: dict[str, Any], folder: Path, verbosity: int):
        self.side, (job, self.report) = side, child.prepare(side, [task], common, folder, verbosity, ".train")
        self.log = open(folder / f"{side}.train.log", "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(child.command(side, job), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        env=child.environment(), text=True)
        self.tail: list[str] = []

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` finds out why
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line of JSON; anything else (a library talking, a traceback) is kept for the error message."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
            self.tail = [*self.tail[-3:], line.strip()]
        self.process.wait()
        error = json.loads(self.report.read_text(encoding="utf-8")).get("error") if self.report.is_file() else None
        raise UserError(error or f"the {self.side} side ended with exit status {self.process.returncode}: {' / '.join(filter(None, self.tail))}; "
                        "type \"python -m jt_nanodet doctor\"")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


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


class Comparison:
    """The run: both processes, the loop over the steps, and what it found."""

    def __init__(self, config: Config, folder: Path, result: Result, parts: list[tuple[int, int]], verbosity: int):
        self.config, self.folder, self.result, self.parts, self.verbosity = config, folder, result, parts, verbosity
        self.scratch = folder / "steps"
        self.rows: list[TensorResult] = []
        self.steps: list[dict[str, Any]] = []
        self.branches: list[dict[str, Any]] = []
        self.repro: Path | None = None
        self.failing = 0

    def run(self, sides: dict[str, Partner], batches: list[Path]) -> None:
        index = epoch = 0
        with open(self.folder / "steps.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for start, count in self.parts:
                if start > epoch:
                    self.move_to(sides, index, start - epoch)
                    epoch = start
                for _ in range(count):
                    self.one(sides, index, epoch, batches[index], table)
                    index += 1
                    if self.failing >= FAILING_STEPS:
                        left = sum(n for _, n in self.parts) - index
                        if left:
                            self.result.leave_out(f"{left} further steps", f"stopped after {FAILING_STEPS} failing steps")
                        return

    def move_to(self, sides: dict[str, Partner], index: int, count: int) -> None:
        """Let `count` epochs end on both sides; the rates after them are compared."""
        before = self.scratch / "before.safetensors"
        lr = {side: partner.ask({"do": "epoch", "count": count, "before": str(before)}) for side, partner in sides.items()}
        row = rate_row(f"rate after {count} epochs", lr["pytorch"]["lr"], lr["jittor"]["lr"], "schedule", index)
        self.result.add(row)
        self.rows.append(row)

    def one(self, sides: dict[str, Partner], index: int, epoch: int, batch: Path, table: Any) -> None:
        at = {k: str(self.scratch / f"{k}.safetensors") for k in ("before", "reference", "candidate", "double")}
        floors = self.scratch / "floors.json"
        common = {"do": "step", "index": index, "batch": str(batch), "before": at["before"]}
        said = sides["pytorch"].ask({**common, "output": at["reference"], "double": at["double"], "floors": str(floors)})
        told = sides["jittor"].ask({**common, "reference": at["reference"], "output": at["candidate"]})
        ref, cand, double = (load_file(at[k]) for k in ("reference", "candidate", "double"))
        if index == 0:
            self.result.check("observer/pytorch", said["observer_equal"], Reason.OBSERVER_CHANGED_RESULT, "watching the step changed it", stage="observer")
        free = {k.removeprefix("free/"): cand.pop(k) for k in list(cand) if k.startswith("free/")}
        judged = judge_step(index, ref, cand, double, json.loads(floors.read_text(encoding="utf-8")), told["signs"], said["flips"])
        self.keep(judged, index, epoch, table)
        self.branches += judged.branches
        self.steps.append(summary(index, epoch, ref, cand, free, judged, said, told))
        first = next((row for row in judged.rows if row.failed), None)
        if first is not None:
            self.failing += 1
            if self.repro is None:
                before = load_file(at["before"])
                self.repro = train_repro.write(self.folder / "repro", first, ref, cand, before, self.config)
        for path in at.values():
            if path != at["before"]:
                Path(path).unlink(missing_ok=True)
        worst = max((r.max_abs / r.tolerance for r in judged.rows if r.max_abs and r.tolerance), default=0.0)
        say(f"step {index} (epoch {epoch}): loss {ref['loss/total'][0]:.6f}, free {self.steps[-1]['free']['loss']}, largest difference {worst:.2g} of its bound"
            + (f", FAILED at {first.name_ref}" if first is not None else ""), self.verbosity)

    def keep(self, judged: StepJudgement, index: int, epoch: int, table: Any) -> None:
        """Every row to steps.csv; to the result one row a stage, the nearest to its bound, and every row that did not pass."""
        self.rows += [row for row in judged.rows if row.verdict is not Verdict.PASS] or judged.rows[:1]
        for row in judged.rows:
            table.writerow([index, epoch, row.stage, row.name_ref, row.verdict, row.reason,
                            *(("" if (v := getattr(row, c)) is None else f"{v:.4g}") for c in COLUMNS[6:])])
        for stage in STAGES:
            rows = [row for row in judged.rows if row.stage == stage]
            good = [row for row in rows if row.verdict is Verdict.PASS]
            if good:
                top = max(good, key=lambda r: (r.max_abs or 0.0) / r.tolerance if r.tolerance else 0.0)
                self.result.add(dataclasses.replace(top, name_ref=stage, name_cand=stage, hint=f"the nearest to its bound of {len(good)}: {top.name_ref}"
                                                    + (f"; {top.hint}" if top.hint else "")))
            self.result.add(row for row in rows if row.verdict is not Verdict.PASS)

    def finish(self) -> locate.Divergence | None:
        self.result.parts["train"] = {
            "steps": self.steps, "branch_points": self.branches, "rows_compared": sum(s["rows"] for s in self.steps),
            "regimes": [{"epoch": e, "steps": n, "auxiliary": "detached" if e >= self.config.model.arch.detach_epoch else "attached"} for e, n in self.parts],
            "repro": str(self.repro.relative_to(self.folder)) if self.repro else None,
        }
        divergence = locate.first_divergence(self.rows, training=True)
        if divergence:
            causes = tuple(dict.fromkeys((CAUSES.get(divergence.stage, ""), *divergence.causes)))
            divergence = dataclasses.replace(divergence, causes=tuple(filter(None, causes)), kind="own", confirmed=True,
                                             note="the step began from the reference's own state, and every row before it agrees")
        self.result.parts["first_divergence"] = vars(divergence) if divergence else None
        return divergence


def summary(index: int, epoch: int, ref: dict, cand: dict, free: dict, judged: StepJudgement, said: dict, told: dict) -> dict[str, Any]:
    """One step for people and curves: losses of both sides and of the free run, its drift, and what was close."""
    terms = [n for n in ref if n.startswith("loss/")]
    drift, apart = None, None
    if free:
        names = [n for n in free if n.startswith("model/") and free[n].dtype.kind == "f"]
        off = sum(float(np.square(free[n].astype(np.float64) - ref[f"after/{n}"]).sum()) for n in names)
        size = sum(float(np.square(ref[f"after/{n}"].astype(np.float64)).sum()) for n in names)
        drift = (off / size) ** 0.5 if size else 0.0
        apart = int(sum((free[n] != ref[n]).sum() for n in free if n.startswith("assigned/") and free[n].shape == ref[n].shape))
    worst = {}
    for row in judged.rows:
        if row.max_abs is not None and row.tolerance and row.max_abs / row.tolerance > worst.get(row.stage, (0.0,))[0]:
            worst[row.stage] = (row.max_abs / row.tolerance, row.name_ref)
    return {
        "step": index, "epoch": epoch, "rows": len(judged.rows), "failed": sum(r.failed for r in judged.rows), "lr": float(ref["rate"][0]),
        "loss": {n.removeprefix("loss/"): {"ref": float(ref[n][0]), "cand": float(cand[n][0]), "free": float(free[n][0]) if free else None} for n in terms},
        "grad_norm": {"ref": float(ref["norm/own"][0]), "cand": float(cand["norm/own"][0])},
        "positives": int(sum((ref[n] > 0).sum() for n in ref if n.startswith("assigned/") and n.endswith("/box"))),
        "branch_points": len(judged.branches), "signs": judged.signs, "gradients": judged.agreement,
        "worst": {stage: {"of_bound": ratio, "name": name} for stage, (ratio, name) in worst.items()},
        "free": {"loss": float(free["loss/total"][0]) if free else told.get("free_stopped"), "weights_rel_l2": drift, "priors_apart": apart},
        "seconds": {"pytorch": said["seconds"], "jittor": told["seconds"]},
        "peak_memory_mb": {"pytorch": said["peak_memory_mb"], "jittor": told["peak_memory_mb"]},
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m alignment.train", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                   epilog="example: python -m alignment.train --config configs/shapes.yml --steps 4 --output out")
    made.add_argument("--weights", metavar="FILE", type=Path, help="weights both sides start from (.pth .ckpt .npz .pkl); default: seeded weights")
    made.add_argument("--train-images", metavar="DIR", type=Path, help="folder of training pictures; default: the configuration's training set")
    made.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures")
    made.add_argument("--steps", metavar="N", type=int, default=10, help="how many steps (default: 10)")
    made.add_argument("--epoch", metavar="E", type=int, help="epoch to be in; default: half of the steps in epoch 0, half in `detach_epoch`")
    made.add_argument("--batch-size", metavar="N", type=int, default=4, help="images a step (default: 4)")
    made.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    made.add_argument("--plant", help=argparse.SUPPRESS)
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.steps < 1 or args.batch_size < 1 or (args.epoch is not None and args.epoch < 0):
        raise UserError("--steps and --batch-size must be at least 1 and --epoch at least 0: type \"python -m alignment.train --help\"")
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
            result.versions.update(sides[side].answer().get("versions", {}))
        result.hashes = {"config": config.sha256(), "weights": weights_sha256(weights), **{f"code_{side}": child.code_sha256(side) for side in sides}}
        comparison = Comparison(config, folder, result, parts, args.verbosity)
        comparison.run(sides, batches)
    finally:
        for partner in sides.values():
            partner.close()
        shutil.rmtree(scratch, ignore_errors=True)
    result.durations = {"total": time.perf_counter() - started,
                        **{side: sum(s["seconds"][side] for s in comparison.steps) for side in child.MODULES}}
    result.parts["peak_memory_mb"] = comparison.steps[-1]["peak_memory_mb"]
    result.parts["source"] = {"weights": "; ".join(remarks) or str(args.weights), "images": str(args.train_images or config.data.train.name),
                              "batch_size": args.batch_size}
    divergence = comparison.finish()
    if args.verbosity >= 0:
        print(text(result, divergence))
    return finish(result, folder, verbosity=args.verbosity)


def text(result: Result, divergence: locate.Divergence | None) -> str:
    """The table for the terminal, and the first divergence."""
    train = result.parts["train"]
    lines = [f"{'step':>4s} {'epoch':>5s} {'loss':>12s} {'port':>12s} {'free':>12s} {'drift':>8s} {'nearest to its bound':>20s}  which"]
    for s in train["steps"]:
        ratio, name = max(((w["of_bound"], w["name"]) for w in s["worst"].values()), default=(0.0, ""))
        loss, free = s["loss"]["total"], s["free"]
        drift = "" if free["weights_rel_l2"] is None else f"{free['weights_rel_l2']:.1e}"
        lines.append(f"{s['step']:4d} {s['epoch']:5d} {loss['ref']:12.6f} {loss['cand']:12.6f} {loss['free'] or float('nan'):12.6f} {drift:>8s} {ratio:20.3g}  {name}")
    lines.append(f"{train['rows_compared']} numbers and tensors compared in {len(train['steps'])} steps (all in steps.csv); {len(train['branch_points'])} branch points")
    if divergence:
        lines.append(f"first divergence: step {divergence.step}, {divergence.name}: {divergence.hint or divergence.reason}")
        lines += [f"  possible cause: {cause}" for cause in divergence.causes]
        lines += [f"  reproduce with: python {train['repro']}"] if train["repro"] else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_cli(main))

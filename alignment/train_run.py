"""The steps of ``alignment.train``: both sides take them, and each is judged by floors of its own or by inherited ones."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from alignment import locate, train_repro
from alignment.cli import say
from alignment.reasons import Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.train_floors import Pool
from alignment.train_judge import CAUSES, STAGES, StepJudgement, judge_step, rate_row
from alignment.train_sides import Partner
from jt_nanodet.config import Config
from jt_nanodet.errors import printable

COLUMNS = ("step", "epoch", "stage", "name", "verdict", "reason", "max_abs", "tolerance", "floor", "rel_l2", "cosine", "ulp_p99", "err_ref_fp64", "err_cand_fp64")
#: Failing steps after which the run stops: the first one says what is wrong, a few more how it goes on.
FAILING_STEPS = 3
#: What the sides write of one step, each a file.
FILES = ("before", "output", "candidate", "double", "floors")


class Comparison:
    """The run: both processes, the loop over the steps, and what it found.

    The reference takes the next step while the port takes this one and the one before is judged: the three need nothing of each other that is not in files.
    """

    causes = CAUSES

    def __init__(self, config: Config, folder: Path, result: Result, parts: list[tuple[int, int]], floors_every: int, verbosity: int):
        self.config, self.folder, self.result, self.parts, self.verbosity = config, folder, result, parts, verbosity
        self.floors_every, self.pool = floors_every, Pool()
        self.scratch = folder / "steps"
        self.rows: list[TensorResult] = []
        self.steps: list[dict[str, Any]] = []
        self.branches: list[dict[str, Any]] = []
        self.repro: Path | None = None
        self.histories: dict[str, list[tuple[int, float | None, bool]]] = {}
        self.failing = 0

    def run(self, sides: dict[str, Partner], batches: list[Path]) -> None:
        index = epoch = 0
        with open(self.folder / "steps.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for start, count in self.parts:
                if start > epoch:
                    self.move_to(sides, index, start - epoch)
                    epoch, self.pool = start, Pool()
                index = self.part(sides, index, count, epoch, batches, table)
                if self.failing >= FAILING_STEPS:
                    left = sum(n for _, n in self.parts) - index
                    if left:
                        self.result.leave_out(f"{left} further steps", f"stopped after {FAILING_STEPS} failing steps")
                    return

    def part(self, sides: dict[str, Partner], first: int, count: int, epoch: int, batches: list[Path], table: Any) -> int:
        """The steps of one regime; returns the number of the step after the last one judged."""
        pytorch, jittor = sides["pytorch"], sides["jittor"]
        orders = [self.order(index, index - first, batches[index]) for index in range(first, first + count)]
        said: list[dict[str, Any]] = []
        pytorch.send(orders[0])
        for number, order in enumerate(orders):
            said.append(pytorch.answer())
            if number + 1 < count:
                pytorch.send(orders[number + 1])
            told = jittor.answer() if number else None
            jittor.send({k: order[k] for k in ("do", "index", "batch", "before")} | {"reference": order["output"], "output": order["candidate"]})
            if number:
                self.one(pytorch, orders[number - 1], epoch, said[number - 1], told, table)
                if self.failing >= FAILING_STEPS:
                    return first + number
        self.one(pytorch, orders[-1], epoch, said[-1], jittor.answer(), table)
        return first + count

    def order(self, index: int, number: int, batch: Path) -> dict[str, Any]:
        """What the reference is told to do in step `index`, the `number`th of its regime; with the files of that step."""
        files = {name: str(self.scratch / f"{name}{index:04d}.{'json' if name == 'floors' else 'safetensors'}") for name in FILES}
        return {"do": "step", "index": index, "batch": str(batch), "measure": number % self.floors_every == 0, **files}

    def move_to(self, sides: dict[str, Partner], index: int, count: int) -> None:
        """Let `count` epochs end on both sides; the rates after them are compared."""
        before = self.scratch / "before.safetensors"
        lr = {side: partner.ask({"do": "epoch", "count": count, "before": str(before)}) for side, partner in sides.items()}
        row = rate_row(f"rate after {count} epochs", lr["pytorch"]["lr"], lr["jittor"]["lr"], "schedule", index)
        self.result.add(row)
        self.rows.append(row)

    def one(self, pytorch: Partner, order: dict[str, Any], epoch: int, said: dict, told: dict, table: Any) -> None:
        """Judge a step both sides have taken: by its own floors, or by inherited ones where every row passes by these."""
        index, double, floors = order["index"], {}, None
        ref, cand = (load_file(order[k]) for k in ("output", "candidate"))
        if index == 0:
            self.result.check("observer/pytorch", said["observer_equal"], Reason.OBSERVER_CHANGED_RESULT, "watching the step changed it", stage="observer")
        free = {k.removeprefix("free/"): cand.pop(k) for k in list(cand) if k.startswith("free/")}
        why = "" if not order["measure"] else "its turn"
        if not order["measure"]:
            judged = self.judge(index, ref, cand, {}, {"floors": self.pool.floors(ref), "order": said["order"]}, told["signs"], said["flips"])
            beyond = [row for row in judged.rows if row.verdict is not Verdict.PASS]
            if beyond:
                why = f"{len(beyond)} rows did not pass by inherited floors, first {beyond[0].name_ref}"
                said = {**said, **{k: v for k, v in pytorch.ask({**order, "do": "measure", "order": said["order"]}).items() if k == "flips"}}
        if why:
            double, floors = load_file(order["double"]), json.loads(Path(order["floors"]).read_text(encoding="utf-8"))
            self.pool.add(floors["floors"])
            judged = self.judge(index, ref, cand, double, floors, told["signs"], said["flips"])
        self.keep(judged, index, epoch, table)
        self.branches += judged.branches
        self.steps.append({**summary(index, epoch, ref, cand, free, judged, said, told), "floors": "measured" if why else "inherited", "floors_why": why})
        first = next((row for row in judged.rows if row.failed), None)
        if first is not None:
            self.failing += 1
            if self.repro is None:
                self.repro = train_repro.write(self.folder / "repro", first, ref, cand, load_file(order["before"]), self.config)
        for name in FILES:
            Path(order[name]).unlink(missing_ok=True)
        worst = max((r.max_abs / r.tolerance for r in judged.rows if r.max_abs and r.tolerance), default=0.0)
        say(f"step {index} (epoch {epoch}): loss {ref['loss/total'][0]:.6f}, free {self.steps[-1]['free']['loss']}, largest difference {worst:.2g} of its bound, "
            f"floors {'measured: ' + why if why else 'inherited'}"
            + (f", FAILED at {first.name_ref}" if first is not None else ""), self.verbosity)

    def judge(self, index: int, ref: dict, cand: dict, double: dict, about: dict[str, Any], signs: dict[str, Any] | None, flips: float) -> StepJudgement:
        return judge_step(index, ref, cand, double, about, signs, flips)

    def regimes(self) -> list[dict[str, Any]]:
        return [{"epoch": e, "steps": n, "auxiliary": "detached" if e >= self.config.model.arch.detach_epoch else "attached"} for e, n in self.parts]

    def keep(self, judged: StepJudgement, index: int, epoch: int, table: Any) -> None:
        """Every row to steps.csv; to the result one row a stage, the nearest to its bound, and every row that did not pass."""
        self.rows += [row for row in judged.rows if row.verdict is not Verdict.PASS] or judged.rows[:1]
        for row in judged.rows:
            self.histories.setdefault(row.name_ref, []).append((index, row.max_abs, row.failed))
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
            "regimes": self.regimes(),
            "floors_every": self.floors_every, "floors_measured": [s["step"] for s in self.steps if s["floors"] == "measured"],
            "floors_inherited": [s["step"] for s in self.steps if s["floors"] == "inherited"],
            "repro": str(self.repro.relative_to(self.folder)) if self.repro else None,
        }
        divergence = locate.first_divergence(self.rows, training=True, histories=self.histories)
        if divergence:
            causes = tuple(dict.fromkeys((self.causes.get(divergence.stage, ""), *divergence.causes)))
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


def text(result: Result, divergence: locate.Divergence | None) -> str:
    """The table for the terminal, and the first divergence."""
    train = result.parts["train"]
    lines = [f"{'step':>4s} {'epoch':>5s} {'loss':>12s} {'port':>12s} {'free':>12s} {'drift':>8s} {'nearest to its bound':>20s}  which"]
    for s in train["steps"]:
        ratio, name = max(((w["of_bound"], w["name"]) for w in s["worst"].values()), default=(0.0, ""))
        loss, free = s["loss"]["total"], s["free"]
        drift = "" if free["weights_rel_l2"] is None else f"{free['weights_rel_l2']:.1e}"
        lines.append(f"{s['step']:4d} {s['epoch']:5d} {loss['ref']:12.6f} {loss['cand']:12.6f} {loss['free'] or float('nan'):12.6f} {drift:>8s} {ratio:20.3g}  {printable(name)}")
    lines += [f"{train['rows_compared']} numbers and tensors compared in {len(train['steps'])} steps (all in steps.csv); {len(train['branch_points'])} branch points",
              f"floors measured at {len(train['floors_measured'])} steps, inherited at {len(train['floors_inherited'])}: there every row keeps to half of the largest measured before"]
    if divergence:
        lines.append(printable(f"first divergence: step {divergence.step}, {divergence.name}: {divergence.hint or divergence.reason}"))
        lines += [printable(f"  possible cause: {cause}") for cause in divergence.causes]
        lines += [printable(f"  reproduce with: python {train['repro']}")] if train["repro"] else []
    return "\n".join(lines)

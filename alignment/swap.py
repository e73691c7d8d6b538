"""``python -m alignment.swap``: which stage of the pipeline carries a difference of mAP? Every stage is taken from either side.

    python -m alignment.swap --config C.yml --pytorch-model A.pth --jittor-model B.pkl --test-images DIR --annotations FILE.json --output DIR

decode -> warp -> normalise -> network -> boxes -> nms -> unwarp -> metric. The reference's pipeline runs with one stage of the port in it, for each stage in
turn, and the port's with one stage of the reference: what the first loses and the second wins back is that stage's part. Pictures go through in chunks;
the arrays between the stages are exchanged as bundles and removed with their chunk. The port's network is its ordinary graph: its CPU engine gives boxes
and scores in one operation, which cannot be taken apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from alignment import bootstrap, inputs
from alignment.bundle import Bundle
from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.layers import weight_arguments
from alignment.noise import METRIC_BOUND
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from alignment.runners import child
from jt_nanodet.config import METRIC_NAMES, load_config, with_input_size
from jt_nanodet.data.cocofile import of_images
from jt_nanodet.data.testset import open_test_set
from jt_nanodet.errors import UserError

STAGES = ("decode", "warp", "normalise", "network", "boxes", "nms", "unwarp", "metric")
#: Pictures between whose stages arrays lie on the disk: about 4 MB a picture and side at 320.
CHUNK = 16
SIDES = tuple(child.MODULES)
OTHER = {"pytorch": "jittor", "jittor": "pytorch"}


class Server:
    """One side's stages in a process of its own; see `alignment.runners.swap_tasks`."""

    def __init__(self, side: str, given: dict[str, Any], folder: Path):
        self.side, self.log = side, folder / f"{side}.swap.log"
        job, self.report = child.prepare(side, [{"kind": "swap"}], given, folder, -1, ".swap")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(child.command(side, job), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=child.environment(), text=True)
        self.about = self.answer()

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        said = ""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
            said = line.strip() or said
        self.process.wait()
        error = json.loads(self.report.read_text(encoding="utf-8")).get("error") if self.report.is_file() else None
        raise UserError(error or f"the {self.side} side died (exit status {self.process.returncode}{': ' + said if said else ''}): see {self.log}")

    def close(self) -> dict[str, Any]:
        """End the child and return its report."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
        return json.loads(self.report.read_text(encoding="utf-8"))


class Pipelines:
    """The detections of every mixed pipeline. `found[side]` is the side's own list; `found[side, stage]` the side's with one stage of the other."""

    def __init__(self) -> None:
        self.image_ids: list[int] = []
        self.found: dict[Any, list[dict[str, Any]]] = {key: [] for side in SIDES for key in (side, *((side, stage) for stage in STAGES[:-1]))}
        #: pictures on which a stage gave other bits from equal input
        self.different: dict[str, int] = dict.fromkeys(STAGES[:-1], 0)

    def chunk(self, servers: dict[str, Server], indices: list[int], folder: Path) -> None:
        place = {f"{name}.{side}": str(folder / f"{name}.{side}") for name in ("own", "on_other", "mixed") for side in SIDES}
        for side, server in servers.items():
            ids = server.ask({"do": "chain", "indices": indices, "output": place[f"own.{side}"]})["image_ids"]
        for side, server in servers.items():
            order = {"do": "each", "indices": indices, "other": place[f"own.{OTHER[side]}"], "own": place[f"own.{side}"], "output": place[f"on_other.{side}"]}
            told = server.ask(order)["different"]
            if side == "jittor":
                for stage, count in told.items():
                    self.different[stage] += count
        for side, server in servers.items():
            server.ask({"do": "continue", "indices": indices, "own": place[f"own.{side}"], "swapped": place[f"on_other.{OTHER[side]}"],
                        "output": place[f"mixed.{side}"]})
            own, mixed = Bundle.open(place[f"own.{side}"]), Bundle.open(place[f"mixed.{side}"])
            for index, image in zip(indices, ids):
                self.found[side] += entries(own[f"{index}/result"], image)
                for stage in STAGES[:-1]:
                    self.found[side, stage] += entries(mixed[f"{index}/{stage}/result"], image)
        self.image_ids += ids
        for path in place.values():
            shutil.rmtree(path)


def entries(result: Any, image: int) -> list[dict[str, Any]]:
    return [{"image_id": image, "category_id": int(row[5]), "bbox": row[:4], "score": row[4]} for row in result.tolist()]


def measure(servers: dict[str, Server], done: Pipelines, folder: Path) -> dict[Any, dict[str, float]]:
    """COCO's numbers of every pipeline, by the side's own metric; ``(side, "metric")`` judges the side's detections by the other's."""
    known: dict[tuple[str, str], dict[str, float]] = {}

    def ask(judge: str, detections: list[dict[str, Any]]) -> dict[str, float]:
        text = json.dumps(detections)
        if (judge, text) not in known:
            path = folder / "swap.detections.json"
            path.write_text(text, encoding="utf-8")
            known[judge, text] = servers[judge].ask({"do": "metric", "results": str(path), "image_ids": done.image_ids})
            path.unlink()
        return known[judge, text]

    metrics = {key: ask(key if isinstance(key, str) else key[0], detections) for key, detections in done.found.items()}
    return metrics | {(side, "metric"): ask(OTHER[side], done.found[side]) for side in SIDES}


def stage_row(stage: str, lost: float, won: float, different: int | None, images: int) -> TensorResult:
    """Fails when the stage alone moves mAP by as much as COCO's numbers may not differ, in either direction of the swap."""
    size = max(abs(lost), abs(won))
    ok = size < METRIC_BOUND
    bits = "" if different is None else f"; {different} of {images} pictures differ in some bit"
    return TensorResult(f"stage {stage}", f"stage {stage}", Verdict.PASS if ok else Verdict.FAIL, Reason.OK if ok else Reason.METRIC_DIFFERS, Gate.BOUND,
                        stage="metric", size=images, max_abs=size, tolerance=METRIC_BOUND, tolerance_source="fixed bound of COCO numbers",
                        hint=f"the port's {stage} in the reference moves mAP by {lost:+.5f}, the reference's in the port by {won:+.5f}{bits}")


def judge(done: Pipelines, metrics: dict[Any, dict[str, float]], common: dict[str, Any], truth: Any, resamples: int) -> Result:
    """The verdict: a row a stage, and under ``swap`` the stage that carries most of the difference."""
    result = Result("swap", device=common["device"], seeds={"seed": common["seed"]})
    ref, cand = metrics["pytorch"], metrics["jittor"]
    if max(ref["mAP"], cand["mAP"]) <= 0:
        result.object(Reason.NOTHING_COMPARED, "mAP is 0 on both sides, so that no stage can lose any: give weights that detect something")
    stages = []
    for stage in STAGES:
        lost, won = metrics["pytorch", stage]["mAP"] - ref["mAP"], metrics["jittor", stage]["mAP"] - cand["mAP"]
        different = done.different.get(stage)
        result.add(stage_row(stage, lost, won, different, len(done.image_ids)))
        one: dict[str, Any] = {"stage": stage, "into_reference": lost, "into_port": won, "pictures_with_other_bits": different, "interval": None}
        if resamples and stage != "metric" and lost:
            drawn = bootstrap.paired(truth, done.found["pytorch"], done.found["pytorch", stage], resamples=resamples, seed=common["seed"])
            one["interval"] = [drawn["metrics"]["mAP"]["low"], drawn["metrics"]["mAP"]["high"]]
        stages.append(one)
    worst = max(stages, key=lambda one: abs(one["into_reference"]) + abs(one["into_port"]))
    carrier = worst["stage"] if max(abs(worst["into_reference"]), abs(worst["into_port"])) >= METRIC_BOUND else None
    result.parts = {"images": len(done.image_ids), "swap": {"stages": stages, "carrier": carrier, "mAP": {"pytorch": ref["mAP"], "jittor": cand["mAP"]},
                                                          "difference": cand["mAP"] - ref["mAP"], "plant": common.get("plant")},
                    "metrics": {"pytorch": ref, "jittor": cand, "delta": {name: cand[name] - ref[name] for name in METRIC_NAMES}}}
    return result


def text(result: Result) -> str:
    found = result.parts["swap"]
    lines = [f"mAP {found['mAP']['pytorch']:.5f} (PyTorch) and {found['mAP']['jittor']:.5f} (Jittor) on {result.parts['images']} images: {found['difference']:+.5f}",
             f"{'stage':10s} {'in reference':>13s} {'95 % interval':>23s} {'in port':>10s}  pictures with other bits"]
    for one in found["stages"]:
        interval = f"{one['interval'][0]:+.5f} to {one['interval'][1]:+.5f}" if one["interval"] else ""
        bits = "-" if one["pictures_with_other_bits"] is None else str(one["pictures_with_other_bits"])
        lines.append(f"{one['stage']:10s} {one['into_reference']:+13.5f} {interval:>23s} {one['into_port']:+10.5f}  {bits}")
    lines.append(f"the difference is carried by: {found['carrier']}" if found["carrier"] else "no stage carries a difference of mAP")
    return "\n".join(lines)


def plant_of(text: str | None) -> list[Any] | None:
    """``STAGE=FACTOR``; UserError for anything else."""
    if text is None:
        return None
    stage, _, factor = text.partition("=")
    try:
        value = float(factor)
    except ValueError:
        value = 0.0
    if stage not in STAGES or not 0.5 <= value <= 2:
        raise UserError(f"--plant {text} names no stage with a factor from 0.5 to 2: give one such as network=1.01, of {', '.join(STAGES)}")
    return [stage, value]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.swap", description=__doc__.split("\n\n")[0], parents=[parent_parser()],
                                     epilog="example: python -m alignment.swap --config configs/shapes.yml --output out")
    weight_arguments(parser)
    parser.add_argument("--test-images", metavar="DIR", type=Path, help="folder of pictures; default: the configuration's validation set")
    parser.add_argument("--annotations", metavar="FILE.json", type=Path, help="COCO annotations of these pictures")
    parser.add_argument("--size", dest="input_size", metavar="N", type=int, help="input size; default: the configuration's")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N pictures, judged on their annotations alone")
    parser.add_argument("--resamples", metavar="N", type=int, default=bootstrap.RESAMPLES, help="draws of the intervals; 0 leaves them out (default: 1000)")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads of each side")
    parser.add_argument("--plant", metavar="STAGE=FACTOR", help="put an error into a stage of the port, such as network=1.01: does the test name it?")
    args = parser.parse_args(argv)
    folder = prepare_output(args.output)
    inputs.check_arguments(args)
    common = {"config": str(args.config), "device": args.device, "seed": args.seed, "threads": args.threads, "input_size": args.input_size,
              "images": str(args.test_images) if args.test_images else None, "annotations": str(args.annotations) if args.annotations else None}
    plant = plant_of(args.plant)
    dataset = open_test_set(with_input_size(load_config(args.config), args.input_size), common["images"], common["annotations"])
    if dataset.coco is None:
        raise UserError("which stage carries a loss of mAP cannot be told without annotations: add --annotations FILE.json")
    count = min(len(dataset), args.limit or len(dataset))
    models = {"pytorch": args.pytorch_model, "jittor": args.jittor_model or args.pytorch_model}
    servers: dict[str, Server] = {}
    began = time.perf_counter()
    try:
        for side in SIDES:
            given = {**common, "weights": str(models[side]) if models[side] else None, **({"plant": plant} if side == "jittor" else {})}
            servers[side] = Server(side, given, folder)
        done = Pipelines()
        for start in range(0, count, CHUNK):
            done.chunk(servers, list(range(start, min(count, start + CHUNK))), folder)
            now = len(done.image_ids)
            say(f"{now} of {count} images, {(time.perf_counter() - began) / now * (count - now):.0f} s left", args.verbosity)
        metrics = measure(servers, done, folder)
        reports = {side: server.close() for side, server in servers.items()}
    finally:
        for server in servers.values():
            server.process.kill()
            server.process.wait()
    result = judge(done, metrics, {**common, "plant": plant}, of_images(dataset.coco, done.image_ids), args.resamples)
    for side, report in reports.items():
        result.versions.update(report["versions"])
        result.hashes[f"weights_{side}"] = report["tasks"][0]["weights_sha256"]
        result.hashes["config"] = report["tasks"][0]["config_sha256"]
    result.durations = {"total": time.perf_counter() - began}
    if args.verbosity >= 0:
        print(text(result))
    return finish(result, folder, verbosity=args.verbosity)


if __name__ == "__main__":
    sys.exit(run_cli(main))

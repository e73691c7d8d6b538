"""``python -m jt_nanodet bench inference``: one network by every engine a user could pick on the CPU, outputs verified, then timed in turn.

Each contestant is a process of its own with the same threads, weights and images. It computes one batch, which is held against the reference's float64
output; then the processes take turns, a few runs each, because the host drifts. NumPy in, NumPy out; image decoding and suppression are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jt_nanodet.bench.inference_tables import TITLES, joined, ratio, tables
from jt_nanodet.checkpoint import replacing
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError

#: Contestants: the module of the process of each.
CONTESTANTS = {name: "jt_nanodet.bench.inference_jittor" if name.startswith("jt_nanodet") else "torch_ref.bench.inference" for name in TITLES}
#: Largest error against float64 that counts as the same network, in units of PyTorch's own; None: shown, not judged.
ALLOWED = {"openvino": None}
TIMES_REFERENCE = 20.0
#: Seconds between two turns: the threads of the last contestant spin for a while before they sleep.
PAUSE = 0.1


class Child:
    """A contestant's process: `ready` after it has computed its batch, then one list of seconds for every line it is sent."""

    def __init__(self, name: str, job: dict, folder: Path):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**job, "name": name, "output": str(folder / f"{name}.npy")}), encoding="utf-8")
        threads = str(job["threads"])
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads,
                       "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])}
        if "-mno-avx512f" in job["flags"]:
            environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"  # OpenVINO's convolutions are oneDNN's
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen([sys.executable, "-m", CONTESTANTS[name], str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            env=environment, text=True)

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"the process of {self.name} ended early ({self.log.read_text(encoding='utf-8').strip()[-500:]}): leave it out with --contestants")
        return json.loads(line)

    def time(self, runs: int) -> dict:
        """{seconds: [of each run], memory_mb: the peak so far}"""
        try:
            self.process.stdin.write(f"{runs}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` says why
        return self.answer()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(config: str, names: list[str], *, weights: str | None, batch: int, threads: int, rounds: int, runs: int, seed: int, folder: Path, flags: str, say) -> dict:
    """One case: {contestant: {median_ms, p20_ms, p80_ms, min_ms, max_error, times_reference} or {not_run}} and what it was measured on."""
    width, height = load_config(config).data.val.input_size
    images = np.random.RandomState(seed).randn(batch, 3, height, width).astype(np.float32)
    np.save(folder / "images.npy", images)
    job = {"config": config, "weights": weights, "images": str(folder / "images.npy"), "threads": threads, "seed": seed, "folder": str(folder), "flags": flags}
    found: dict = {}
    children: dict[str, Child] = {}
    versions: dict[str, str] = {}
    try:
        # the reference comes first and always: it writes the float64 output and the ONNX file
        for name in ["pytorch", *(n for n in names if n != "pytorch")]:
            child = children[name] = Child(name, job, folder)
            ready = child.answer()
            if "not_run" in ready:
                found[name] = {"not_run": ready["not_run"]}
                children.pop(name).end()
                say(f"{name}: not run: {ready['not_run']}")
            versions.update(ready.get("versions", {}))
        verify(folder, children, found)
        times: dict[str, list[list[float]]] = {name: [] for name in children if name in names}
        for number in range(rounds):
            for name in times:
                time.sleep(PAUSE)
                said = children[name].time(runs)
                times[name].append(said["seconds"])
                found[name]["peak_memory_mb"] = said["memory_mb"]
            say(f"round {number + 1} of {rounds}")
    finally:
        for child in children.values():
            child.end()
    for name, lists in times.items():
        all_ms = np.concatenate(lists) * 1e3
        found[name].update(median_ms=float(np.median(all_ms)), p20_ms=float(np.percentile(all_ms, 20)), p80_ms=float(np.percentile(all_ms, 80)),
                           min_ms=float(all_ms.min()), round_medians_ms=[float(np.median(t)) * 1e3 for t in lists])
    return {"config": Path(config).stem, "size": [width, height], "batch": batch, "threads": threads, "rounds": rounds, "runs": runs, "flags": flags,
            "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "load": os.getloadavg()[0], "versions": versions,
            "weights": Path(weights).name if weights else f"drawn from seed {seed}", "contestants": {k: found[k] for k in names if k in found}}


def verify(folder: Path, children: dict, found: dict) -> None:
    """Errors against float64 of what each contestant computed; UserError where one computes something else."""
    truth = np.load(folder / "truth.npy", allow_pickle=False)
    if truth.std() < 1e-3:
        raise UserError("the network's output hardly varies with these weights, so nothing can be verified on it: give trained ones with --weights")
    errors = {name: float(np.abs(np.load(folder / f"{name}.npy", allow_pickle=False) - truth).max()) for name in children}
    for name, error in errors.items():
        found[name] = {"max_error": error, "times_reference": error / errors["pytorch"]}
        limit = ALLOWED.get(name, TIMES_REFERENCE)
        if limit is not None and not error <= limit * errors["pytorch"]:
            raise UserError(f"{name} computes something else: its largest error is {error:.3g}, PyTorch's {errors['pytorch']:.3g}; leave it out with --contestants")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench inference", description=__doc__.split("\n\n")[0].replace("``", ""))
    parser.add_argument("config", metavar="CONFIG", nargs="+", help="one or several configurations")
    parser.add_argument("--weights", metavar="FILE", nargs="+", help=".npz or .pkl for the first configuration, or a file for each; drawn (default): lively ones drawn from the seed")
    parser.add_argument("--batch", metavar="N", type=int, nargs="+", default=[1], help="images at once (default: 1)")
    parser.add_argument("--threads", metavar="N", type=int, nargs="+", default=[2], help="CPU threads of every contestant (default: 2)")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="how often the contestants take turns (default: 5)")
    parser.add_argument("--runs", metavar="N", type=int, default=20, help="runs at each turn (default: 20)")
    parser.add_argument("--contestants", metavar="NAME", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS), help=", ".join(CONTESTANTS))
    parser.add_argument("--flags", default="", help="more flags for the engine's compiler, for example -mno-avx512f; OpenVINO is then held to AVX2 too")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    parser.add_argument("--output", metavar="FILE.json", help="write the results here")
    parser.add_argument("--add", action="store_true", help="keep the other cases of --output; equal ones are replaced")
    args = parser.parse_args(argv)
    if min(*args.batch, *args.threads, args.rounds, args.runs) < 1:
        raise UserError("--batch, --threads, --rounds and --runs are counts: write for example --batch 1 8 --threads 2")
    if args.weights and len(args.weights) not in (1, len(args.config)):
        raise UserError("--weights takes one file for the first configuration, or one for each: drawn stands for weights drawn from the seed")
    joined(args.output if args.add else None, [])  # refused before anything is measured
    given = [*(args.weights or []), *["drawn"] * len(args.config)]
    cases = []
    for config, weights in zip(args.config, given):
        for batch in args.batch:
            for threads in args.threads:
                print(f"{config}, batch {batch}, {threads} threads", file=sys.stderr)
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    cases.append(measure(config, args.contestants, weights=None if weights == "drawn" else weights, batch=batch, threads=threads, rounds=args.rounds,
                                         runs=args.runs, seed=args.seed, folder=Path(folder), flags=args.flags, say=lambda text: print(text, file=sys.stderr)))
                print(text(cases[-1]), flush=True)
    cases = joined(args.output if args.add else None, cases)
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()}
    document = {"schema_version": 1, "command": "bench inference", "machine": machine, "cases": cases}
    document["tables"] = tables(cases, f"{cpu_name()}, {os.cpu_count()} cores")
    if args.output:
        with replacing(args.output) as file:
            file.write(json.dumps(document, indent=1).encode())
    return 0


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def text(case: dict) -> str:
    lines = [f"{case['config']}, batch {case['batch']}, {case['threads']} threads, weights {case['weights']}"]
    for name, one in case["contestants"].items():
        if "not_run" in one:
            lines.append(f"  {name:17s} not run: {one['not_run']}")
        else:
            over = ratio(case, name)
            lines.append(f"  {name:17s} median {one['median_ms']:8.2f} ms ({one['p20_ms']:.2f} to {one['p80_ms']:.2f}), least {one['min_ms']:.2f}; "
                         + (f"our time over it {over['median']:.2f}; " if over else "") + f"error {one['max_error']:.2g}, {one['times_reference']:.1f} times PyTorch's")
    return "\n".join(lines)

"""``python -m jt_nanodet bench limits``: the CPU's two floors, measured, and each step of the CPU engine against them.

Peak: multiply-adds on registers; a large matrix product (NumPy's); bytes per second from the caches and from memory. A step's time is its least over many
runs, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.inference import cpu_name
from jt_nanodet.checkpoint import read_weights, replacing
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError

#: Floats of each of the three arrays a thread: within the L2 cache, within the L3, beyond.
SIZES = {"L2": 2**14, "L3": 2**19, "memory": 2**23}
SECONDS = 0.3


def floors(threads: int) -> dict:
    """{peak_gflops, matmul_gflops, triad_gb: {level: …}}, the best of three tries each."""
    import jittor as jt

    from jt_nanodet.engine import operation

    code = "out0_p[0] = 2 * jtn::peak_multiply_adds((int)data[\"threads\"], data[\"seconds\"]);"
    for i, floats in enumerate(SIZES.values()):
        code += f"out0_p[{i + 1}] = jtn::triad_bytes((int)data[\"threads\"], {floats}, data[\"seconds\"]);"
    best = np.zeros(1 + len(SIZES))
    for _ in range(3):
        out = jt.code([1 + len(SIZES)], "float64", [], cpu_header=operation.header("limits.h"), cpu_src=code, data={"threads": threads, "seconds": SECONDS})
        out.compile_options = operation.options("")
        best = np.maximum(best, out.numpy())
    n, product = 1024, 0.0
    a = np.ones((n, n), np.float32)
    for _ in range(8):
        started = time.perf_counter()
        a @ a
        product = max(product, 2 * n**3 / (time.perf_counter() - started))
    return {"threads": threads, "peak_gflops": best[0] / 1e9, "matmul_gflops": product / 1e9, "triad_gb": dict(zip(SIZES, (best[1:] / 1e9).tolist()))}


def steps(model, height: int, width: int, rounds: int) -> tuple[str, list[dict]]:
    """The plan as text, and for each step its least seconds and its multiply-adds."""
    from jt_nanodet.engine import engine

    image = np.random.RandomState(0).randn(1, 3, height, width).astype(np.float32)
    seconds = engine.step_seconds(model, image, rounds)
    plan = engine.engine_of(model).prepared(height, width).plan
    return str(plan), [{"kind": s.kind, "name": s.name, "inputs": len(s.inputs) or plan.channels, "outputs": len(s.outputs) or plan.outputs, "kernel": s.kernel,
                        "stride": s.stride, "height": s.height, "width": s.width, "seconds": float(t), "multiply_adds": s.multiply_adds}
                       for s, t in zip(plan.steps, seconds)]


def table(found: list[dict], peak: float) -> dict:
    """Steps of one kind and size together: time, share of the whole, GFLOP/s, share of the peak."""
    groups: dict[tuple, list[dict]] = {}
    for one in found:
        size = f" {one['kernel']}x{one['kernel']}/{one['stride']}" if one["kind"] == "depthwise" else ""
        groups.setdefault((one["kind"] + size, f"{one['width']}x{one['height']}"), []).append(one)
    whole, rows = sum(one["seconds"] for one in found), []
    for (kind, size), some in sorted(groups.items(), key=lambda g: -sum(one["seconds"] for one in g[1])):
        seconds, flops = sum(one["seconds"] for one in some), 2 * sum(one["multiply_adds"] for one in some)
        rows.append([f"{kind}, {size}", len(some), seconds * 1e6, round(100 * seconds / whole, 1), flops / seconds / 1e9, round(100 * flops / seconds / 1e9 / peak, 1)])
    total = 2 * sum(one["multiply_adds"] for one in found)
    rows.append(["all", len(found), whole * 1e6, 100, total / whole / 1e9, round(100 * total / whole / 1e9 / peak, 1)])
    return {"columns": ["steps", "count", "µs", "% of the time", "GFLOP/s", "% of the peak"], "columns_zh": ["步骤", "数量", "微秒", "时间占比 %", "GFLOP/s", "峰值占比 %"],
            "rows": rows}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench limits", description=__doc__.split("\n\n")[0].replace("``", ""))
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--weights", metavar="FILE", help=".npz or .pkl; default: lively weights drawn from seed 0")
    parser.add_argument("--threads", metavar="N", type=int, default=2)
    parser.add_argument("--rounds", metavar="N", type=int, default=100, help="runs of which each step's least time is taken (default: 100)")
    parser.add_argument("--plan", action="store_true", help="print the engine's plan too")
    parser.add_argument("--output", metavar="FILE.json", help="write the results here")
    args = parser.parse_args(argv)
    if args.threads < 1 or args.rounds < 1:
        raise UserError("--threads and --rounds are counts: write for example --threads 2 --rounds 100")
    config = load_config(args.config)
    runtime.setup("cpu", threads=args.threads)
    from jt_nanodet.detector import build_model, file_shape, load_state
    from jt_nanodet.weight_rules import lively_weights

    model = build_model(config.model.arch)
    drawn = lively_weights({k: file_shape(k, v.shape) for k, v in model.state_dict().items()}, 0)
    load_state(model, read_weights(args.weights) if args.weights else drawn, training_branch=False)
    model.eval()
    print("floors of the machine", file=sys.stderr)
    limits = floors(args.threads)
    print("steps of the engine", file=sys.stderr)
    width, height = config.data.val.input_size
    plan, found = steps(model, height, width, args.rounds)
    made = table(found, limits["peak_gflops"])
    note = (f"{cpu_name()}, {args.threads} threads: peak {limits['peak_gflops']:.0f} GFLOP/s, matrix product {limits['matmul_gflops']:.0f} GFLOP/s, triad "
            + ", ".join(f"{k} {v:.0f} GB/s" for k, v in limits["triad_gb"].items()) + f"; load {os.getloadavg()[0]:.1f}")
    print(("\n" + plan + "\n" if args.plan else "") + note)
    for row in made["rows"]:
        print(f"{row[0]:28s} {row[1]:4d} {row[2]:9.1f} us {row[3]:6.1f} % {row[4]:8.1f} GFLOP/s {row[5]:6.1f} % of the peak")
    if args.output:
        document = {"schema_version": 1, "command": "bench limits", "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "config": config.sha256(),
                    "limits": limits, "steps": found, "tables": {"steps": {**made, "note": note}}}
        with replacing(args.output) as file:
            file.write(json.dumps(document, indent=1).encode())
    return 0

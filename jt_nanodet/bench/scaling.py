"""``python -m jt_nanodet bench scaling CONFIG``: how the CPU engine, suppression and assignment grow with their work, and two processes on the same cores.

    batch     the network, images at once; time and peak memory of the process
    size      the network on one image, pixels of a side
    threads   the network on one image
    boxes     suppression by candidates, assignment by boxes of an image

What counts is how much more time (or memory) the largest case takes than the smallest, beside how much more work it is. Last, two processes compute the same
network on the same cores at the same time: with their fair share each takes twice as long as alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from jt_nanodet import runtime
from jt_nanodet.bench.inference import cpu_name
from jt_nanodet.bench.kernels import Child, command_line, numbers, quantiles
from jt_nanodet.checkpoint import replacing
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError

#: series -> (what grows, work against the smallest case: the power of the number that the work is proportional to)
SERIES = {"batch": ("images", 1), "size": ("pixels of a side", 2), "threads": ("threads", -1), "suppression": ("candidates", 1), "assignment": ("boxes an image", 1)}
SERIES_ZH = {"batch": "张图像", "size": "边长，像素", "threads": "线程", "suppression": "候选框", "assignment": "每图框数"}


def cases(args: argparse.Namespace, size: int) -> list[tuple[str, int, dict[str, Any]]]:
    """(series, number, what the child is asked for)."""
    same = {"config": args.config, "weights": args.weights, "seconds": args.seconds, "least": args.least}
    found = [("batch", n, {"kind": "network", "batch": n, "size": size}) for n in args.batches]
    found += [("size", n, {"kind": "network", "batch": 1, "size": n}) for n in args.sizes]
    found += [("suppression", n, {"kind": "suppression", "boxes": n, "size": size}) for n in args.candidates]
    found += [("assignment", n, {"kind": "assignment", "boxes": n, "size": size, "batch": 8}) for n in args.boxes]
    return [(series, number, {**same, **command}) for series, number, command in found]


def measure(args: argparse.Namespace, size: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each series: {number, ms: quantiles, memory_mb}. The batches go first and up, so that each peak is that batch's own."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SERIES}

    def ask(child: Child, series: str, number: int, command: dict[str, Any]) -> None:
        said = child.ask(**command)
        found[series].append({"number": number, "ms": quantiles(said["ms"]), "memory_mb": said["memory_mb"]})
        print(f"{series} {number}: {found[series][-1]['ms']['median']:.3f} ms", file=sys.stderr, flush=True)

    child = Child("scaling", "cpu", folder, args.threads)
    try:
        for one in cases(args, size):
            ask(child, *one)
    finally:
        child.close()
    for threads in range(1, args.threads + 1):
        child = Child("scaling", "cpu", folder, threads)
        try:
            ask(child, "threads", threads, {**cases(args, size)[0][2], "batch": 1, "size": size})
        finally:
            child.close()
    return found


def neighbours(args: argparse.Namespace, size: int, folder: Path) -> dict[str, Any]:
    """Two processes with all threads each: milliseconds alone in turn, then together."""
    command = {"config": args.config, "weights": args.weights, "kind": "network", "batch": 1, "size": size, "least": args.least}
    places = [folder / "first", folder / "second"]
    children = []
    try:
        for place in places:
            place.mkdir()
            children.append(Child("scaling", "cpu", place, args.threads))
        alone = [child.ask(**command, seconds=args.seconds)["ms"] for child in children]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda child: child.ask(**command, seconds=3 * args.seconds)["ms"], children))
    finally:
        for child in children:
            child.close()
    rows = [{"alone_ms": quantiles(a), "together_ms": quantiles(b), "images_per_second": 1e3 / float(np.mean(b))} for a, b in zip(alone, both)]
    single = float(np.mean([1e3 / np.mean(a) for a in alone]))
    return {"processes": rows, "slower": [r["together_ms"]["median"] / r["alone_ms"]["median"] for r in rows],
            "throughput_kept": sum(r["images_per_second"] for r in rows) / single}


def growth(series: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """How time and memory grew from the first to the last case of each series, beside the work."""
    found = []
    for name, rows in series.items():
        if len(rows) > 1:
            first, last = rows[0], rows[-1]
            found.append({"series": name, "from": first["number"], "to": last["number"], "work": (last["number"] / first["number"]) ** SERIES[name][1],
                          "time": last["ms"]["median"] / first["ms"]["median"], "memory_mb": [first["memory_mb"], last["memory_mb"]] if name == "batch" else None})
    return found


def tables(document: dict[str, Any]) -> dict[str, Any]:
    """What docs/performance.md shows: growth, and the two processes."""
    note = f"{document['config']}, {document['threads']} threads, {document['cpu']}, {document['cores']} cores; medians"
    note_zh = f"{document['config']}，{document['threads']} 线程，{document['cpu']}，{document['cores']} 核；中位数"
    rows, first = [], {name: found for name, found in document["series"].items() if found}
    for one in document["growth"]:
        ends = [first[one["series"]][at] for at in (0, -1)]
        memory = "{:.0f} to {:.0f}".format(*one["memory_mb"]) if one["memory_mb"] else None
        rows.append([f"{one['series']}: {SERIES[one['series']][0]}", f"{one['from']} to {one['to']}", f"{one['work']:.3g}", f"{one['time']:.3g}",
                     "{:.2f} to {:.2f}".format(*(e["ms"]["median"] for e in ends)), memory])
    made = {"growth": {"columns": ["series", "from, to", "work, times", "time, times", "ms", "peak memory, MB"],
                       "columns_zh": ["系列", "从，到", "工作量，倍", "用时，倍", "毫秒", "内存峰值，MB"], "rows": rows, "note": note, "note_zh": note_zh}}
    both = document["neighbours"]
    made["neighbours"] = {"columns": ["process", "alone, ms", "together, ms", "p80 together, ms", "times slower (fair share: 2)"],
                          "columns_zh": ["进程", "单独，毫秒", "同时，毫秒", "同时 p80，毫秒", "慢几倍（公平份额：2）"],
                          "rows": [[str(i + 1), *(f"{v:.1f}" for v in (r["alone_ms"]["median"], r["together_ms"]["median"], r["together_ms"]["p80"])), f"{slower:.2f}"]
                                   for i, (r, slower) in enumerate(zip(both["processes"], both["slower"]))],
                          "note": f"{note}; together they do {both['throughput_kept']:.2f} times the images of one alone"}
    return made


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--weights", metavar="FILE", help=".npz or .pkl; default: lively weights drawn from seed 0")
    parser.add_argument("--batches", default="1,2,4,8,16,32", help="images at once (default: 1,2,4,8,16,32)")
    parser.add_argument("--sizes", default="160,224,320,416,512,640", help="sides of the input, multiples of 32 (default: 160,224,320,416,512,640)")
    parser.add_argument("--candidates", default="10,100,1000,10000", help="candidates of the suppression (default: 10,100,1000,10000)")
    parser.add_argument("--boxes", default="1,10,30,100,300", help="boxes an image of the assignment (default: 1,10,30,100,300)")
    parser.add_argument("--threads", type=int, default=runtime.default_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each case (default: 1)")
    parser.add_argument("--least", type=int, default=5, help="runs of a case at least (default: 5)")
    parser.add_argument("--output", metavar="FILE.json")
    args = parser.parse_args(argv)
    for name in ("batches", "sizes", "candidates", "boxes"):
        setattr(args, name, sorted(numbers(getattr(args, name))))
        if min(getattr(args, name)) < 1:
            raise UserError(f"--{name} are counts: write for example --{name} 1,10")
    if any(size % 32 for size in args.sizes):
        raise UserError("--sizes must be multiples of 32, which the engine needs: write for example --sizes 160,320")
    if args.threads < 1 or args.seconds <= 0 or args.least < 1:
        raise UserError("nothing to measure: give --threads and --least of 1 or more and --seconds above 0")
    size = load_config(args.config).data.val.input_size[0]
    with tempfile.TemporaryDirectory(prefix="jt_nanodet-bench-") as name:
        series = measure(args, size, Path(name))
        both = neighbours(args, size, Path(name))
    document = {"schema_version": 1, "command": command_line("scaling", argv), "config": Path(args.config).stem, "cpu": cpu_name(), "cores": os.cpu_count(),
                "threads": args.threads, "versions": runtime.versions(), "series": series, "growth": growth(series), "neighbours": both}
    document["tables"] = tables(document)
    if args.output:
        os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
        with replacing(args.output) as file:
            file.write((json.dumps(document, indent=1) + "\n").encode())
    for table in document["tables"].values():
        print("  ".join(table["columns"]))
        for row in table["rows"]:
            print("  ".join(str(cell) if cell is not None else "-" for cell in row))
    print(f"two processes together do {both['throughput_kept']:.2f} times the images of one alone")
    return 0

"""``python -m jt_nanodet bench startup``: what a user waits for before the first step is done.

A process of its own each time: Python and the imports of a command; Jittor; the first and the second training step, with the number of
distinct kernels that they run, which is what Jittor has to compile where its cache is empty. The operators and the ordinary graph are
measured apart. ``--cold`` does the same in an empty cache, core included, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jt_nanodet.bench.inference import cpu_name
from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError

IMPORTS = ("jt_nanodet.config", "alignment.report", "alignment.train", "alignment.logs", "weights_convert", "reports")
GRAPHS = {"operators": "0", "ordinary graph": "1"}


def imports() -> dict[str, float]:
    """Seconds of processor time that importing each command takes, the least of three."""
    code = "import sys, time; began = time.thread_time(); __import__(sys.argv[1]); print(time.thread_time() - began)"
    return {name: min(float(child(["-c", code, name])) for _ in range(3)) for name in IMPORTS}


def child(words: list[str], **environment: str) -> str:
    """Standard output of a Python process; what it says on standard error is passed on when it fails."""
    done = subprocess.run([sys.executable, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if done.returncode:
        tail = " / ".join(done.stderr.strip().splitlines()[-2:])
        raise UserError(f'a measuring process ended with exit status {done.returncode} ({tail}): type "python -m jt_nanodet doctor"')
    return done.stdout


def steps(config: str, batch: int, threads: int, cold: bool) -> dict[str, dict]:
    """Seconds and kernels of the first two steps, for the operators and for the ordinary graph."""
    found = {}
    for name, plain in GRAPHS.items():
        print(f"two training steps with {name}{' in an empty cache' if cold else ''}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="jt_nanodet-startup-") as home:
            place = {"JITTOR_HOME": home} if cold else {}
            out = child(["-m", "jt_nanodet.bench.startup_jittor", config, str(batch), str(threads)], JT_NANODET_PLAIN=plain, **place)
        found[name] = json.loads(out.splitlines()[-1])
    return found


def tables(document: dict) -> dict:
    """`steps` and `imports`, as docs/training-speed.md shows them."""
    note = (f"{document['config']}, batch {document['batch_size']}, {document['threads']} threads, " + ("an empty cache" if document["cold"] else "kernels compiled before")
            + f"; {document['cpu']}")
    rows = [[name, *(f"{row[k]:.1f}" for k in ("built", "jittor", "first", "second")), str(row["kernels"]), str(row["launches"])] for name, row in document["steps"].items()]
    return {"steps": {"columns": ["graph", "core built, s", "Jittor's start, s", "first step, s", "second step, s", "kernels", "launches"], "rows": rows, "note": note},
            "imports": {"columns": ["import", "seconds of processor time"], "rows": [[name, f"{seconds:.2f}"] for name, seconds in document["imports"].items()], "note": document["cpu"]}}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jt_nanodet bench startup", description=__doc__.split("\n\n")[1])
    parser.add_argument("config", nargs="?", default="configs/shapes.yml", help="YAML file (default configs/shapes.yml)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cold", action="store_true", help="in an empty cache: the core and every kernel are compiled")
    parser.add_argument("--output", metavar="FILE", help="write the numbers there, as JSON")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or args.threads < 1:
        raise UserError("--batch-size and --threads are counts; write for example --batch-size 2 --threads 2")
    load_config(args.config)  # refused here, in one sentence
    document = {"schema_version": 1, "command": "bench startup", "cpu": cpu_name(), "config": Path(args.config).name, "batch_size": args.batch_size, "threads": args.threads, "cold": args.cold,
                "imports": imports(), "steps": steps(args.config, args.batch_size, args.threads, args.cold)}
    document["tables"] = tables(document)
    for name, seconds in document["imports"].items():
        print(f"import {name:24} {seconds:6.2f} s of processor time")
    for name, row in document["steps"].items():
        print(f"{name:16} core built {row['built']:6.1f} s, Jittor {row['jittor']:6.2f} s, first step {row['first']:7.2f} s, second {row['second']:6.2f} s, "
              f"{row['kernels']} kernels in {row['launches']} launches")
    if args.output:
        path = Path(args.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    return 0

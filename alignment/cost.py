"""``python -m alignment.cost``: what the comparison costs on this machine, in seconds and memory, as reports/results/cost.json.

    python -m alignment.cost --output reports/results/cost.json            # the embedded default, warm
    python -m alignment.cost --dumps --output reports/results/dumps.json   # instead: comparing one dumped tensor of 10^8 elements
    python -m alignment.cost --cold --data ../shared/data --output F.json   # also a fresh clone with an empty home, and 206 real images

Every command runs as a user would type it, in a process of its own; memory is the largest of its processes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alignment import dumps_cost
from alignment.cli import run_cli, say
from alignment.report_top import processor
from alignment.result import write_json
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
#: What each measurement may cost on two cores: seconds and MB.
LIMITS = {"make parity, cold": (720, 3000), "make parity, warm": (90, 3000), "alignment.infer, 206 images at 320": (180, 3000)}


def measure(name: str, command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run one command; seconds, largest resident memory of one of its processes, exit status. UserError when it fails."""
    say(f"{name}: {' '.join(command)}")
    # A shell in between keeps the figure apart: RUSAGE_CHILDREN of this process would mix all commands.
    script = "import resource,subprocess,sys;r=subprocess.call(sys.argv[1:]);print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,r)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *command], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - started
    kilobytes, status = done.stdout.split()[-2:]
    if int(status) != 0:
        raise UserError(f"{name} failed ({(done.stderr or done.stdout).strip().splitlines()[-1]}): run it alone: {' '.join(command)}")
    return {"name": name, "command": " ".join(shown(word) for word in command), "seconds": seconds, "peak_memory_mb": int(kilobytes) / 1024}


def shown(word: str) -> str:
    """Without the places of this machine."""
    return "python" if word == sys.executable else word.replace(tempfile.gettempdir() + os.sep, "TMP/").replace(str(ROOT), ".")


def built_in(data: Path | None, scratch: str, rows: list[dict[str, Any]], left_out: list[dict[str, str]]) -> None:
    """The embedded default, warm, and real images where there are any."""
    report = [sys.executable, "-m", "alignment.report", "--output", f"{scratch}/report"]
    measure("warm-up", report)
    rows.append(measure("make parity, warm", report))
    if data:
        images, weights = data / "coco" / "val2017", data / "weights" / "nanodet-plus-m_320_bnfolded_state.npz"
        command = [sys.executable, "-m", "alignment.infer", "--config", "configs/nanodet-plus-m_320.yml", "--pytorch-model", str(weights),
                   "--test-images", str(images), "--annotations", str(data / "coco" / "annotations" / "instances_val206.json"),
                   "--output", f"{scratch}/infer"]
        rows.append(measure("alignment.infer, 206 images at 320", command))
    else:
        left_out.append({"name": "alignment.infer, 206 images at 320", "reason": "no real images: add --data DIR"})


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.cost", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", metavar="FILE.json", type=Path, required=True)
    parser.add_argument("--cold", action="store_true", help="also `make parity` in a fresh clone with an empty home")
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder with coco/ and weights/: also alignment.infer on real images")
    parser.add_argument("--dumps", action="store_true", help="instead: comparing dumped tensors of 10^8 elements (takes 2 GB of disk)")
    args = parser.parse_args(argv)
    if not args.output.parent.is_dir():
        raise UserError(f"{args.output.parent} is no folder: give a place that exists with --output")
    rows, left_out = [], []
    with tempfile.TemporaryDirectory() as scratch:
        if args.dumps:
            rows = dumps_cost.rows(Path(scratch), measure)
        elif args.cold:
            clone, home = Path(scratch) / "clone", Path(scratch) / "home"
            home.mkdir()
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            bare = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "JITTOR_HOME")}
            rows.append(measure("make parity, cold", ["make", "parity"], cwd=clone, env={**bare, "HOME": str(home)}))
        else:
            left_out.append({"name": "make parity, cold", "reason": "not asked for: add --cold"})
        if not args.dumps:
            built_in(args.data, scratch, rows, left_out)
    for row in rows:
        row["limit_seconds"], row["limit_mb"] = LIMITS.get(row["name"], dumps_cost.LIMITS)
        row["within"] = row["seconds"] <= row["limit_seconds"] and row["peak_memory_mb"] <= row["limit_mb"]
        print(f"{row['name']:36s} {row['seconds']:7.1f} s of {row['limit_seconds']}, {row['peak_memory_mb']:6.0f} MB of {row['limit_mb']}")
    note = f"{processor()}, {os.cpu_count()} cores; {datetime.date.today().isoformat()}"
    table = {"columns": ["command", "seconds", "limit", "peak memory, MB", "limit, MB"], "columns_zh": ["命令", "秒", "上限", "内存峰值，MB", "上限，MB"],
             "rows": [[r["name"], round(r["seconds"], 1), r["limit_seconds"], round(r["peak_memory_mb"]), r["limit_mb"]] for r in rows], "note": note}
    write_json(args.output, {"schema_version": 1, "command": "python -m alignment.cost" + " --dumps" * args.dumps, "measured": rows, "not_run": left_out, "load_average": os.getloadavg()[0],
                             "tables": {"dumps" if args.dumps else "cost": table}})
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""``python -m alignment.cost``: what the comparison costs on this machine, in seconds and memory, as reports/results/cost.json.

    python -m alignment.cost --output reports/results/cost.json            # the embedded default, warm
    python -m alignment.cost --cold --data ../shared/data --output F.json   # also a fresh clone with an empty home, real images, and both passes at 320
    python -m alignment.cost --only layers --add --data ../shared/data --output F.json   # one case measured again, the others kept
    python -m alignment.cost --dumps --output reports/results/dumps.json   # instead: comparing one dumped tensor of 10^8 elements

Every command runs as a user would type it, in a process of its own; memory is that of its largest process, and of all its processes together.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment import dumps_cost
from alignment.cli import run_cli
from alignment.cost_meter import ROOT, measure, outcome
from alignment.report_top import processor
from alignment.result import write_json
from jt_nanodet.errors import UserError

#: The cases by the word of --only, with what each may cost on two cores: seconds and MB.
NAMES = {"cold": "make parity, cold", "warm": "make parity, warm", "infer": "alignment.infer, 206 images at 320",
         "layers": "alignment.layers --backward, one image at 320, released weights"}
LIMITS = {"cold": (720, 3000), "warm": (90, 3000), "infer": (180, 3000), "layers": (60, 2000)}
NEED_DATA = ("infer", "layers")
CONFIG, WEIGHTS = "configs/nanodet-plus-m_320.yml", Path("weights") / "nanodet-plus-m_320_bnfolded_state.npz"


def cold(data: Path | None, scratch: Path) -> dict[str, Any]:
    """`make parity` in a fresh clone with an empty home."""
    clone, home = scratch / "clone", scratch / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    bare = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "JITTOR_HOME")}
    return measure(NAMES["cold"], ["make", "parity"], cwd=clone, env={**bare, "HOME": str(home)})


def warm(data: Path | None, scratch: Path) -> dict[str, Any]:
    """The embedded default."""
    report = [sys.executable, "-m", "alignment.report", "--output", str(scratch / "report")]
    measure("warm-up", report)
    return {**measure(NAMES["warm"], report), **outcome(scratch / "report" / "report.json")}


def infer(data: Path, scratch: Path) -> dict[str, Any]:
    """Real images."""
    command = [sys.executable, "-m", "alignment.infer", "--config", CONFIG, "--pytorch-model", str(data / WEIGHTS), "--test-images", str(data / "coco" / "val2017"),
               "--annotations", str(data / "coco" / "annotations" / "instances_val206.json"), "--output", str(scratch / "infer")]
    return {**measure(NAMES["infer"], command), **outcome(scratch / "infer" / "result.json")}


def layers(data: Path, scratch: Path) -> dict[str, Any]:
    """Both passes captured, every call fed again, every tensor compared; and whether recording changed a bit of either side."""
    command = [sys.executable, "-m", "alignment.layers", "--backward", "--config", CONFIG, "--pytorch-model", str(data / WEIGHTS),
               "--test-images", str(data / "coco" / "val2017"), "--output", str(scratch / "layers")]
    # an undecided tensor is a finding (exit status 3), not a failure to measure
    measure("warm-up", command, accept=(0, 3))
    return {**measure(NAMES["layers"], command, accept=(0, 3)), **outcome(scratch / "layers" / "result.json")}


CASES: dict[str, Callable[[Any, Path], dict[str, Any]]] = {"cold": cold, "warm": warm, "infer": infer, "layers": layers}


def earlier(file: Path) -> list[dict[str, Any]]:
    """The rows of an earlier file of this command, none where there is no file; UserError for another file."""
    if not file.is_file():
        return []
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in document["measured"]} if document["command"] == "python -m alignment.cost" else None
        return [{**rows[name], "date": rows[name].get("date") or document["tables"]["cost"]["note"].rpartition("; ")[2]} for name in NAMES.values() if name in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no file of alignment.cost, so nothing can be added to it: give another --output, or leave --add out") from error


def judged(row: dict[str, Any], limits: tuple[int, int]) -> dict[str, Any]:
    """The row with what it may cost; the memory of all its processes counts where it was measured."""
    seconds, memory = limits
    held = row.get("together_mb", row["peak_memory_mb"])
    return {**row, "limit_seconds": seconds, "limit_mb": memory, "within": row["seconds"] <= seconds and held <= memory}


def table(rows: list[dict[str, Any]], note: str) -> dict[str, Any]:
    """One row a command."""
    return {"columns": ["command", "seconds", "limit", "largest process, MB", "all together, MB", "limit, MB", "compared", "undecided", "verdict"],
            "columns_zh": ["命令", "秒", "上限", "最大进程，MB", "全部进程合计，MB", "上限，MB", "比较项数", "未决", "结论"],
            "rows": [[r["name"], round(r["seconds"], 1), r["limit_seconds"], round(r["peak_memory_mb"]), round(r["together_mb"]) if "together_mb" in r else None,
                      r["limit_mb"], r.get("compared"),
                      len(r["undecided"]) if "undecided" in r else None, r.get("verdict")] for r in rows], "note": note}


def chosen(args: argparse.Namespace) -> tuple[list[str], list[dict[str, str]]]:
    """The cases to measure, and those left out, each with its reason. UserError for a case that lacks its data."""
    wanted = args.only or [name for name in CASES if name != "cold" or args.cold]
    lacking = [name for name in wanted if name in NEED_DATA and not args.data]
    if args.only and lacking:
        raise UserError(f"--only {lacking[0]} needs real images and weights: add --data DIR, a folder with coco/ and weights/")
    if args.data and not (args.data / WEIGHTS).is_file():
        raise UserError(f"there is no file {args.data / WEIGHTS}: give a folder with coco/ and weights/ with --data")
    measured = [name for name in wanted if name not in lacking]
    why = "not asked for: name it with --only" if args.only else "not asked for: add --cold"
    return measured, [{"name": NAMES[name], "reason": "no real images: add --data DIR" if name in lacking else why} for name in CASES if name not in measured]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m alignment.cost", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", metavar="FILE.json", type=Path, required=True)
    parser.add_argument("--cold", action="store_true", help="also `make parity` in a fresh clone with an empty home")
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder with coco/ and weights/: also alignment.infer and alignment.layers --backward on real images")
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=tuple(CASES), help=f"measure only these: {', '.join(CASES)}")
    parser.add_argument("--add", action="store_true", help="keep the other cases of --output; equal ones are replaced")
    parser.add_argument("--dumps", action="store_true", help="instead: comparing dumped tensors of 10^8 elements (takes 2 GB of disk)")
    args = parser.parse_args(argv)
    if not args.output.parent.is_dir():
        raise UserError(f"{args.output.parent} is no folder: give a place that exists with --output")
    if args.dumps and (args.add or args.only):
        raise UserError("--dumps is measured whole and alone: leave --add and --only out")
    kept, (names, left_out) = earlier(args.output) if args.add else [], chosen(args)
    today = datetime.date.today().isoformat()
    with tempfile.TemporaryDirectory() as scratch:
        if args.dumps:
            rows, left_out = [judged(row, dumps_cost.LIMITS) for row in dumps_cost.rows(Path(scratch), measure)], []
        else:
            rows = [{**judged(CASES[name](args.data, Path(scratch)), LIMITS[name]), "date": today} for name in names]
    for row in rows:
        print(f"{row['name']:36s} {row['seconds']:7.1f} s of {row['limit_seconds']}, {row['together_mb']:6.0f} MB of {row['limit_mb']}")
    new = {row["name"] for row in rows}
    if not args.dumps:
        rows = sorted([*(row for row in kept if row["name"] not in new), *rows], key=lambda row: list(NAMES.values()).index(row["name"]))
        left_out = [one for one in left_out if one["name"] not in {row["name"] for row in rows}]
    days = sorted({row["date"] for row in rows if "date" in row} | {today})
    note = f"{processor()}, {os.cpu_count()} cores; {' to '.join(dict.fromkeys((days[0], days[-1])))}"
    write_json(args.output, {"schema_version": 1, "command": "python -m alignment.cost" + " --dumps" * args.dumps, "measured": rows, "not_run": left_out,
                             "load_average": os.getloadavg()[0], "tables": {"dumps" if args.dumps else "cost": table(rows, note)}})
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""``python -m reports.speed DIR DIR --gpu FILE``: runs of alignment.infer at several input sizes as one file of speed tables, reports/results/speed.json.

Each DIR is the output of a run with annotations and timing; --gpu names a result of ``jt_nanodet bench gpu`` whose frames per second of the same sizes stand beside those of the CPU.
Only numbers of these files are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jt_nanodet.errors import UserError, run_cli
from reports import save_text
from reports.record import RESULTS, placeless
from reports.source import as_dict, as_list, as_number, read_json
from reports.tables import SIDE_NAMES, SIDES, spread

KEPT = ("command_line", "versions", "hashes", "device", "images", "path", "fps")


def size_of(data: dict, folder: Path) -> int:
    """The input size of a run, from its pictures' own record."""
    job = read_json(folder / "pytorch.job.json", "job", str(folder / "pytorch.job.json")).data or {}
    from jt_nanodet.config import load_config, with_input_size

    task = as_dict(next(iter(as_list(job.get("tasks"))), None))
    if not task.get("config"):
        raise UserError(f"{folder} holds no job of alignment.infer: name the folder that was given to its --output")
    return with_input_size(load_config(task["config"]), task.get("input_size")).data.val.input_size[0]


def gather(folders: list[Path], gpu: Path | None) -> dict:
    """The document; UserError for a folder without timing or metric, or one size twice."""
    runs: dict[int, dict] = {}
    for folder in folders:
        data = read_json(folder / "result.json", "result", str(folder / "result.json")).data or {}
        if not as_dict(data.get("fps")).get("by_batch") or not as_dict(data.get("metrics")).get("pytorch"):
            raise UserError(f"{folder / 'result.json'} has no timing or no metric: run alignment.infer with --annotations and without --rounds 0")
        size = size_of(data, folder)
        if size in runs:
            raise UserError(f"two of the folders are runs at {size}: give one for each input size")
        runs[size] = {key: data.get(key) for key in KEPT} | {"metrics": {side: {k: v for k, v in data["metrics"][side].items() if as_number(v) is not None} for side in SIDES}}
    card = read_json(gpu, "gpu", str(gpu)).data if gpu else {}
    if card is None:
        raise UserError(f"{gpu} is no result of jt_nanodet bench gpu: leave --gpu out, or name reports/results/gpu_h200.json")
    on_gpu = {(row["size"], side): as_number(as_dict(row.get(side)).get("fps")) for row in as_list(card.get("rows")) if row.get("precision") == 32 for side in SIDES}
    return {"schema_version": 1, "command": "python -m reports.speed", "runs": {str(size): run for size, run in sorted(runs.items())}, "gpu": gpu.name if gpu else None,
            "tables": {"speed": speed_table(runs, on_gpu, card), "batches": batch_table(runs)}}


def speed_table(runs: dict[int, dict], on_gpu: dict, card: dict) -> dict:
    rows = []
    for size, run in sorted(runs.items()):
        for side in SIDES:
            stats, gpu = run["fps"]["by_batch"]["1"][side], on_gpu.get((size, side))
            rows.append([size, SIDE_NAMES[side], f"{gpu:.1f}" if gpu else None, f"{stats['fps']:.1f} ({stats['low_fps']:.1f} to {stats['high_fps']:.1f})",
                         f"{run['metrics'][side]['mAP']:.5f}"])
    one = next(iter(runs.values()))
    gpu = f"GPU: {card.get('gpu')}, float32, by {str(card.get('command')).split(' --')[0]}; " if card else ""
    note = f"one image at a time, from file to boxes, with the 95 % interval of the median; {gpu}mAP on {one['images']} COCO pictures; Jittor on the CPU: {one['path']}"
    return {"columns": ["input", "side", "FPS (GPU)", "FPS (CPU)", "mAP"], "columns_zh": ["输入", "实现", "FPS（GPU）", "FPS（CPU）", "mAP"], "rows": rows, "note": note}


def batch_table(runs: dict[int, dict]) -> dict:
    rows = []
    for size, run in sorted(runs.items()):
        for batch, found in run["fps"]["by_batch"].items():
            for side in SIDES:
                stats = found[side]
                rows.append([size, int(batch), SIDE_NAMES[side], round(stats["fps"], 1), *(spread(stats["phases"][phase]) for phase in ("preprocess", "forward", "postprocess")),
                             round(stats["peak_memory_mb"]), round(stats["first_round_seconds"], 1)])
    fps = next(iter(runs.values()))["fps"]
    note = (f"CPU; milliseconds of one image, median (p20–p80); {fps['rounds']} rounds of {fps['images']} images, {fps['order']}; the first round holds all that is compiled or "
            "loaded at the first call, on a warm cache")
    return {"columns": ["input", "batch", "side", "images/s", "preprocess, ms", "forward, ms", "postprocess, ms", "peak memory, MB", "first round, s"],
            "columns_zh": ["输入", "批大小", "实现", "张/秒", "预处理，毫秒", "前向，毫秒", "后处理，毫秒", "内存峰值，MB", "首轮，秒"], "rows": rows, "note": note}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.speed", description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+")
    parser.add_argument("--gpu", metavar="FILE.json", type=Path, help="result of jt_nanodet bench gpu")
    parser.add_argument("--output", metavar="FILE.json", type=Path, default=RESULTS / "speed.json", help="default: reports/results/speed.json")
    args = parser.parse_args(argv)
    save_text(args.output, json.dumps(placeless(gather(args.folders, args.gpu)), indent=1, ensure_ascii=False) + "\n")
    print(f'{args.output.name}: type "python -m reports.readme_tables" to renew the READMEs')
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""``python -m reports.training FOLDER... --name NAME``: keep the logs of training runs as reports/results/NAME.json, the source of README tables and curves.

Each FOLDER is a run's (`save_dir`), one for each side; the runs must have one configuration and one seed. Kept are the header, the seconds,
the mean loss of every epoch and every validation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jt_nanodet.errors import UserError, run_cli
from jt_nanodet.run.log import read_rows
from reports import save_text
from reports.record import RESULTS

HEADER = ("config", "config_sha256", "seed", "device", "processes", "precision", "total_epochs", "threads", "versions")
NAMES = {"pytorch": "PyTorch", "jittor": "Jittor"}
METRICS = ("mAP", "AP_50", "AP_75", "AP_small", "AP_m", "AP_l")


def run(folder: Path) -> dict:
    """The compact form of one run; UserError where the folder holds no log or one without a whole epoch."""
    if not (folder / "log.jsonl").is_file():
        raise UserError(f"{folder} holds no log.jsonl: train first, for example python -m jt_nanodet train configs/shapes.yml --save-dir {folder}")
    rows = read_rows(folder)
    header = next((r for r in rows if r.get("type") == "header"), None)
    epochs = {r["epoch"]: r for r in rows if r.get("type") == "epoch"}
    val = {r["epoch"]: r for r in rows if r.get("type") == "val"}
    if header is None or not epochs:
        raise UserError(f"{folder}/log.jsonl has no finished epoch: train longer, or give another folder")
    best = max(val.values(), key=lambda r: r["mAP"], default=None)
    return {
        **{k: header[k] for k in HEADER if k in header},
        "side": header["side"], "parts": sum(r.get("type") == "header" for r in rows),
        "finished": max(epochs) == header["total_epochs"], "seconds": round(rows[-1]["time"] - header["time"], 1),
        "seconds_at_epoch": {e: round(r["time"] - header["time"], 1) for e, r in epochs.items()},
        "loss": {e: r["loss"] for e, r in epochs.items()},
        "validation": {e: {k: r[k] for k in METRICS if k in r} for e, r in val.items()},
        "best": best and {"epoch": best["epoch"], "mAP": best["mAP"]},
    }


def record(folders: list[Path]) -> dict:
    """All runs beside each other; UserError where they are not runs of one configuration and seed, each of another side."""
    runs: dict[str, dict] = {}
    for folder in folders:
        one = run(folder)
        if one["side"] in runs:
            raise UserError(f"two of the folders are runs of {NAMES.get(one['side'], one['side'])}: give one folder for each side")
        runs[one["side"]] = one
    first = next(iter(runs.values()))
    for one in runs.values():
        for key in ("config_sha256", "seed"):
            if one[key] != first[key]:
                raise UserError(f"the runs differ in {key}: train both sides with one configuration and one --seed")
    rows = [[NAMES.get(side, side), max(one["loss"]), one["loss"][max(one["loss"])], one["best"] and one["best"]["mAP"], one["best"] and one["best"]["epoch"], one["seconds"]]
            for side, one in runs.items()]
    return {"schema_version": 1, "config": first["config"], "runs": runs, "tables": {"training": {
        "columns": ["side", "epochs", "last loss", "best mAP", "at epoch", "seconds"], "columns_zh": ["实现", "轮数", "最后损失", "最佳 mAP", "所在轮次", "秒"],
        "rows": rows, "note": f"{first['config']}, seed {first['seed']}, {first['device']}, {first['threads']} threads",
        "note_zh": f"{first['config']}，种子 {first['seed']}，{first['device']}，{first['threads']} 线程"}}}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.training", description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+")
    parser.add_argument("--name", required=True, help="file name without .json")
    args = parser.parse_args(argv)
    if Path(args.name).name != args.name:
        raise UserError(f'"{args.name}" is no plain name: give one such as training_shapes')
    path = RESULTS / f"{args.name}.json"
    save_text(path, json.dumps(record(args.folders), indent=1, ensure_ascii=False) + "\n")
    print(f"{path.relative_to(RESULTS.parents[1])}: type \"python -m reports.readme_tables\" to renew the READMEs")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

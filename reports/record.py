"""``python -m reports.record DIR NAME``: keep the measurements of a report, or of one run of alignment.infer, alignment.swap, alignment.train or alignment.upstream, as
reports/results/NAME.json, the source of the tables in the READMEs and in docs/. Several runs of alignment.swap, each with another planted error, are kept
together: ``DIR DIR ... NAME``; runs of alignment.upstream with other weights too.

Only numbers already in the report's result files are kept; the tensors, pictures and detections themselves are not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from jt_nanodet.errors import UserError, run_cli
from reports import save_text
from reports.infer_tables import CAUSE_COLUMNS, cause_rows
from reports.source import read_folder, read_json
from reports.words import ZH

RESULTS = Path(__file__).resolve().parent / "results"
TOP = ("title", "verdict", "compared", "failed", "skipped", "created", "device", "seeds", "versions", "environment", "durations", "peak_memory_mb", "command_line")
DETECTIONS = ("images", "total_ref", "total_cand", "matched", "moved", "missing", "extra", "relabelled", "unexplained", "max_box_diff", "max_score_diff", "floor",
              "causes")


def placeless(value: object) -> object:
    """Without the places of this machine: an absolute path below the checkout's parent becomes relative to the checkout, any other keeps its name alone."""
    if isinstance(value, dict):
        return {key: placeless(one) for key, one in value.items()}
    if isinstance(value, list):
        return [placeless(one) for one in value]
    if not isinstance(value, str) or not value.startswith("/") or "\n" in value:
        return value
    root = RESULTS.parents[1]
    return os.path.relpath(value, root) if Path(value).is_relative_to(root.parent) else Path(value).name


def record(folder: Path) -> dict:
    """The compact form of a report folder; UserError when it holds no report."""
    if (folder / "result.json").is_file() and not (folder / "report.json").is_file():
        return record_one(read_json(folder / "result.json", "result", str(folder / "result.json")).data or {}, folder)
    source = read_folder(folder)
    if source.top.data is None:
        raise UserError(f"{folder} holds no report.json: make one with python -m alignment.report --output {folder}")
    parts = {name: part.data for name, part in source.parts.items() if part.data is not None}
    kept = {key: source.top.data[key] for key in TOP if key in source.top.data}
    kept["schema_version"] = 1
    kept["checks"] = {name: {key: data.get(key) for key in ("verdict", "compared", "failed", "skipped", "hashes")} for name, data in parts.items()}
    if "structure" in parts:
        kept["totals"] = parts["structure"].get("totals")
    if "layers" in parts:
        kept["layers"] = layers(parts["layers"])
    if "infer" in parts:
        infer = parts["infer"]
        kept["detections"] = {key: infer["detections"].get(key) for key in DETECTIONS}
        kept.update({key: infer.get(key) for key in ("metrics", "fps")})
        kept["infer"] = {"images": infer.get("images"), "durations": infer.get("durations"), "peak_memory_mb": infer.get("peak_memory_mb")}
    kept["tables"] = {"checks": checks_table(kept)}
    return kept


def record_one(data: dict, folder: Path) -> dict:
    """The compact form of one result of `alignment.infer`, `alignment.swap` or `alignment.train`; UserError for any other."""
    kept = {key: data[key] for key in ("command", "verdict", "compared", "failed", "skipped", "device", "seeds", "versions", "hashes", "durations", "images") if key in data}
    kept |= {"schema_version": 1, "tables": {}}
    if "swap" in data:
        kept |= {"swap": data["swap"], "metrics": data["metrics"]}
        kept["tables"]["swap"] = swap_table(data["swap"], data["images"])
    elif "detections" in data:
        for name in ("detections", "weights_change"):
            if name in data:
                kept[name] = {key: data[name].get(key) for key in DETECTIONS}
                kept["tables"][name] = causes_table(data[name])
        kept |= {key: data[key] for key in ("metrics", "bootstrap", "fps") if data.get(key)}
        if "bootstrap" in kept:
            kept["tables"]["bootstrap"] = bootstrap_table(kept["bootstrap"])
    elif data.get("command") == "upstream":
        return record_upstream([folder])
    elif "train" in data:
        kept |= {key: data[key] for key in ("source", "peak_memory_mb", "first_divergence", "command_line") if key in data}
        kept["train"] = training(data["train"])
        kept["tables"]["steps"] = steps_table(kept["train"], kept.get("durations", {}))
    else:
        raise UserError(f"{folder / 'result.json'} is of neither alignment.infer, alignment.swap, alignment.train nor alignment.upstream: name the output of one of them")
    return kept


def causes_table(data: dict) -> dict:
    """How many differences each cause has, those that only one side has (or under another class) apart from pairs that moved, and the largest margin."""
    return {"columns": list(CAUSE_COLUMNS), "columns_zh": [ZH[name] for name in CAUSE_COLUMNS], "rows": cause_rows(data) or [["none", 0, 0, 0]],
            "note": f"{data['total_ref']} and {data['total_cand']} detections, {data['matched']} matched, {data['unexplained']} unexplained"}


def bootstrap_table(data: dict) -> dict:
    rows = [[name, f"{one['pytorch']:.5f}", f"{one['jittor']:.5f}", f"{one['delta']:+.5f}", f"{one['low']:+.5f} to {one['high']:+.5f}", one["images_needed"]]
            for name, one in data["metrics"].items()]
    return {"columns": ["number", "PyTorch", "Jittor", "difference", "95 % interval", "images that would decide"],
            "columns_zh": ["指标", "PyTorch", "Jittor", "差异", "95 % 区间", "足以判定的图片数"], "rows": rows,
            "note": f"{data['images']} images, {data['resamples']} draws, seed {data['seed']}"}


def swap_table(data: dict, images: int) -> dict:
    rows = [[one["stage"], f"{one['into_reference']:+.5f}", "{:+.5f} to {:+.5f}".format(*one["interval"]) if one["interval"] else None, f"{one['into_port']:+.5f}",
             one["pictures_with_other_bits"]] for one in data["stages"]]
    planted = f"; planted: {data['plant'][0]} x {data['plant'][1]:g}" if data.get("plant") else ""
    return {"columns": ["stage", "the port's in the reference, mAP", "95 % interval", "the reference's in the port, mAP", "pictures with other bits"],
            "columns_zh": ["阶段", "移植版的阶段放入参考，mAP", "95 % 区间", "参考的阶段放入移植版，mAP", "位有不同的图片"], "rows": rows,
            "note": f"carried by: {data['carrier'] or 'no stage'}; mAP {data['mAP']['pytorch']:.5f} and {data['mAP']['jittor']:.5f} on {images} images{planted}"}


def record_upstream(folders: list[Path]) -> dict:
    """Runs of `alignment.upstream` with different weights: how many tensors of each group equal upstream's. UserError for another result."""
    runs = [read_json(folder / "result.json", "result", str(folder / "result.json")).data or {} for folder in folders]
    if any(data.get("command") != "upstream" for data in runs):
        raise UserError("results of alignment.upstream are recorded together with nothing else: name folders of that command alone")
    rows = [[data["weights"], one["what"], one["compared"], one["equal"]] for data in runs for one in data["groups"]]
    kept = ("verdict", "compared", "failed", "skipped", "first_failure", "config", "weights", "groups", "upstream", "hashes", "not_run", "seeds")
    clone = runs[0]["upstream"]
    note = (f"RangiLyu/nanodet at {clone['commit'][:12]} ({clone['state']}), {', '.join(dict.fromkeys(data['config'] for data in runs))}; torch {runs[0]['versions']['torch']}; "
            f"{sum(data['compared'] for data in runs):,} tensors and modules, {sum(data['failed'] for data in runs)} that differ")
    return {"schema_version": 1, "command": "upstream", "device": runs[0]["device"], "versions": runs[0]["versions"], "runs": [{k: data[k] for k in kept} for data in runs],
            "tables": {"upstream": {"columns": ["weights", "compared", "how many", "equal in every bit"], "columns_zh": ["权重", "比较对象", "个数", "逐位相等"], "rows": rows, "note": note}}}


def is_upstream(folder: Path) -> bool:
    return (folder / "result.json").is_file() and (read_json(folder / "result.json", "result", str(folder / "result.json")).data or {}).get("command") == "upstream"


def record_plants(folders: list[Path]) -> dict:
    """Several runs of `alignment.swap` with planted errors: what was planted, what was named, and what every stage was found to carry. UserError for any other result."""
    runs = []
    for folder in folders:
        data = read_json(folder / "result.json", "result", str(folder / "result.json")).data or {}
        if "swap" not in data:
            raise UserError(f"{folder / 'result.json'} is not of alignment.swap: name one folder, or several of alignment.swap")
        runs.append(data)
    if len({(data["images"], json.dumps(data["hashes"], sort_keys=True)) for data in runs}) > 1:
        raise UserError("these runs have other images, weights or settings: record together only what differs in --plant alone")
    rows = []
    for data in runs:
        found = data["swap"]
        plant, own = found["plant"], {one["stage"]: one["into_reference"] for one in found["stages"]}
        others = max((abs(value) for stage, value in own.items() if stage != found["carrier"]), default=0.0)
        rows.append([f"{plant[0]} x {plant[1]:g}" if plant else "nothing", found["carrier"] or "no stage", data["verdict"], f"{found['difference']:+.5f}",
                     f"{own[found['carrier']]:+.5f}" if found["carrier"] else "–", f"{others:.5f}"])
    kept = {key: runs[0][key] for key in ("command", "device", "seeds", "versions", "hashes", "images")}
    return kept | {"schema_version": 1, "runs": [{key: data[key] for key in ("swap", "verdict", "compared", "failed", "durations")} for data in runs], "tables": {"plants": {
        "columns": ["planted in the port", "stage named", "verdict", "mAP, port minus reference", "carried by that stage, mAP", "most of any other stage, mAP"],
        "columns_zh": ["移植版中植入的错误", "指出的阶段", "结论", "mAP，移植版减参考", "该阶段所致，mAP", "其他阶段最多，mAP"], "rows": rows,
        "note": f"{runs[0]['images']} images; mAP of the reference {runs[0]['swap']['mAP']['pytorch']:.5f}"}}}


def training(data: dict) -> dict:
    """Each step's verdict, loss on both sides and the row nearest to its bound; where the floors were measured."""
    steps = []
    for one in data["steps"]:
        stage, worst = max(one["worst"].items(), key=lambda pair: pair[1]["of_bound"], default=("", {"of_bound": 0.0, "name": ""}))
        steps.append({"step": one["step"], "epoch": one["epoch"], "rows": one["rows"], "failed": one["failed"], "floors": one["floors"], "floors_why": one["floors_why"],
                      "loss": one["loss"]["total"], "branch_points": one["branch_points"], "largest_of_bound": worst["of_bound"], "stage": stage, "name": worst["name"],
                      "free_weights_rel_l2": one["free"]["weights_rel_l2"], "seconds": one["seconds"]})
    return {**{key: data[key] for key in ("regimes", "rows_compared", "floors_every", "floors_measured", "floors_inherited")}, "branch_points": len(data["branch_points"]),
            "steps": steps}


def steps_table(data: dict, durations: dict) -> dict:
    """One row a regime of `detach_epoch`."""
    rows = []
    for regime in data["regimes"]:
        mine = [one for one in data["steps"] if one["epoch"] == regime["epoch"]]
        rows.append([regime["auxiliary"], len(mine), sum(one["rows"] for one in mine), sum(one["failed"] for one in mine), sum(one["branch_points"] for one in mine),
                     sum(one["floors"] == "measured" for one in mine), max((one["largest_of_bound"] for one in mine), default=0.0)])
    return {"columns": ["auxiliary branch", "steps", "rows compared", "failed", "branch points", "steps with floors of their own", "largest difference, of its bound"],
            "columns_zh": ["辅助分支", "步数", "比较行数", "失败", "分支点", "自测底噪的步数", "最大差异与界之比"], "rows": rows,
            "note": f"{len(data['steps'])} steps in {durations.get('total', 0) / 60:.1f} minutes"}


def layers(data: dict) -> dict:
    """How near the worst layer came to its bound, and the raw output's error against float64 on both sides."""
    judged = [row for row in data["tensors"] if row.get("tolerance") and row.get("own") is not None]
    worst = max(judged, key=lambda row: row["own"] / row["tolerance"], default=None)
    raw = next((row for row in data["tensors"] if row["name_ref"] == "decode/raw"), {})
    return {
        "modules": len(judged), "exactly_equal": sum(row["own"] == 0 for row in judged),
        "nearest_to_bound": worst and {"name": worst["name_ref"], "own": worst["own"], "tolerance": worst["tolerance"]},
        "raw_error_against_float64": {"pytorch": raw.get("err_ref_fp64"), "jittor": raw.get("err_cand_fp64")},
        "first_divergence": data.get("first_divergence"),
    }


def checks_table(kept: dict) -> dict:
    names = {"structure": "模块结构", "weights": "权重", "layers": "逐层", "infer": "推理"}
    rows = [[name, one["verdict"], one["compared"], one["failed"], one["skipped"]] for name, one in kept["checks"].items()]
    note = f"{kept['title']}; {kept['environment']['processor']}, {kept['environment']['cores']} cores; {kept['created']}"
    return {"columns": ["check", "verdict", "compared", "failed", "skipped"], "columns_zh": ["检查", "结论", "比较", "失败", "跳过"],
            "rows": [row for row in rows if row[0] in names], "note": note}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.record", description=__doc__.split("\n\n")[0])
    parser.add_argument("report_dir", metavar="REPORT_DIR", type=Path, nargs="+")
    parser.add_argument("name", metavar="NAME", help="file name without .json")
    args = parser.parse_args(argv)
    if Path(args.name).name != args.name:
        raise UserError(f'"{args.name}" is no plain name: give one such as parity_m_320')
    path = RESULTS / f"{args.name}.json"
    path.parent.mkdir(exist_ok=True)
    if len(args.report_dir) == 1:
        kept = record(args.report_dir[0])
    else:
        kept = (record_upstream if is_upstream(args.report_dir[0]) else record_plants)(args.report_dir)
    save_text(path, json.dumps(placeless(kept), indent=1, ensure_ascii=False) + "\n")
    print(f"{path.relative_to(RESULTS.parents[1])}: type \"python -m reports.readme_tables\" to renew the READMEs")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

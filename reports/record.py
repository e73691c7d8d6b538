"""``python -m reports.record REPORT_DIR NAME``: keep a report's measurements as reports/results/NAME.json, the source of the READMEs' tables.

Only numbers already in the report's result files are kept; the tensors, pictures and detections themselves are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jt_nanodet.errors import UserError, run_cli
from reports import save_text
from reports.source import read_folder

RESULTS = Path(__file__).resolve().parent / "results"
TOP = ("title", "verdict", "compared", "failed", "skipped", "created", "device", "seeds", "versions", "environment", "durations", "peak_memory_mb", "command_line")
DETECTIONS = ("images", "total_ref", "total_cand", "matched", "moved", "missing", "extra", "relabelled", "unexplained", "max_box_diff", "max_score_diff", "floor",
              "causes")


def record(folder: Path) -> dict:
    """The compact form of a report folder; UserError when it holds no report."""
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
    parser.add_argument("report_dir", metavar="REPORT_DIR", type=Path)
    parser.add_argument("name", metavar="NAME", help="file name without .json")
    args = parser.parse_args(argv)
    if Path(args.name).name != args.name:
        raise UserError(f'"{args.name}" is no plain name: give one such as parity_m_320')
    path = RESULTS / f"{args.name}.json"
    path.parent.mkdir(exist_ok=True)
    save_text(path, json.dumps(record(args.report_dir), indent=1, ensure_ascii=False) + "\n")
    print(f"{path.relative_to(RESULTS.parents[1])}: type \"python -m reports.readme_tables\" to renew the READMEs")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

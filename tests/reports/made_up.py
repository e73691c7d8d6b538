"""A made-up report folder, as `python -m alignment.report` would leave it; numbers are drawn, not measured."""

from __future__ import annotations

import json
import random
from pathlib import Path

import cv2
import numpy as np

CLASSES = ["person", "dog", "bicycle", "kite", "traffic light"]
NUMBERS = ["mAP", "AP_50", "AP_75", "AP_small", "AP_m", "AP_l", "AR_1", "AR_10", "AR_100", "AR_small", "AR_m", "AR_l"]


def module_names() -> list[tuple[str, str]]:
    """(path, type) of a detector-like tree, in order of execution."""
    names = [("backbone.conv1.0", "Conv2d"), ("backbone.conv1.1", "BatchNorm2d"), ("backbone.maxpool", "MaxPool2d")]
    for stage, blocks in (("stage2", 4), ("stage3", 8), ("stage4", 4)):
        for block in range(blocks):
            for leaf, kind in (("0", "Conv2d"), ("1", "BatchNorm2d"), ("2", "LeakyReLU"), ("3", "Conv2d"), ("4", "BatchNorm2d")):
                names.append((f"backbone.{stage}.{block}.branch2.{leaf}", kind))
    for block in range(6):
        names += [(f"fpn.blocks.{block}.ghost{n}.{part}", kind) for n in (1, 2) for part, kind in (("primary_conv", "Conv2d"), ("cheap", "Conv2d"))]
    for level in range(4):
        names += [(f"head.cls_convs.{level}.depthwise", "Conv2d"), (f"head.cls_convs.{level}.bn", "BatchNorm2d"), (f"head.gfl_cls.{level}", "Conv2d")]
    return names


def tensor(name: str, depth: int, rng: random.Random, **changes: object) -> dict:
    """One row as `alignment.result.TensorResult.to_json` writes it."""
    floor = 10 ** rng.uniform(-6.3, -5.9) * (1 + depth / 60)
    own, spread = floor * rng.uniform(0.05, 0.6), floor * rng.uniform(0.5, 0.8)
    row = {
        "name_ref": name, "name_cand": name, "verdict": "pass", "reason": "ok", "gate": "bound", "match_method": "exact",
        "stage": "forward", "step": None, "shape": [1, 116, 40, 40], "dtype": "float32", "size": 185600, "max_abs": own,
        "max_rel": own * 30, "index": [0, 3, 11, 5], "value_ref": 0.731, "value_cand": 0.731, "beyond": 0, "rel_l2": own / 8,
        "cosine": 1.0, "sqnr_db": 120.0, "ulp_p99": 4.0, "err_ref_fp64": floor * 0.12, "err_cand_fp64": floor * 0.11,
        "own": own, "inherited": spread, "amplification": 1.2, "floor": floor, "tolerance": floor * 4,
        "tolerance_source": "measured", "hint": "", "module_type": "", "depth": depth,
    }  # fmt: skip
    return row | changes


def result(command: str, verdict: str, rows: list[dict], /, **more: object) -> dict:
    """The top of a result.json around `rows`."""
    failed = [row for row in rows if row["verdict"] == "fail"]
    skipped = sum(row["verdict"] == "skip" for row in rows)
    return {
        "schema_version": 1, "command": command, "verdict": verdict, "compared": len(rows) - skipped, "failed": len(failed),
        "skipped": skipped, "first_failure": failed[0]["name_ref"] if failed else None,
        "first_failure_detail": failed[0] if failed else None, "objections": [], "coverage": 1.0, "device": "cpu",
        "seeds": {"inputs": 0}, "versions": {"python": "3.11.2", "torch": "2.13.0", "jittor": "1.3.11.0", "numpy": "1.26.4"},
        "hashes": {"config": "9f" * 32, "weights.pytorch": "ab" * 32, "weights.jittor": "ab" * 32, "inputs": "17" * 32},
        "durations": {"reference": 9.1, "candidate": 11.4, "compare": 2.2, "total": 22.7}, "not_run": [], "tensors": rows, **more,
    }  # fmt: skip


def layers_result(fail: bool, rng: random.Random) -> dict:
    rows = [tensor(f"model.{name}.weight", 0, rng, stage="param", own=None, inherited=None, floor=None, tolerance=0.0, max_abs=0.0,
                   rel_l2=0.0, err_ref_fp64=None, err_cand_fp64=None, gate="exact") for name, _ in module_names()]  # fmt: skip
    names = module_names()
    for depth, (name, kind) in enumerate(names):
        row = tensor(name, depth, rng, module_type=kind)
        if kind == "MaxPool2d":
            row |= {"own": 0.0, "max_abs": 0.0}
        if fail and depth >= 60:
            row["inherited"] = 3e-3 * (1 + rng.random())
            row["err_cand_fp64"] = 8e-4
        rows.append(row)
    if fail:
        hurt = next(row for row in rows if row["name_ref"] == names[60][0] and row["stage"] == "forward")
        hint = "the difference has a constant ratio in every channel: compare eps (reference 1e-05, candidate 0.001)"
        hurt |= {"verdict": "fail", "reason": "beyond_bound", "own": 2.9e-3, "max_abs": 2.9e-3, "value_cand": 0.7281, "hint": hint}
        nan = next(row for row in rows if row["name_ref"] == names[-1][0] and row["stage"] == "forward")
        nan |= {"verdict": "fail", "reason": "not_finite", "max_abs": "NaN", "own": "NaN", "hint": "NaN on the candidate's side only"}
    rows += [tensor("decode.boxes", 120, rng, stage="post"), tensor("nms.kept", 121, rng, stage="post", gate="exact", max_abs=0.0, own=None)]
    rows.append(tensor("aux_head.gfl_cls.0", 0, rng, verdict="skip", reason="not_run", hint="training branch, absent at inference", name_cand=None, max_abs=None, own=None))
    return result("python -m alignment.layers --config configs/nanodet-plus-m_320.yml --output out/layers", "fail" if fail else "pass", rows)


def structure_result(fail: bool) -> dict:
    rows = []
    for number, (name, kind) in enumerate(module_names()):
        row = {"path_ref": name, "path_cand": name, "type_ref": kind, "type_cand": kind, "status": "match", "hyper_diff": {}, "params": 1200 * (kind == "Conv2d")}
        if fail and number == 60:
            row |= {"status": "diff", "hyper_diff": {"eps": [1e-05, 0.001]}}
        rows.append(row)
    if fail:
        rows.append({"path_ref": None, "path_cand": "head.extra_scale", "type_ref": None, "type_cand": "Scale", "status": "only_cand", "hyper_diff": {}, "params": 1})
    totals = {"pytorch": {"parameters": 1173000, "flops": 898000000}, "jittor": {"parameters": 1173000 + fail, "flops": 898000000}}
    return result("python -m alignment.structure --config configs/nanodet-plus-m_320.yml --output out/structure", "fail" if fail else "pass", [], rows=rows, totals=totals) | {"compared": len(rows), "failed": 2 * fail}  # fmt: skip


def draw(path: Path, rng: random.Random) -> list[dict]:
    """Write a picture of a few coloured boxes and return them as detections."""
    image = np.full((360, 480, 3), 90, np.uint8)
    image[::12] += 30
    found = []
    for number in range(4):
        x, y, w, h = 20 + 115 * number, rng.randint(40, 160), rng.randint(60, 100), rng.randint(70, 150)
        cv2.rectangle(image, (x, y), (x + w, y + h), [rng.randint(60, 230) for _ in range(3)], -1)
        found.append({"bbox": [x, y, w, h], "score": round(rng.uniform(0.35, 0.9), 4), "category": CLASSES[number]})
    found.append({"bbox": [200, 200, 120, 90], "score": 0.11, "category": "dog"})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    return found


def side_speed(scale: float) -> dict:
    phases = {"preprocess": 1.9, "forward": 30.2 * scale, "postprocess": 3.4}
    total = sum(phases.values())
    return {"median_ms": total, "p20_ms": total * 0.97, "p80_ms": total * 1.06, "fps": 1000 / total, "phases": phases}


def infer_result(fail: bool, folder: Path, rng: random.Random) -> dict:
    pictures, listed = [], []
    for number in range(3):
        boxes = draw(folder / "infer" / "images" / f"{number:06d}.jpg", rng)
        other = [dict(box) for box in boxes]
        name = f"{number:06d}.jpg"
        pictures.append({"image_id": number, "file_name": name, "path": f"infer/images/{name}", "pytorch": boxes, "jittor": other})
        if number == 1:
            listed.append({"image_id": 1, "file_name": name, "category": "dog", "kind": "missing", "cause": "nms_overlap", "margin": 3.1e-7, "ref": boxes[4], "cand": None})
            del other[4]
        if number == 2 and fail:
            other[0]["bbox"] = [60, 90, 85, 120]
            listed.append({"image_id": 2, "file_name": name, "category": "person", "kind": "moved", "cause": "", "margin": None, "ref": boxes[0], "cand": other[0]})
    first = {key: round(rng.uniform(0.1, 0.5), 5) for key in NUMBERS} | {"per_class": {name: rng.uniform(0.1, 0.5) for name in CLASSES}}
    second = dict(first) | {"per_class": dict(first["per_class"])}
    second["AP_75"] += 2e-3 if fail else 3e-6
    second["per_class"]["dog"] -= 4e-3 if fail else 0
    metrics = {"pytorch": first, "jittor": second, "delta": {key: second[key] - first[key] for key in NUMBERS}, "limit": 1e-4}
    detections = {"matched": 4120, "moved": int(fail), "missing": 1, "extra": 0, "relabelled": 0, "unexplained": int(fail),
                  "max_box_diff": 62.0 if fail else 4.1e-4, "max_score_diff": 6.2e-7, "differences": listed}  # fmt: skip
    fps = {"pytorch": side_speed(1.0), "jittor": side_speed(0.62), "warmup": 5, "repeats": 40, "threads": 2}
    command = "python -m alignment.infer --config configs/nanodet-plus-m_320.yml --pytorch-model a.pth --jittor-model a.pkl --test-images images --output out/infer"
    return result(command, "fail" if fail else "pass", [], metrics=metrics, detections=detections, fps=fps, pictures=pictures) | {"compared": 4121, "failed": int(fail)}


def make_report(folder: Path, fail: bool = False, seed: int = 0) -> Path:
    """Fill `folder` with report.json and the results of structure, layers and infer; returns it."""
    rng = random.Random(seed)
    parts = {"structure": structure_result(fail), "layers": layers_result(fail, rng), "infer": infer_result(fail, folder, rng)}
    top = result("python -m alignment.report --config configs/nanodet-plus-m_320.yml --output out", "fail" if fail else "pass", [])
    for name in ("compared", "failed", "skipped"):
        top[name] = sum(part[name] for part in parts.values())
    top |= {"config": "configs/nanodet-plus-m_320.yml", "created": "2025-01-01 12:00 UTC", "durations": {"total": 71.3}}
    top |= {"machine": {"cpu": "an example CPU", "cores": 2}, "threads": 2, "not_run": [{"name": "cuda", "reason": "no CUDA device on this machine"}]}
    if fail:
        top["first_failure"] = parts["layers"]["first_failure"]
        top["first_failure_detail"] = parts["layers"]["first_failure_detail"]
    for name, data in parts.items():
        put(folder / name / "result.json", data)
    put(folder / "report.json", top)
    return folder


def put(path: Path, data: object) -> None:
    """Write JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=True), encoding="utf-8")


def get(path: Path) -> dict:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))

"""Tables of ``bench inference``: every contestant, ratios of neighbouring turns, and what was asked for. Also joins the files of several runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jt_nanodet.errors import UserError

#: name -> (what a reader is told, the same in Chinese)
TITLES = {
    "jt_nanodet": ("this project, CPU engine", "本项目，CPU 引擎"), "jt_nanodet-plain": ("this project, ordinary graph", "本项目，普通计算图"),
    "pytorch": ("PyTorch eager", "PyTorch eager"), "torch-compile": ("PyTorch, torch.compile", "PyTorch，torch.compile"),
    "onnxruntime": ("ONNX Runtime", "ONNX Runtime"), "openvino-f32": ("OpenVINO, float32", "OpenVINO，float32"),
    "openvino": ("OpenVINO, its default precision", "OpenVINO，默认精度"),
}
OURS = "jt_nanodet"
#: What tells one case from another.
KEY = ("config", "size", "batch", "threads", "flags")
#: (what a case must be, contestant, largest ratio of times that was asked for), as it was set before anything was measured.
ASKED = (
    ({"config": "nanodet-plus-m_320", "batch": 1, "threads": 2, "flags": ""}, "openvino-f32", 0.65),
    ({"config": "nanodet-plus-m_320", "batch": 1, "threads": 2, "flags": ""}, "openvino", 1.0),
    ({"config": "nanodet-plus-m_416", "batch": 1, "threads": 2, "flags": ""}, "openvino-f32", 0.8),
    ({"config": "nanodet-plus-m_320", "batch": 8, "threads": 2, "flags": ""}, "openvino-f32", 0.8),
    ({"config": "nanodet-plus-m-1.5x_320", "batch": 1, "threads": 2, "flags": ""}, "openvino-f32", 0.8),
    ({"config": "nanodet-plus-m-1.5x_416", "batch": 1, "threads": 2, "flags": ""}, "openvino-f32", 0.8),
    ({"config": "nanodet-plus-m_320", "batch": 1, "threads": 1, "flags": ""}, "openvino-f32", 0.75),
    ({"config": "nanodet-plus-m_320", "batch": 1, "threads": 2, "flags": "-mno-avx512f"}, "openvino-f32", 1.0),
)


def joined(path: str | None, cases: list[dict]) -> list[dict]:
    """The cases of an earlier file of this measurement, those measured again in the place of their old ones. Raises UserError for another file."""
    if path is None or not Path(path).is_file():
        return cases
    try:
        old = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        old = None
    if not isinstance(old, dict) or old.get("command") != "bench inference":
        raise UserError(f"{path} is no file of bench inference, so nothing can be added to it: give another --output, or leave --add out")
    return list(({key(case): case for case in old["cases"]} | {key(case): case for case in cases}).values())


def key(case: dict) -> tuple:
    return tuple(str(case[name]) for name in KEY)


def ratio(case: dict, other: str) -> dict | None:
    """Our time over another contestant's, turn by turn: {median, p20, p80}; None where one of them did not run."""
    ours, theirs = (case["contestants"].get(name, {}).get("round_medians_ms") for name in (OURS, other))
    if not ours or not theirs:
        return None
    low, middle, high = np.percentile([a / b for a, b in zip(ours, theirs)], (20, 50, 80))
    return {"median": float(middle), "p20": float(low), "p80": float(high)}


def title(case: dict, chinese: bool = False) -> str:
    threads = f"{case['threads']} thread{'s' * (case['threads'] > 1)}"
    text = f"{case['config']}，批大小 {case['batch']}，{case['threads']} 线程" if chinese else f"{case['config']}, batch {case['batch']}, {threads}"
    return text + ((", AVX2" if not chinese else "，AVX2") if "-mno-avx512f" in case["flags"] else "")


def every(cases: list[dict]) -> dict:
    """A row for each case and contestant."""
    lines = []
    for case in cases:
        for name, one in case["contestants"].items():
            if "median_ms" in one:
                over = ratio(case, name)
                lines.append([title(case), TITLES[name][0], *(f"{one[k]:.2f}" for k in ("median_ms", "p20_ms", "p80_ms", "min_ms")),
                              f"{over['median']:.2f}" if over else None, f"{one['max_error']:.1e}"])
    return {"columns": ["case", "contestant", "median, ms", "p20, ms", "p80, ms", "least, ms", "our time over it", "error against float64"],
            "columns_zh": ["情形", "参赛者", "中位数，毫秒", "p20，毫秒", "p80，毫秒", "最小，毫秒", "我方用时与之比", "相对 float64 的误差"], "rows": lines}


def ratios(cases: list[dict]) -> dict:
    """A row for each case: milliseconds of each contestant, and our time over it in brackets."""
    names = [name for name in TITLES if any("median_ms" in case["contestants"].get(name, {}) for case in cases)]
    lines = []
    for case in cases:
        row = [title(case)]
        for name in names:
            one, over = case["contestants"].get(name, {}), ratio(case, name)
            shown = f"{one['median_ms']:.1f}" + (f" ({over['median']:.2f})" if over and name != OURS else "") if "median_ms" in one else None
            row.append(shown)
        lines.append(row)
    return {"columns": ["median, ms (our time over it)", *(TITLES[n][0] for n in names)], "columns_zh": ["中位数，毫秒（我方用时与之比）", *(TITLES[n][1] for n in names)], "rows": lines}


def asked(cases: list[dict]) -> dict:
    """What was asked for beside what was measured."""
    lines = []
    for wanted, other, limit in ASKED:
        case = next((c for c in cases if all(c[k] == v for k, v in wanted.items())), None)
        found = ratio(case, other) if case else None
        label = title({"size": None, **wanted})
        lines.append([label, TITLES[other][0], f"{limit:.2f}", *((f"{found['median']:.2f}", f"{found['p20']:.2f} to {found['p80']:.2f}", "yes" if found["median"] <= limit else "no")
                                                               if found else ("not measured", None, "no"))])
    return {"columns": ["case", "our time over", "at most", "measured", "p20 to p80", "reached"], "columns_zh": ["情形", "我方用时与之比", "至多", "实测", "p20 到 p80", "达到"], "rows": lines}


def tables(cases: list[dict], machine: str) -> dict:
    """All tables of a file; every one says on which machine and how often."""
    rounds = sorted({case["rounds"] for case in cases})
    turns = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    error = next((f"{case['contestants']['openvino']['max_error']:.2g}" for case in cases if "max_error" in case["contestants"].get("openvino", {})), None)
    note = f"{machine}; {turns} turns of each contestant, processes apart; the ratio is the median of the turns' ratios"
    note_zh = f"{machine}；每个参赛者 {turns} 轮，各自独立进程；比值为各轮之比的中位数"
    if error:
        note += f"; OpenVINO's default is not float32 here: its raw outputs are off by up to {error}"
        note_zh += f"；OpenVINO 的默认精度在此并非 float32：其原始输出误差可达 {error}"
    busy = [title(case) for case in cases if case.get("load", 0) > case.get("cores", 2) + 0.5]
    if busy:
        note += f"; measured while the machine had other work, which slows every contestant: {'; '.join(busy)}"
        note_zh += f"；测量时机器另有负载，所有参赛者都变慢：{'; '.join(busy)}"
    made = {"inference": every(cases), "ratios": ratios(cases), "asked": asked(cases)}
    return {name: {**table, "note": note, "note_zh": note_zh} for name, table in made.items()}

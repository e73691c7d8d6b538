"""``python -m reports.speed_plots``: speed on the CPU as pictures, drawn from the committed measurements in reports/results/.

    docs/pictures/cpu_inference.svg   each engine's time for one image, from speed_cpu.json
    docs/pictures/cpu_growth.svg      time against batch, size, threads, candidates and boxes, and memory against batch, from scaling_cpu.json
    docs/pictures/cpu_training.svg    the parts of a training step on both sides, from training_speed_cpu.json

A dashed line in cpu_growth.svg is what the time would be if it grew just as the work does.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

from jt_nanodet.errors import UserError, run_cli
from reports import save_text

ROOT = Path(__file__).resolve().parents[1]
OURS, THEIRS, GREY = "#d1600a", "#1f5fa8", "#888888"
#: Contestant -> name in the picture.
NAMES = {"jt_nanodet": "this project", "jt_nanodet-plain": "this project, --plain", "pytorch": "PyTorch eager", "torch-compile": "torch.compile",
         "onnxruntime": "ONNX Runtime", "openvino-f32": "OpenVINO float32", "openvino": "OpenVINO default (not float32)"}
#: Series -> (label of the axis, power of the number that the work is proportional to).
SERIES = {"batch": ("images at once", 1), "size": ("side of the input, pixels", 2), "threads": ("threads", -1), "suppression": ("candidates of the suppression", 1),
          "assignment": ("boxes an image, assignment of 8 images", 1)}
PARTS = ("forward", "loss", "backward", "update")


def figure_of(width: float, height: float):
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(width, height), layout="constrained")


def inference(document: dict):
    """Bars: the median of each contestant in the first case that has all of them, with p20 to p80."""
    case = max(document["cases"], key=lambda one: sum("median_ms" in c for c in one["contestants"].values()))
    found = sorted(((NAMES[k], c) for k, c in case["contestants"].items() if "median_ms" in c), key=lambda pair: -pair[1]["median_ms"])
    figure = figure_of(7, 0.5 + 0.4 * len(found))
    axes = figure.add_subplot()
    middle = [one["median_ms"] for _, one in found]
    spread = [[m - one["p20_ms"] for m, (_, one) in zip(middle, found)], [one["p80_ms"] - m for m, (_, one) in zip(middle, found)]]
    axes.barh([name for name, _ in found], middle, xerr=spread, color=[OURS if name.startswith("this") else THEIRS for name, _ in found], ecolor=GREY)
    for at, value in enumerate(middle):
        axes.annotate(f"{value:.1f} ", (value, at), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.set_xlabel(f"milliseconds, {case['config']}, batch {case['batch']}, {case['threads']} threads")
    return figure


def growth(document: dict):
    """Small plots: measured time of each series and, dashed, its growth with the work; memory against batch."""
    series = {name: rows for name, rows in document["series"].items() if len(rows) > 1}
    figure = figure_of(9, 5.4)
    plots = figure.subplots(2, 3).ravel()
    for axes, (name, rows) in zip(plots, series.items()):
        label, power = SERIES[name]
        at, times = [row["number"] for row in rows], [row["ms"] for row in rows]
        axes.plot(at, [t["median"] for t in times], "o-", color=OURS, markersize=3)
        axes.fill_between(at, [t["p20"] for t in times], [t["p80"] for t in times], color=OURS, alpha=0.25, linewidth=0)
        axes.plot(at, [times[0]["median"] * (n / at[0]) ** power for n in at], "--", color=GREY, linewidth=1)
        axes.set_xlabel(label)
        axes.set_ylabel("milliseconds")
        if at[-1] > 4 * at[0]:
            axes.set_xscale("log", base=2 if at[-1] <= 64 else 10)
            axes.set_yscale("log")
    if "batch" in series:
        axes = plots[len(series)]
        axes.plot([row["number"] for row in series["batch"]], [row["memory_mb"] for row in series["batch"]], "s-", color=THEIRS, markersize=3)
        axes.set_xlabel("images at once")
        axes.set_ylabel("peak memory, MB")
        axes.set_ylim(bottom=0)
    for axes in plots[len(series) + ("batch" in series):]:
        axes.set_axis_off()
    for axes in plots:
        axes.grid(alpha=0.3)
    return figure


def training(document: dict):
    """Stacked bars: median milliseconds of each part of a step, PyTorch beside Jittor, for every batch size."""
    figure = figure_of(7, 0.8 + 0.55 * 2 * len(document["rows"]))
    axes = figure.add_subplot()
    for row in document["rows"]:
        for side, colour, name in (("jittor", OURS, "Jittor"), ("pytorch", THEIRS, "PyTorch")):
            left, label = 0.0, f"{name}, batch {row['batch']}"
            for shade, part in enumerate(PARTS):
                width = row[side][f"{part}_ms"]["median"] / row["batch"]
                axes.barh(label, width, left=left, color=colour, alpha=1 - 0.2 * shade, edgecolor="white", linewidth=0.5)
                if width > 4:
                    axes.annotate(part, (left + width / 2, label), ha="center", va="center", fontsize=7, color="white")
                left += width
    axes.set_xlabel(f"milliseconds an image, {document['config'].removesuffix('.yml')}, {document['threads']} threads")
    return figure


#: Picture -> (result file, what draws it).
PICTURES = {"cpu_inference.svg": ("speed_cpu.json", inference), "cpu_growth.svg": ("scaling_cpu.json", growth), "cpu_training.svg": ("training_speed_cpu.json", training)}


def svg(document: dict, drawn, name: str) -> str:
    """The picture as text, equal for equal documents."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        buffer = io.StringIO()
        drawn(document).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.speed_plots", description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the checkout (default: this one)")
    args = parser.parse_args(argv)
    results, folder, count = args.root / "reports" / "results", args.root / "docs" / "pictures", 0
    for name, (file, drawn) in PICTURES.items():
        if not (results / file).is_file():
            print(f"{name}: not drawn, reports/results/{file} was not measured")
            continue
        try:
            text = svg(json.loads((results / file).read_text(encoding="utf-8")), drawn, name)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"reports/results/{file} cannot be drawn ({type(error).__name__}: {error}): measure it again with the command in docs/performance.md") from None
        folder.mkdir(parents=True, exist_ok=True)
        save_text(folder / name, text)
        count += 1
        print(f"drew docs/pictures/{name}")
    if not count:
        raise UserError("no measurement of the CPU's speed is in reports/results: measure first with the commands in docs/performance.md")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

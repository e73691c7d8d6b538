"""Loss and mAP over the run, as PNG files beside its log."""

from __future__ import annotations

from pathlib import Path

from jt_nanodet.checkpoint import replacing
from jt_nanodet.run.log import read_rows


def write_curves(folder: Path) -> list[Path]:
    """``loss.png`` and, where there was a validation, ``map.png`` from log.jsonl; the paths written."""
    rows = read_rows(folder)
    # a resumed run may have logged a step twice: the later row is the one whose weights live on
    train = {r["step"]: r for r in rows if r.get("type") == "train" and isinstance(r["loss"], float)}
    val = {r["epoch"]: r for r in rows if r.get("type") == "val"}
    written = []
    if train:
        steps = sorted(train)
        terms = [k for k in train[steps[0]] if k.endswith(("loss_qfl", "loss_bbox", "loss_dfl"))]
        lines = {name: (steps, [train[s][name] for s in steps]) for name in ["loss", *terms]}
        written.append(_draw(folder / "loss.png", lines, "step", "loss", log=True))
    if val:
        epochs = sorted(val)
        lines = {name: (epochs, [val[e][name] for e in epochs]) for name in ("mAP", "AP_50")}
        written.append(_draw(folder / "map.png", lines, "epoch", "average precision"))
    return written


def _draw(path: Path, lines: dict, across: str, up: str, log: bool = False) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, linewidth=2 if name in ("loss", "mAP") else 1, marker="o" if len(x) < 30 else None, markersize=3)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path

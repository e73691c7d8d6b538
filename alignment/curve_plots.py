"""Pictures of two sides of training curves: every loss with its difference and band, and the metrics by epoch. PNG and SVG."""

from __future__ import annotations

import os
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402

from alignment.curve_align import Aligned  # noqa: E402
from alignment.curve_verdict import Comparison  # noqa: E402

REF, CAND = "#1f5fa8", "#d1600a"
#: Points drawn of one curve. More are averaged in stretches, because a picture has no more columns.
POINTS = 600


def draw_all(comparison: Comparison, folder: Path) -> list[str]:
    """Draw the pictures into `folder`; returns their file names without ending, the most telling first."""
    made = []
    losses = [k for k in comparison.aligned if k in comparison.bands]
    losses.sort(key=lambda k: (k != "train/total loss", not k.startswith("train/"), k))
    if losses:
        made.append(_save(_loss_grid(comparison, losses[:9]), folder, "loss_curves"))
        made.append(_save(_differences(comparison, losses[:9]), folder, "loss_differences"))
    metrics = [k for k, one in comparison.aligned.items() if one.pair.kind == "metric" and not re.search(r"/(coco_|class_)", k)]
    if metrics:
        made.append(_save(_metric_grid(comparison, metrics[:6]), folder, "metric_curves"))
    rates = [k for k, one in comparison.aligned.items() if one.pair.kind == "lr" and k.startswith("train/")]
    if rates:
        made.append(_save(_learning_rate(comparison.aligned[rates[0]]), folder, "learning_rate"))
    return made


def thin(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`x` (n,) and `rows` (runs, n) averaged down to at most `POINTS` columns."""
    if len(x) <= POINTS:
        return x, rows
    edges = np.linspace(0, len(x), POINTS + 1).astype(int)
    size = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / size, np.add.reduceat(rows, edges[:-1], axis=1) / size


def by_pass(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lines of one validation pass stand at one step and a fraction; drawn is their mean."""
    start = np.flatnonzero(np.r_[True, np.diff(np.floor(x)) != 0])
    size = np.diff(np.r_[start, len(x)])
    return np.floor(x[start]), np.add.reduceat(rows, start, axis=1) / size


def _side(axes, x: np.ndarray, rows: np.ndarray, colour: str, label: str, marker: str = "") -> None:
    """The mean of a side, and with several runs the band from the lowest to the highest seed."""
    axes.plot(x, rows.mean(0), color=colour, lw=1.0, marker=marker, ms=3, label=f"{label} ({len(rows)} run{'s' if len(rows) > 1 else ''})")
    if len(rows) > 1:
        axes.fill_between(x, rows.min(0), rows.max(0), color=colour, alpha=0.2, lw=0)


def _grid(count: int):
    columns = min(3, count)
    rows = -(-count // columns)
    width, height = 4.8 * columns, 3.3 * rows
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    # Margins by hand, in inches: working out a layout takes longer than drawing.
    figure.subplots_adjust(left=0.75 / width, right=1 - 0.15 / width, bottom=0.55 / height, top=1 - 0.35 / height, wspace=0.85 / 4, hspace=0.9 / 2.4)
    for extra in axes.flat[count:]:
        extra.set_visible(False)
    shown = list(axes.flat[:count])
    for ax in shown:
        ax.locator_params(nbins=5)
        # A stated height spares matplotlib the search for one.
        ax.set_title("", y=1.02)
    return figure, shown


def _heading(ax, title: str) -> None:
    ax.title.set_text(title)


def _loss_grid(comparison: Comparison, keys: list[str]):
    figure, axes = _grid(len(keys))
    for ax, key in zip(axes, keys):
        one = comparison.aligned[key]
        both = np.concatenate([one.a, one.b])
        x, rows = thin(*(by_pass(one.x, both) if key.startswith("val/") else (one.x, both)))
        _side(ax, x, rows[: len(one.a)], REF, "PyTorch")
        _side(ax, x, rows[len(one.a):], CAND, "Jittor")
        if (rows > 0).all() and rows.max() > 5 * np.median(rows):
            ax.set_yscale("log")
            # A loss spans one or two powers of ten: those alone would leave one number at the axis.
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
        _heading(ax, key)
        ax.set_xlabel(one.axis)
        ax.grid(alpha=0.25)
    axes[0].legend(fontsize=8, loc="upper right")
    return figure


def _differences(comparison: Comparison, keys: list[str]):
    figure, axes = _grid(len(keys))
    for ax, key in zip(axes, keys):
        band = comparison.bands[key]
        half = 100 * band["half_width"]
        ax.axhspan(-half, half, color="#999999", alpha=0.2, lw=0, label="margin and chance")
        ax.axhline(0, color="black", lw=0.6)
        ax.plot(band["positions"], 100 * band["difference"], color=CAND, lw=1, marker=".", ms=4)
        if band["first"] is not None:
            ax.axvline(band["first"][0], color="#b00020", lw=1, ls="--", label="leaves the band")
        _heading(ax, key)
        ax.set(xlabel=band["axis"], ylabel="Jittor - PyTorch, %")
        ax.grid(alpha=0.25)
    axes[0].legend(fontsize=8, loc="lower right")
    return figure


def _metric_grid(comparison: Comparison, keys: list[str]):
    figure, axes = _grid(len(keys))
    for ax, key in zip(axes, keys):
        one = comparison.aligned[key]
        _side(ax, one.x, 100 * one.a, REF, "PyTorch", "o")
        _side(ax, one.x, 100 * one.b, CAND, "Jittor", "s")
        for rows, colour in ((one.a, REF), (one.b, CAND)):
            best = int(rows.mean(0).argmax())
            ax.plot(one.x[best], 100 * rows.mean(0)[best], marker="*", ms=11, color=colour, mec="black", mew=0.5)
        _heading(ax, key.split("/", 1)[1])
        ax.set(xlabel=one.axis, ylabel="points (star: best)")
        ax.grid(alpha=0.25)
    axes[0].legend(fontsize=8, loc="lower right")
    return figure


def _learning_rate(one: Aligned):
    figure, axes = _grid(1)
    x, rows = thin(one.x, np.stack([one.a.mean(0), one.b.mean(0)]))
    axes[0].plot(x, rows[0], color=REF, lw=2.2, label="PyTorch")
    axes[0].plot(x, rows[1], color=CAND, lw=1, ls="--", label="Jittor")
    _heading(axes[0], "learning rate")
    axes[0].set_xlabel(one.axis)
    axes[0].legend(fontsize=8, loc="upper right")
    axes[0].grid(alpha=0.25)
    return figure


def _save(figure, folder: Path, name: str) -> str:
    for suffix, options in (("png", {"dpi": 110, "metadata": {"Software": None}}), ("svg", {"metadata": {"Date": None, "Creator": None}})):
        partial = folder / f".{name}.{os.getpid()}.partial"
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            figure.savefig(partial, format=suffix, **options)
        os.replace(partial, folder / f"{name}.{suffix}")
    plt.close(figure)
    return name

"""Plots of an inference result: precision over recall of both sides with their difference, and the difference of every class as a heat map."""

from __future__ import annotations

import math

import numpy as np

from reports.plots import INK, SIDE_INK, figure_of, settings_of, to_svg
from reports.source import as_dict, as_list, as_number, as_text
from reports.tables import SIDE_NAMES, SIDES, sci

TITLES = {"AP_50": "IoU 0.5", "AP_75": "IoU 0.75", "AP": "mean over IoU 0.5 to 0.95"}
#: More classes than this would be unreadable; those that differ most are kept.
MAX_CLASSES = 90
#: The faintest colour of a difference that is not zero.
FAINTEST = 0.12


def _numbers(value: object) -> np.ndarray:
    """A list of numbers as floats, NaN for everything that is none."""
    found = [as_number(item) for item in as_list(value)]
    return np.array([math.nan if number is None else number for number in found], float)


def precision_pairs(infer: dict) -> str | None:
    """SVG: above, precision over recall of both sides; below, the candidate's minus the reference's. None without curves."""
    data = as_dict(infer.get("precision"))
    recalls = _numbers(data.get("recalls"))
    curves = {side: {name: _numbers(value) for name, value in as_dict(as_dict(data.get(side)).get("curves")).items()} for side in SIDES}
    names = [name for name in TITLES if all(len(curves[side].get(name, ())) == len(recalls) > 1 for side in SIDES)]
    if not names:
        return None
    import matplotlib

    with matplotlib.rc_context(settings_of("precision")):
        figure = figure_of(11, 4.9)
        width, gap = (0.905 - 0.045 * (len(names) - 1)) / len(names), 0.045
        change = {name: curves["jittor"][name] - curves["pytorch"][name] for name in names}
        top = max((float(np.nanmax(np.abs(values))) for values in change.values() if np.isfinite(values).any()), default=0.0)
        for place, name in enumerate(names):
            left = 0.08 + place * (width + gap)
            axes = figure.add_axes((left, 0.40, width, 0.51))
            for side, style in zip(SIDES, ("-", "--")):
                axes.plot(recalls, curves[side][name], style, color=INK[SIDE_INK[side]], lw=1.6, label=SIDE_NAMES[side])
            axes.set(xlim=(0, 1), ylim=(0, 1), title=TITLES[name])
            axes.tick_params(labelbottom=False)
            axes.grid(color=INK["grid"], lw=0.7)
            below = figure.add_axes((left, 0.13, width, 0.20))
            below.axhline(0, color=INK["muted"], lw=0.8)
            below.fill_between(recalls, 0, np.nan_to_num(change[name]), color=INK["own"], alpha=0.6, lw=0)
            below.set(xlim=(0, 1), ylim=(-1.15 * top or -1, 1.15 * top or 1), xlabel="recall")
            below.set_yticks([-top, 0, top] if top else [0], [sci(-top), "0", sci(top)] if top else ["0"])
            below.grid(axis="x", color=INK["grid"], lw=0.7)
            if not place:
                axes.set_ylabel("precision")
                below.set_ylabel("difference", labelpad=2)
                axes.legend(loc="lower left", fontsize=9)
        return to_svg(figure)


def class_heat(infer: dict) -> str | None:
    """SVG: a row a number, a column a class, coloured by the side that is better there; None without the table of classes."""
    data = as_dict(infer.get("precision"))
    names, numbers = [as_text(name) for name in as_list(data.get("classes"))], [as_text(name) for name in as_list(data.get("numbers"))]
    sides = [np.array([row for row in (_numbers(row) for row in as_list(as_dict(data.get(side)).get("classes"))) if len(row) == len(numbers)]) for side in SIDES]
    if not names or not numbers or any(side.shape != (len(names), len(numbers)) for side in sides):
        return None
    change = sides[1] - sides[0]
    size = np.nanmax(np.abs(np.nan_to_num(change)), axis=1)
    order = np.argsort(-size, kind="stable")[:MAX_CLASSES]
    top = float(size.max())
    import matplotlib
    from matplotlib.patches import Rectangle

    with matplotlib.rc_context(settings_of("classes")):
        figure = figure_of(11, 3.3)
        axes = figure.add_axes((0.075, 0.42, 0.915, 0.46))
        for column, k in enumerate(order):
            for row in range(len(numbers)):
                value = change[k, row]
                if not math.isfinite(value):
                    axes.plot(column, row, ".", color=INK["muted"], ms=1.5)
                elif value:
                    colour = INK[SIDE_INK["jittor" if value > 0 else "pytorch"]]
                    axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, color=colour, alpha=max(FAINTEST, abs(value) / top), lw=0))
        axes.set(xlim=(-0.6, len(order) - 0.4), ylim=(len(numbers) - 0.4, -0.6))
        axes.set_xticks(range(len(order)), [names[k][:18] for k in order], rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(numbers)), numbers, fontsize=9)
        axes.tick_params(length=0)
        equal = int((size == 0).sum())
        words = f"{equal} of {len(names)} classes are equal in every number" + (f"; full colour is {sci(top)}" if top else "")
        axes.set_title(words, fontsize=10, loc="left")
        for side, x in zip(SIDES, (0.76, 0.89)):
            axes.add_patch(Rectangle((x, 1.05), 0.012, 0.07, transform=axes.transAxes, color=INK[SIDE_INK[side]], lw=0, clip_on=False))
            axes.text(x + 0.017, 1.06, f"{SIDE_NAMES[side]} better", transform=axes.transAxes, fontsize=9)
        return to_svg(figure)

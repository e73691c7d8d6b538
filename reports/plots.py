"""Plots as SVG that lives inside the page: text stays text, colours follow the page's light or dark theme.

matplotlib draws with placeholder colours, which are then replaced by the page's CSS variables. Figures
are built without pyplot, so no display, no global state, no backend is touched.
"""

from __future__ import annotations

import io
import math
import re

import numpy as np

from reports.source import as_dict, as_number
from reports.rows import Row
from reports.tables import PHASES, SIDE_NAMES, SIDES

#: Placeholder -> CSS variable. The placeholders occur nowhere else in an SVG of ours.
INKS = {
    "#010203": "ink", "#020304": "muted", "#030405": "grid", "#040506": "own", "#050607": "inherited",
    "#060708": "floor", "#070809": "ref", "#08090a": "cand", "#090a0b": "bad", "#0a0b0c": "card",
}  # fmt: skip
INK = {name: code for code, name in INKS.items()}
SIDE_INK = {"pytorch": "ref", "jittor": "cand"}
#: Points get a link to their row up to this many; a page with more would grow without helping anybody.
MAX_LINKS = 1500
#: Phases of one side are told apart by opacity, so the plot also reads without colours.
PHASE_ALPHA = (0.35, 0.9, 0.6, 0.25)
#: Exact zeros have no place on a log axis: they are drawn this factor below the smallest other value.
ZERO_STEP = 10.0
#: From this many nodes on, lines and points are thinner.
DENSE = 200


def figure_of(width: float, height: float):
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure  # slow to import, and not needed for Markdown or JUnit

    return Figure(figsize=(width, height))


def settings_of(salt: str) -> dict:
    """matplotlib's settings for a plot of the page; `salt` must differ between the plots of one page."""
    return {
        "svg.fonttype": "none", "svg.hashsalt": salt, "text.color": INK["ink"], "axes.labelcolor": INK["ink"],
        "axes.edgecolor": INK["muted"], "xtick.color": INK["muted"], "ytick.color": INK["muted"],
        "axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "legend.frameon": False,
        "text.parse_math": False,
    }  # fmt: skip


def to_svg(figure, titles: dict[str, str] | None = None) -> str:
    """The figure as an `<svg>` element: no prologue, no metadata, no ids that clash, themed colours.

    `titles` maps link targets to hover texts; the links were set with `set_urls`.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # matplotlib's own style rule would apply to every element of the page.
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.S)
    text = re.sub(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg class="plot" viewBox="\1" role="img">', text, count=1)
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib|legend|FillBetween)[^"]*"', "", text)
    for code, name in INKS.items():
        text = text.replace(code, f"var(--{name})")
    # The page's own font: matplotlib's may not exist where the report is read.
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)

    def link(match: re.Match) -> str:
        target = match.group(1)
        return f'<a href="{target}"><title>{(titles or {}).get(target, "")}</title>'

    text = re.sub(r'<a xlink:href="(#[^"]*)"[^>]*>', link, text)  # matplotlib would open a new window
    return re.sub(r"\n\s*\n+", "\n", text)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _series(rows: list[Row], *keys: str) -> np.ndarray:
    """Absolute values of the first of `keys` that a row has; NaN where there is none or it is not finite."""
    found = []
    for row in rows:
        value = next((row.values[key] for key in keys if row.values[key] is not None), None)
        found.append(math.nan if value is None or not math.isfinite(value) else abs(value))
    return np.array(found)


def _groups(rows: list[Row]) -> list[tuple[int, str]]:
    """Where the first word of the tensor name changes: (position, word); no word where it would not fit."""
    starts: list[tuple[int, str]] = []
    for position, row in enumerate(rows):
        word = re.split(r"[./]", row.name, maxsplit=1)[0][:18]
        if not starts or starts[-1][1] != word:
            starts.append((position, word))
    ends = [position for position, _ in starts[1:]] + [len(rows)]
    fitting = [(at, word if end - at >= len(rows) * 0.012 * len(word) else "") for (at, word), end in zip(starts, ends)]
    return fitting if len(starts) <= 12 else []


def error_by_depth(rows: list[Row], salt: str = "depth") -> str | None:
    """SVG of the errors over the order of execution, or None when no row has a number to draw.

    `salt` must differ between the plots of one page, or their clip paths would share an id.

    Own and inherited error and the floor are greatest absolute differences; the two float64 lines are root
    mean squares (see `alignment.result.TensorResult`), in the same unit.
    """
    drawn = [row for row in rows if row.bad or any(row.values[key] is not None for key in ("own", "inherited", "max_abs"))]
    rows = sorted((row for row in drawn if row.verdict != "skip"), key=lambda row: row.depth)
    own, inherited = _series(rows, "own"), _series(rows, "inherited", "max_abs")
    floor = _series(rows, "floor", "tolerance")
    judges = [_series(rows, "err_ref_fp64"), _series(rows, "err_cand_fp64")]
    every = np.concatenate([own, inherited, floor, *judges]) if rows else np.array([])
    positive = every[np.isfinite(every) & (every > 0)]
    if not np.isfinite(every).any():
        return None
    zero = (positive.min() if positive.size else 1e-8) / ZERO_STEP
    top = (positive.max() if positive.size else 1e-8) * 8

    def lift(values: np.ndarray) -> np.ndarray:
        return np.where(values == 0, zero, values)

    import matplotlib

    with matplotlib.rc_context(settings_of(salt)):
        figure = figure_of(11, 4.6)
        axes = figure.add_axes((0.075, 0.13, 0.91, 0.70))
        place, dense = np.arange(len(rows)), len(rows) > DENSE
        known = np.isfinite(floor)
        if known.any():
            band = np.maximum(lift(np.interp(place, place[known], floor[known])), zero)
            axes.fill_between(place, zero / 2, band, color=INK["floor"], alpha=0.18, lw=0, label="noise floor", step="mid")
            axes.step(place, band, color=INK["floor"], lw=0.8, alpha=0.8, where="mid")
        for values, ink, text in zip(judges, ("ref", "cand"), ("PyTorch against float64", "Jittor against float64")):
            if np.isfinite(values).any():
                axes.plot(place, lift(values), color=INK[ink], lw=0.7 if dense else 1.3, ls="-" if ink == "ref" else "--", label=text)
        if np.isfinite(inherited).any():
            axes.plot(place, lift(inherited), color=INK["inherited"], lw=0.7 if dense else 1, alpha=0.8, label="whole run (inherited)")
        titles = {}
        if np.isfinite(own).any():
            points = axes.scatter(place, lift(own), s=7 if dense else 13, color=INK["own"], zorder=4, lw=0, label="own error")
            titles = _link(points, rows, own)
        _mark_failures(axes, rows, place, lift(np.where(np.isfinite(own), own, inherited)), top)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"1e{round(math.log10(value))}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set_ylim(zero / 2, top)
        axes.set_xlim(-0.5, max(len(rows) - 0.5, 0.5))
        axes.set_xlabel("order of execution")
        axes.set_ylabel("absolute error (float64 lines: RMS)")
        axes.grid(axis="y", color=INK["grid"], lw=0.7)
        axes.set_axisbelow(True)
        for position, word in _groups(rows):
            if position:
                axes.axvline(position - 0.5, color=INK["muted"], lw=0.6, ls=":")
            if not word:
                continue
            axes.text(position, 1.01, word, transform=axes.get_xaxis_transform(), fontsize=9, color=INK["muted"])
        if (every == 0).any():
            axes.text(-0.006, zero, "exactly 0", transform=axes.get_yaxis_transform(), fontsize=8, color=INK["muted"], va="center", ha="right")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.06), ncols=7, fontsize=9, handlelength=1.4, columnspacing=1.2)
        return to_svg(figure, titles)


def _link(points, rows: list[Row], own: np.ndarray) -> dict[str, str]:
    """Make every point a link to its row; returns the hover texts."""
    if len(rows) > MAX_LINKS:
        return {}
    points.set_urls([f"#{row.anchor}" for row in rows])
    return {f"#{row.anchor}": _escape(f"{row.name}: {value:.1e}") for row, value in zip(rows, own)}


def _mark_failures(axes, rows: list[Row], place: np.ndarray, height: np.ndarray, top: float) -> None:
    """Crosses on failing rows, and the name of the first."""
    bad = np.array([row.bad for row in rows])
    if not bad.any():
        return
    level = np.where(np.isfinite(height), height, top / 3)
    axes.scatter(place[bad], level[bad], s=70, marker="x", color=INK["bad"], lw=1.8, zorder=5, label="fails")
    first = int(np.argmax(bad))
    right = first > len(rows) * 0.6
    name = rows[first].name if len(rows[first].name) <= 60 else rows[first].name[:59] + "…"
    axes.annotate(
        name, (place[first], level[first]), xytext=(-9 if right else 9, 8), textcoords="offset points",
        ha="right" if right else "left", fontsize=10, color=INK["bad"],
        bbox={"facecolor": INK["card"], "edgecolor": "none", "alpha": 0.8, "pad": 1.5}, zorder=6,
    )  # fmt: skip


def _phases(stats: dict) -> list[tuple[str, float]]:
    """(phase, median ms) in the usual order; one nameless phase when only the whole was timed."""
    found = []
    for name, value in as_dict(stats.get("phases")).items():
        number = as_number(value.get("median_ms")) if isinstance(value, dict) else as_number(value)
        if number is not None and math.isfinite(number) and number >= 0:
            found.append((name, number))
    found.sort(key=lambda pair: PHASES.index(pair[0]) if pair[0] in PHASES else len(PHASES))
    whole = as_number(stats.get("median_ms"))
    return found or ([("", whole)] if whole is not None and math.isfinite(whole) else [])


def speed_bars(fps: dict) -> str | None:
    """SVG of the time of one image, by phase, with the spread p20 to p80 of the whole; None without times."""
    sides = [(side, as_dict(fps.get(side))) for side in SIDES]
    sides = [(side, stats, _phases(stats)) for side, stats in sides if _phases(stats)]
    if not sides:
        return None
    import matplotlib

    with matplotlib.rc_context(settings_of("speed")):
        figure = figure_of(11, 0.9 + 0.62 * len(sides))
        axes = figure.add_axes((0.075, 0.42, 0.90, 0.56))
        reach = max(sum(time for _, time in phases) for _, _, phases in sides)
        for row, (side, stats, phases) in enumerate(sides):
            left = 0.0
            for number, (name, time) in enumerate(phases):
                alpha = PHASE_ALPHA[min(number, len(PHASE_ALPHA) - 1)]
                axes.barh(row, time, left=left, height=0.5, color=INK["ref" if side == "pytorch" else "cand"], alpha=alpha, lw=0)
                if time > reach * 0.012 * len(name):
                    axes.text(left + time / 2, row, f"{name} {time:.1f}", ha="center", va="center", fontsize=9)
                left += time
            low, high = as_number(stats.get("p20_ms")), as_number(stats.get("p80_ms"))
            if low is not None and high is not None and 0 <= low <= high < math.inf:
                axes.plot([low, high], [row + 0.36, row + 0.36], color=INK["ink"], lw=1.4, marker="|", ms=7)
        axes.set_yticks(range(len(sides)), [SIDE_NAMES[side] for side, _, _ in sides])
        axes.tick_params(axis="y", labelcolor=INK["ink"], length=0)
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds for one image (black line: p20 to p80 of the whole)")
        axes.grid(axis="x", color=INK["grid"], lw=0.7)
        axes.set_axisbelow(True)
        return to_svg(figure)

"""``--recommend-tolerances``: what the floors measured in one comparison recommend for tests elsewhere, for each kind of module and each stage.

A recommendation is for people who must write a number into a test of their own. This package does not use it: every comparison here measures its floors anew.

    rtol = MARGIN x 2 x the largest floor, relative to the largest magnitude of its tensor
    atol = rtol x the magnitude of a typical tensor of the kind (the median of their largest values)

so that ``|cand - ref| <= atol + rtol x |ref|`` holds for every element of an honest port, small elements included. Both are rounded up to one digit.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

from alignment.noise import FACTOR, MARGIN
from alignment.result import Result, TensorResult, write_json
from reports import save_text

COLUMNS = ("kind", "tensors", "largest floor, relative", "under", "port, relative", "rtol", "atol", "headroom", "worst floor at")


def rounded_up(value: float) -> float:
    """The next number of one significant digit."""
    if value <= 0:
        return 0.0
    digit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / digit * (1 - 1e-12)) * digit:.0e}")


def relative(row: TensorResult, error: float | None) -> float:
    return error / row.scale if error is not None and row.scale else 0.0


def one(kind: str, rows: list[TensorResult]) -> dict[str, Any]:
    """The recommendation of a kind, from its rows with their floors; `port` is the largest difference of this very comparison."""
    worst = max(rows, key=lambda row: relative(row, row.floor))
    floor, magnitude = relative(worst, worst.floor), median(row.scale for row in rows)
    port = max(relative(row, row.max_abs) for row in rows)
    rtol = rounded_up(MARGIN * FACTOR * floor)
    return {"kind": kind, "tensors": len(rows), "floor": floor, "under": worst.floor_from, "worst": worst.name_ref, "magnitude": magnitude, "port": port,
            "rtol": rtol, "atol": rounded_up(rtol * magnitude), "margin": MARGIN, "headroom": rtol / port if port else None,
            "passes": all(row.max_abs <= rtol * (magnitude + row.scale) for row in rows)}


def recommend(result: Result) -> list[dict[str, Any]]:
    """One entry for each type of module, by its own error, then one for each whole stage and each decoded output."""
    kinds: dict[str, list[TensorResult]] = {}
    for row in result.rows():
        if row.floor is None or row.max_abs is None or not row.scale or row.tolerance_source == "exact":
            continue
        kinds.setdefault(row.module_type if row.refed else f"stage {row.name_ref.split('/')[0] if row.stage != 'decode' else row.name_ref}", []).append(row)
    return [one(kind, rows) for kind, rows in sorted(kinds.items(), key=lambda item: (item[0].startswith("stage "), item[0]))]


def table(entries: list[dict[str, Any]]) -> list[list[str]]:
    return [[e["kind"], str(e["tensors"]), f"{e['floor']:.1e}", e["under"], f"{e['port']:.1e}", f"{e['rtol']:.0e}", f"{e['atol']:.0e}",
             "no difference" if e["headroom"] is None else f"{e['headroom']:.1f} x", e["worst"]] for e in entries]


def reasoning(result: Result) -> list[str]:
    about = result.parts["floors"]
    circumstances = "; ".join(f"{k} {v}" for k, v in about.items() if k != "changes")
    return [
        f"rtol is {MARGIN:g} (margin) x {FACTOR:g} (each side may lie one floor from float64) x the largest floor of the kind, relative to the largest magnitude of its tensor.",
        "atol is rtol at the typical magnitude of the kind, so that small elements may be off by what rounding of large ones makes of them. Both are rounded up to one digit.",
        f"Floors were measured on one input under: as is, {', '.join(about['changes'])}; against float64; {circumstances}.",
        "Another machine, other weights or other inputs have other floors; the margin is for them. Where a test has to be sharper, measure the floor in it.",
        "Headroom is rtol over the largest relative difference of the port seen here.",
    ]


def write(folder: Path, result: Result, verbosity: int = 0) -> list[dict[str, Any]]:
    """``tolerances.json`` and ``tolerances.md`` in `folder`, and the table on standard output; returns the entries."""
    entries = recommend(result)
    words = reasoning(result)
    write_json(folder / "tolerances.json", {"tolerances": entries, "reasoning": words, "circumstances": result.parts["floors"], "versions": result.versions, "hashes": result.hashes})
    rows = table(entries)
    lines = ["# Recommended tolerances", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", *(f"| {' | '.join(row)} |" for row in rows), "", *(f"* {word}" for word in words)]
    save_text(folder / "tolerances.md", "\n".join(lines) + "\n")
    if verbosity >= 0:
        widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]
        for row in (COLUMNS, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        print(f"written: {folder / 'tolerances.md'} and {folder / 'tolerances.json'}")
    return entries

"""Floors of a training step that measured none of its own: the largest relative ones of its regime, halved.

Measuring the floors of a step costs several runs of the reference. They are measured at the first step of each regime, at every Kth after it, and at every step
that does not pass without. In between a step has to keep to a share (`INHERITED_SHARE`) of the largest floor measured so far, relative to the tensor's magnitude
in this very step. What passes so would pass by its own floor too, unless that one were smaller still; what does not is judged by its own floor, which is then measured.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from alignment.noise import INHERITED_SHARE, ROUNDING_SHARE

_IMAGE = re.compile(r"^assigned/\d+/")


def key(name: str) -> str:
    """Images have no identity from step to step: their floors are one pool."""
    return _IMAGE.sub("assigned/*/", name)


class Pool:
    """The floors measured in one regime, by name."""

    def __init__(self) -> None:
        self.largest: dict[str, dict[str, Any]] = {}

    def add(self, floors: dict[str, dict[str, Any]]) -> None:
        """`floors`: name to the fields of a `Floor`, as the reference writes them."""
        for name, floor in floors.items():
            scale = floor["scale"]
            kept = self.largest.setdefault(key(name), {"max_abs": 0.0, "rmse": 0.0, "relative": 0.0, "relative_rmse": 0.0, "noise": False, "repeats": floor["repeats"],
                                                       "circumstances": tuple(floor.get("circumstances", ()))})
            kept["max_abs"], kept["rmse"] = max(kept["max_abs"], floor["max_abs"]), max(kept["rmse"], floor["rmse"])
            kept["repeats"] = min(kept["repeats"], floor["repeats"])
            if floor["max_abs"] > 0 and floor["max_abs"] >= ROUNDING_SHARE * scale:
                kept["noise"] = True  # nothing but rounding: no magnitude to be relative to
            elif scale > 0:
                kept["relative"] = max(kept["relative"], floor["max_abs"] / scale)
                kept["relative_rmse"] = max(kept["relative_rmse"], floor["rmse"] / scale)

    def floors(self, found: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
        """Fields of a `Floor` for every floating tensor of a step whose name was measured before."""
        given = {}
        for name, array in found.items():
            kept = self.largest.get(key(name))
            if kept is None or array.dtype.kind != "f" or array.size == 0 or not np.isfinite(array).all():
                continue
            scale = float(np.abs(array).max())
            spread, rmse = (kept["max_abs"], kept["rmse"]) if kept["noise"] else (kept["relative"] * scale, kept["relative_rmse"] * scale)
            given[name] = {"max_abs": INHERITED_SHARE * spread, "rmse": INHERITED_SHARE * rmse, "scale": scale, "size": array.size, "dtype": str(array.dtype),
                           "repeats": kept["repeats"], "circumstances": kept["circumstances"]}
        return given


__all__ = ["Pool", "key"]

"""The measured noise floor, and the tolerances derived from it. The only file that holds numbers by which equality is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FACTOR = 2.0
MIN_REPEATS = 2
WIDEST_BOUND = 1e-3
OWN_REL_L2_CAP = 1e-5
FLOAT64_RATIO = 2.0


@dataclass(frozen=True)
class Floor:
    """Spread of one tensor under harmless changes. `max_abs`, `rmse`: against float64; `channel_rmse`: (C,) or None; `scale`: largest magnitude."""

    max_abs: float
    rmse: float
    channel_rmse: tuple[float, ...] | None
    channel_scale: tuple[float, ...] | None
    channel_axis: int | None
    channel_size: int
    scale: float
    dtype: str
    repeats: int
    circumstances: tuple[str, ...]


@dataclass(frozen=True)
class Tolerance:
    """What one tensor must keep to. `bound`: largest |cand - ref| of any element. Immutable; made by `tolerance_from_floor` or `exact`."""

    bound: float
    source: str
    floor: float
    channel_bound: tuple[float, ...] | None = None
    channel_axis: int | None = None
    rel_l2_cap: float | None = None
    float64_ratio: float | None = None
    float64_minimum: float = 0.0
    undecidable: str = ""


def measure_floor(ref64: np.ndarray, variants: Sequence[np.ndarray], circumstances: Sequence[str] = (), *, channel_axis: int | None = 1) -> Floor:
    """Floor of one tensor: `ref64` is the float64 run, `variants` fp32 runs under harmless changes, one word of `circumstances` for each."""
    raise NotImplementedError


def tolerance_from_floor(floor: Floor, *, factor: float = FACTOR, rel_l2_cap: float | None = None, float64_ratio: float | None = None) -> Tolerance:
    """``bound = max(factor x floor, one ULP at the tensor's largest magnitude)``."""
    raise NotImplementedError

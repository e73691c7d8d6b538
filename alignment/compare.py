"""Pure comparison: arrays in, `TensorResult` out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignment.noise import Floor, Tolerance
from alignment.result import TensorResult


def compare_tensors(
    name: str, ref: np.ndarray, cand: np.ndarray, *, tolerance: Tolerance | None = None, ref64: np.ndarray | None = None, floor: Floor | None = None,
    exact: bool = False, name_cand: str | None = None, match_method: str = "exact", stage: str = "forward", step: int | None = None,
    allow_0d_as_1d: bool = False,
) -> TensorResult:
    """Judge one pair. Integer and boolean arrays are always compared exactly."""
    raise NotImplementedError


def compare_bundles(
    ref: Mapping[str, np.ndarray], cand: Mapping[str, np.ndarray], tolerances: Mapping[str, Tolerance], *, ref64: Mapping[str, np.ndarray] | None = None,
    names: Mapping[str, str] | None = None, only: str | None = None, exact: frozenset[str] = frozenset(), stage: str = "forward",
    allow_0d_as_1d: bool = False,
) -> list[TensorResult]:
    """One row for each tensor, in the reference's order; `Bundle` is such a mapping, a dict of arrays too."""
    raise NotImplementedError

"""The names of everything that can be wrong, and of the verdicts.

One fault, one name: a red result says *which* check turned it red, so that no two planted faults look alike in a report.
"""

from __future__ import annotations

from enum import Enum


class Verdict(str, Enum):
    """Verdict of one row or of a whole result. `WARN` and `SKIP` occur on rows only."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not_comparable"

    def __str__(self) -> str:
        return self.value


class Gate(str, Enum):
    """The check that decided, in the order in which `alignment.compare` makes them."""

    KEYS = "keys"
    COUNT = "count"
    DTYPE = "dtype"
    SHAPE = "shape"
    SIZE = "size"
    FINITE = "finite"
    BOUND = "bound"
    CHANNEL = "channel_rmse"
    REL_L2 = "rel_l2_cap"
    FLOAT64 = "float64_ratio"
    EXACT = "exact"
    RUN = "run"

    def __str__(self) -> str:
        return self.value


class Reason(str, Enum):
    """Why a row or a run has its verdict. The value is what stands in ``result.json``."""

    OK = "ok"
    # Which tensors there are.
    MISSING = "missing"
    EXTRA = "extra"
    RENAMED = "renamed"
    SHORTER = "shorter"
    LONGER = "longer"
    NOTHING_COMPARED = "nothing_compared"
    FILTER_MATCHED_NOTHING = "filter_matched_nothing"
    # What they are.
    DTYPE = "dtype"
    SHAPE = "shape"
    BROADCAST = "broadcast"
    EMPTY = "empty"
    NOT_FINITE_REF = "not_finite_ref"
    NOT_FINITE_CAND = "not_finite_cand"
    NOT_FINITE_BOTH = "not_finite_both"
    # How their values differ. `BEYOND_TOLERANCE` is what remains when no more telling pattern was recognised.
    BEYOND_TOLERANCE = "beyond_tolerance"
    CHANNEL_BEYOND_TOLERANCE = "channel_beyond_tolerance"
    ABOVE_REL_L2_CAP = "above_rel_l2_cap"
    LESS_ACCURATE = "less_accurate"
    NOT_EXACT = "not_exact"
    TRANSPOSED = "transposed"
    REVERSED = "reversed"
    CHANNELS_PERMUTED = "channels_permuted"
    PERMUTED = "permuted"
    SIGN_FLIPPED = "sign_flipped"
    CONSTANT_SCALE = "constant_scale"
    CONSTANT_OFFSET = "constant_offset"
    CHANNEL_AFFINE = "channel_affine"
    NEGATIVE_SIDE = "negative_side"
    ALL_ZERO = "all_zero"
    SATURATED = "saturated"
    LOW_PRECISION = "low_precision"
    BORDER_ONLY = "border_only"
    ISOLATED = "isolated"
    ONE_SIDED = "one_sided"
    # What could not be decided.
    NO_TOLERANCE = "no_tolerance"
    FLOOR_TOO_WIDE = "floor_too_wide"
    TOO_FEW_REPEATS = "too_few_repeats"
    COVERAGE = "coverage"
    # Whether the run itself can be believed.
    SCHEMA = "schema"
    KIND = "kind"
    CONFIG_DIFFERS = "config_differs"
    WEIGHTS_DIFFER = "weights_differ"
    INPUTS_DIFFER = "inputs_differ"
    SEED_DIFFERS = "seed_differs"
    FLAGS_DIFFER = "flags_differ"
    UNHASHED = "unhashed"
    SAME_RUN = "same_run"
    STALE = "stale"
    INCOMPLETE = "incomplete"
    ALTERED = "altered"
    NOT_CHECKED = "not_checked"
    CHECKED_TWICE = "checked_twice"
    TOLERANCE_CHANGED = "tolerance_changed"
    CHILD_FAILED = "child_failed"
    NOT_RUN = "not_run"
    OBSERVER_CHANGED_RESULT = "observer_changed_result"
    # Structure and detections.
    STRUCTURE_DIFFERS = "structure_differs"
    UNEXPLAINED_DETECTIONS = "unexplained_detections"
    METRIC_DIFFERS = "metric_differs"
    # Jittor's operators (`alignment.ops`).
    OPERATOR_DIFFERS = "operator_differs"
    OPERATOR_MISSING = "operator_missing"
    OPERATOR_CRASHES = "operator_crashes"
    # A report and what lies behind it (`alignment.verify`).
    NOT_REPRODUCED = "not_reproduced"
    PICTURE_DIFFERS = "picture_differs"
    PAGE_DIFFERS = "page_differs"

    def __str__(self) -> str:
        return self.value

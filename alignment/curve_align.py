"""Bringing the series of two sides together: which belongs to which, and at which common positions they are compared."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alignment.log_reader import Run, Series, names
from alignment.log_reader.encoding import detect, open_text
from jt_nanodet.errors import UserError


@dataclass(frozen=True)
class Pair:
    """Two series taken for one: their keys (``phase/name``) and how they were matched ("exact", "map" or "spelling")."""

    ref: str
    cand: str
    how: str
    kind: str


@dataclass
class Aligned:
    """The curves of one pair at common positions: `a` (reference runs, n), `b` (candidate runs, n), `x` (n,) on `axis`. `coverage` is the share
    of the longer training that both sides cover; `how` is "same positions", "means per epoch" or "means of stretches". `head` is the beginning of curves
    that were condensed."""

    pair: Pair
    axis: str
    how: str
    x: np.ndarray
    a: np.ndarray
    b: np.ndarray
    coverage: float
    notes: list[str] = field(default_factory=list)
    head: tuple[np.ndarray, np.ndarray] | None = None

    def condense(self, most: int = 50_000, head: int = 20_000) -> None:
        """Replace very long curves by means of neighbouring lines, at most `most` of them; the first `head` lines are kept as they were."""
        group = -(-len(self.x) // most)
        if group < 2:
            return
        self.head = (self.a[:, :head].copy(), self.b[:, :head].copy())
        count = len(self.x) // group
        mean = lambda rows: np.ascontiguousarray(rows[..., : count * group].reshape(*rows.shape[:-1], count, group).mean(-1))  # noqa: E731
        self.x, self.a, self.b = mean(self.x), mean(self.a), mean(self.b)


def read_map(path: Path) -> dict[str, str]:
    """Read a map file: one ``pytorch_name: jittor_name`` a line (also ``=`` or ``->``), ``#`` starts a comment.

    UserError for a line of another form or a name given twice.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; check the path after --map.")
    with open_text(path, detect(path)) as file:
        lines = file.read().splitlines()
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        line = line.split("#")[0].strip()
        if not line or line in "{}":
            continue
        parts = [part.strip().strip("\"',") for part in re.split(r"\s*(?:->|↔|=|:\s|:$|\":)\s*", line, maxsplit=1)]
        if len(parts) != 2 or not all(parts):
            raise UserError(f"line {number} of {path} is {line!r}; write `pytorch_name: jittor_name`, one pair a line.")
        if parts[0] in found or parts[1] in found.values():
            raise UserError(f"line {number} of {path} maps a name for the second time ({line!r}); give every name once.")
        found[parts[0]] = parts[1]
    if not found:
        raise UserError(f"{path} holds no pair of names; write `pytorch_name: jittor_name`, one pair a line.")
    return found


def _lookup(name: str, keys: list[str], path: str) -> list[str]:
    hits = [key for key in keys if key == name or key.split("/", 1)[1] == name]
    if not hits:
        raise UserError(f"the map names {name!r}, which is in no {path} log (there are {', '.join(keys[:12])}); correct the map file.")
    return hits


def pair_series(ref: list[Run], cand: list[Run], mapping: dict[str, str] | None = None) -> tuple[list[Pair], list[str], list[str]]:
    """(pairs, keys only in the reference, keys only in the candidate). First the map, then equal names, then names that differ in spelling only.

    A spelling shared by two series of a side pairs nothing. A series must be in every run of its side; else it counts as only in the other.
    UserError when the map names a series that is not there.
    """
    keys_a, keys_b = (_common_keys(runs) for runs in (ref, cand))
    pairs: list[Pair] = []
    for name_a, name_b in (mapping or {}).items():
        for key_a in _lookup(name_a, keys_a, "PyTorch"):
            hits = [key for key in _lookup(name_b, keys_b, "Jittor") if "/" in name_b or key.split("/")[0] == key_a.split("/")[0]]
            pairs += [Pair(key_a, key, "map", _kind(ref, key_a)) for key in hits]
    _drop(pairs, keys_a, keys_b)
    exact = [Pair(key, key, "exact", _kind(ref, key)) for key in keys_a if key in keys_b]
    _drop(exact, keys_a, keys_b)
    forms_a, forms_b = (_forms(keys) for keys in (keys_a, keys_b))
    alike = [Pair(forms_a[f][0], forms_b[f][0], "spelling", _kind(ref, forms_a[f][0]))
             for f in forms_a if f in forms_b and len(forms_a[f]) == len(forms_b[f]) == 1]
    _drop(alike, keys_a, keys_b)
    # One side logs by epoch only, the other sums its steps up once an epoch.
    swap = {"epoch": "train", "train": "epoch"}
    across = []
    for key in keys_a:
        phase, name = key.split("/", 1)
        other = f"{swap.get(phase)}/{name}"
        if other in keys_b:
            across.append(Pair(key, other, "exact", _kind(ref, key)))
    _drop(across, keys_a, keys_b)
    return pairs + exact + alike + across, keys_a, keys_b


def _common_keys(runs: list[Run]) -> list[str]:
    return [key for key in runs[0].series if all(key in run.series for run in runs)]


def _kind(runs: list[Run], key: str) -> str:
    return runs[0].series[key].kind


def _drop(pairs: list[Pair], keys_a: list[str], keys_b: list[str]) -> None:
    for pair in pairs:
        if pair.ref in keys_a:
            keys_a.remove(pair.ref)
        if pair.cand in keys_b:
            keys_b.remove(pair.cand)


def _forms(keys: list[str]) -> dict[tuple[str, str], list[str]]:
    forms: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        phase, name = key.split("/", 1)
        forms.setdefault((phase, names.canonical(name)), []).append(key)
    return forms


def align(pair: Pair, ref: list[Run], cand: list[Run]) -> Aligned | str:
    """The curves of `pair` at common positions, or, as text, why there are none."""
    side_a = [run.series[pair.ref] for run in ref]
    side_b = [run.series[pair.cand] for run in cand]
    found = _align(pair, side_a, side_b, ref, cand, None)
    if pair.ref.startswith("val/") and not (isinstance(found, Aligned) and found.how == "same positions") and all(
        s.axis("epoch") is not None for s in side_a + side_b
    ):
        # Validation passes of unlike length have no line in common, but the same epochs.
        by_epoch = _align(pair, side_a, side_b, ref, cand, "epoch")
        found = by_epoch if isinstance(by_epoch, Aligned) and by_epoch.how != "means of stretches" else found
    return found


def _align(pair: Pair, side_a: list[Series], side_b: list[Series], ref: list[Run], cand: list[Run], axis: str | None) -> Aligned | str:
    notes: list[str] = []
    axis = axis or _axis(side_a, side_b, pair.kind, {run.steps_per_epoch for run in ref + cand} - {None})
    swapped = None
    if axis is None or axis == "step" and pair.kind == "metric" and not _meet(side_a, side_b):
        swapped = _steps_are_epochs(side_a, side_b)
    if axis is None or swapped is not None:
        if swapped is None:
            return "one side counts steps and the other epochs, and neither says how long an epoch is"
        axis, points_a, points_b = "epoch", *swapped
        notes.append("the steps of one side coincide with the epochs of the other and are read as epochs")
    else:
        points_a = [(s.axis(axis), s.value) for s in side_a]
        points_b = [(s.axis(axis), s.value) for s in side_b]
    if axis == "epoch":
        points_a, points_b = [_per_epoch(*p) for p in points_a], [_per_epoch(*p) for p in points_b]
        points_a, points_b = _shift_epochs(points_a, points_b, notes)
    covered = coverage([x for x, _ in points_a], [x for x, _ in points_b])
    everything = points_a + points_b
    shortest = min(len(x) for x, _ in everything)
    common = everything[0][0]
    for x, _ in everything[1:]:
        common = common if x is common or np.array_equal(common, x) else np.intersect1d(np.round(common, 6), np.round(x, 6), assume_unique=True)
    if len(common) >= max(1, 0.5 * shortest):
        a, b = (np.stack([_at(common, *p) for p in points]) for points in (points_a, points_b))
        how = "means per epoch" if axis == "epoch" and any(len(s) > len(common) for s in side_a + side_b) else "same positions"
        return Aligned(pair, axis, how, common, a, b, covered, notes)
    if shortest < 16:
        return f"only {len(common)} positions are on both sides"
    return _stretches(pair, axis, points_a, points_b, shortest, covered, notes)


def _axis(side_a: list[Series], side_b: list[Series], kind: str, lengths: set[int]) -> str | None:
    order = ["epoch", "step"] if kind == "metric" else ["step", "epoch"]
    if kind != "metric" and len(lengths) > 1:
        # Epochs of unlike length (another batch size): the same step is another point of the training.
        order = ["epoch", "step"]
    return next((axis for axis in order if all(s.axis(axis) is not None for s in side_a + side_b)), None)


def _meet(side_a: list[Series], side_b: list[Series]) -> bool:
    """Whether the two sides have at least one step in common."""
    return bool(set(side_a[0].step.tolist()) & set(side_b[0].step.tolist()))


def _steps_are_epochs(side_a: list[Series], side_b: list[Series]):
    """Event files count results in epochs and call them steps. Believed only when the numbers themselves coincide."""
    has_a = all(s.axis("epoch") is not None for s in side_a)
    with_epoch, with_step = (side_a, side_b) if has_a else (side_b, side_a)
    if any(s.axis("epoch") is None for s in with_epoch) or any(s.axis("step") is None for s in with_step):
        return None
    epochs = set(np.concatenate([s.epoch for s in with_epoch]).tolist())
    steps = np.concatenate([s.step for s in with_step]).tolist()
    if sum(step in epochs for step in steps) < 0.8 * len(steps):
        return None
    by_epoch = [(s.epoch, s.value) for s in with_epoch]
    by_step = [(s.step, s.value) for s in with_step]
    return (by_epoch, by_step) if has_a else (by_step, by_epoch)


def _per_epoch(x: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) < 2 or (np.diff(x) > 0).all():
        return x, value
    unique, inverse = np.unique(x, return_inverse=True)
    return unique, np.bincount(inverse, value) / np.bincount(inverse)


def _shift_epochs(points_a: list, points_b: list, notes: list[str]):
    """Epochs counted from 0 on one side and from 1 on the other: the former move up by one."""
    first_a, first_b = (min(float(x.min()) for x, _ in points) for points in (points_a, points_b))
    last_a, last_b = (max(float(x.max()) for x, _ in points) for points in (points_a, points_b))
    if {first_a, first_b} == {0.0, 1.0} and last_b - last_a == first_b - first_a:
        side = "reference" if first_a == 0 else "candidate"
        notes.append(f"the {side} counts epochs from 0; they are moved up by one")
        if first_a == 0:
            points_a = [(x + 1, v) for x, v in points_a]
        else:
            points_b = [(x + 1, v) for x, v in points_b]
    return points_a, points_b


def _at(common: np.ndarray, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    return value if len(common) == len(x) else value[np.clip(np.searchsorted(x, common - 1e-6), 0, len(x) - 1)]


def _stretches(pair: Pair, axis: str, points_a: list, points_b: list, shortest: int, covered: float, notes: list[str]) -> Aligned | str:
    low = max(float(x[0]) for x, _ in points_a + points_b)
    high = min(float(x[-1]) for x, _ in points_a + points_b)
    if high <= low:
        return "the two sides have no stretch of the training in common"
    edges = np.linspace(low, high, min(256, max(8, shortest // 4)) + 1)
    means = []
    for x, value in points_a + points_b:
        inside = (x >= low) & (x <= high)
        which = np.clip(np.searchsorted(edges, x[inside], side="right") - 1, 0, len(edges) - 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(np.bincount(which, value[inside], len(edges) - 1) / np.bincount(which, minlength=len(edges) - 1))
    filled = np.all([np.bincount(np.clip(np.searchsorted(edges, x[(x >= low) & (x <= high)], side="right") - 1, 0, len(edges) - 2),
                                 minlength=len(edges) - 1) > 0 for x, _ in points_a + points_b], axis=0)
    middle = (edges[:-1] + edges[1:]) / 2
    rows = np.stack(means)[:, filled]
    return Aligned(pair, axis, "means of stretches", middle[filled], rows[: len(points_a)], rows[len(points_a):], covered, notes)


def coverage(side_a: list[np.ndarray], side_b: list[np.ndarray]) -> float:
    """The share of the longer training that every run of both sides covers. A point covers three quarters of a usual distance to each side, so a
    wider interval between lines costs nothing and a missing piece does."""
    everything = side_a + side_b
    if all(x is everything[0] or np.array_equal(x, everything[0]) for x in everything[1:]):
        return 1.0
    low, high = min(float(x[0]) for x in everything), max(float(x[-1]) for x in everything)
    if high <= low:
        return 1.0
    grid = np.linspace(low, high, 4001)
    masks = []
    for x in everything:
        reach = 0.75 * float(np.median(np.diff(x))) if len(x) > 1 else 0.0
        after = np.clip(np.searchsorted(x, grid), 0, len(x) - 1)
        near = np.minimum(np.abs(x[after] - grid), np.abs(grid - x[np.maximum(after - 1, 0)]))
        masks.append(near <= reach)
    return float(np.all(masks, axis=0).sum() / max(1, np.any(masks, axis=0).sum()))

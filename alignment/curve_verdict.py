"""From two sides of runs to one verdict on the training: `compare_sides`.

Facts (a learning rate that is another, a NaN, another number of epochs) settle themselves; curves and metrics go through `alignment.curves`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from alignment.curve_align import Aligned, Pair, align, pair_series
from alignment.curve_metrics import is_primary, metric_hypotheses
from alignment.curves import (
    CANNOT_TELL, DIFFERENT, Hypothesis, Policy, compare_means, first_leave, judge, local_level, noise_correlation, runs_needed,
)
from alignment.log_reader import Run, names
from jt_nanodet.errors import UserError


@dataclass
class Comparison:
    """Everything `compare_sides` found. `facts` are differences that need no statistics, `holds` are reasons why "equivalent" may not be said."""

    verdict: str
    hypotheses: list[Hypothesis]
    pairs: list[Pair]
    aligned: dict[str, Aligned]
    bands: dict[str, dict]
    facts: list[dict] = field(default_factory=list)
    holds: list[dict] = field(default_factory=list)
    only_ref: list[str] = field(default_factory=list)
    only_cand: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    metrics: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs_needed: tuple[int | None, str] | None = None
    pairing: float = 0.0
    first_difference: dict | None = None
    details: bool = True


def compare_sides(
    ref: list[Run], cand: list[Run], policy: Policy, mapping: dict[str, str] | None = None, ignore: tuple[str, ...] = (), *, details: bool = True
) -> Comparison:
    """Compare the runs of the reference with those of the candidate.

    UserError when the map names a series that is not there, or when two runs of a side are one and the same.

    Without `details` there are no bands, no first difference and no number of runs needed; the verdict is the same.
    """
    ref, cand = _by_seed(ref, cand)
    if details:
        for runs in (ref, cand):
            _independent(runs)
    pairs, only_a, only_b = pair_series(ref, cand, mapping)
    found = Comparison(CANNOT_TELL, [], pairs, {}, {})
    skip = lambda key: key in ignore or key.split("/", 1)[1] in ignore  # noqa: E731
    found.ignored = [k for k in (*only_a, *only_b, *(p.ref for p in pairs)) if skip(k)]
    found.pairs = [p for p in pairs if not skip(p.ref) and not skip(p.cand)]
    found.only_ref, found.only_cand = [k for k in only_a if not skip(k)], [k for k in only_b if not skip(k)]
    for pair in found.pairs:
        one = align(pair, ref, cand)
        if isinstance(one, str):
            found.holds.append({"code": "not_aligned", "name": pair.ref, "text": f"{pair.ref} could not be aligned: {one}"})
            continue
        found.notes += [note for note in one.notes if note not in found.notes]
        _finite(one, found)
        if pair.kind != "lr":
            one.condense()
        if one.x.size:
            found.aligned[pair.ref] = one
    _schedule(ref, cand, found)
    _coverage(found, policy)
    _unpaired(ref, cand, found)
    found.details = details
    hypotheses = _losses(found, policy)
    metrics, found.metrics, notes = metric_hypotheses({k: v for k, v in found.aligned.items() if v.pair.kind == "metric"}, policy, found.pairing)
    hypotheses, found.notes = hypotheses + metrics, found.notes + notes
    statistics, found.hypotheses = judge(hypotheses, policy.alpha)
    found.verdict = DIFFERENT if found.facts or statistics == DIFFERENT else CANNOT_TELL if found.holds else statistics
    if details:
        _needed(found, policy)
        _first(found)
    return found


def _by_seed(ref: list[Run], cand: list[Run]) -> tuple[list[Run], list[Run]]:
    """Both sides in the order of their seeds, when the logs state the same seeds; runs that may be in lockstep then meet."""
    seeds = [[run.seed for run in side] for side in (ref, cand)]
    if None in seeds[0] or sorted(seeds[0]) != sorted(s for s in seeds[1] if s is not None) or len(set(seeds[0])) < len(seeds[0]):
        return ref, cand
    return sorted(ref, key=lambda run: run.seed), sorted(cand, key=lambda run: run.seed)


def _independent(runs: list[Run]) -> None:
    """UserError when two runs of a side have their noise in common: as two seeds they would make the spread between seeds look small."""
    for i, one in enumerate(runs):
        for other in runs[:i]:
            for key, series in one.series.items():
                twin = other.series.get(key)
                if series.kind != "loss" or series.phase != "train" or twin is None or len(twin) != len(series):
                    continue
                same = np.array_equal(series.value, twin.value) and series.value.std() > 0
                if same or noise_correlation(series.value, twin.value) >= Policy.lockstep:
                    raise UserError(f"{one.path} and {other.path} are the same run (their {key} has the same noise) and would count as two seeds; name one of them.")
                break


# -- facts ----------------------------------------------------------------------------------------------------------------------------------------
def _finite(one: Aligned, found: Comparison) -> None:
    """NaN and infinities: on one side they are a difference, on both nobody can tell. The positions leave the statistics."""
    bad_a, bad_b = ~np.isfinite(one.a).all(0), ~np.isfinite(one.b).all(0)
    if not (bad_a.any() or bad_b.any()):
        return
    alone = (bad_a != bad_b)
    at = float(one.x[np.flatnonzero(alone if alone.any() else bad_a)[0]])
    if alone.any():
        side = "candidate" if (bad_b & alone)[np.flatnonzero(alone)[0]] else "reference"
        found.facts.append({"code": "not_finite", "name": one.pair.ref, "at": at, "axis": one.axis, "side": side,
                            "text": f"{one.pair.ref} is not a number on the {side}'s side only, first at {one.axis} {at:g}"})
    else:
        found.holds.append({"code": "not_finite_both", "name": one.pair.ref, "text": f"{one.pair.ref} is not a number on both sides from {one.axis} {at:g}"})
    keep = ~(bad_a | bad_b)
    one.x, one.a, one.b = one.x[keep], one.a[:, keep], one.b[:, keep]


def rounding(values: np.ndarray) -> float:
    """Half a unit in the last of the significant digits that `values` were written with, as a fraction of the leading digit's unit."""
    sample = np.unique(values[np.isfinite(values) & (values != 0)])[:500]
    for digits in range(1, 13):
        if all(float(f"{v:.{digits - 1}e}") == v for v in sample):
            return 0.5 * 10.0 ** (1 - digits)
    return 0.0


def _schedule(ref: list[Run], cand: list[Run], found: Comparison) -> None:
    for what, text in (("total_epochs", "epochs in all"), ("steps_per_epoch", "steps an epoch")):
        a, b = ({getattr(run, what) for run in side} - {None} for side in (ref, cand))
        if a and b and a != b:
            found.facts.append({"code": "schedule", "name": what, "text": f"the reference has {_list(a)} {text}, the candidate {_list(b)}"})
    for key, one in found.aligned.items():
        if one.pair.kind != "lr" or one.pair.ref.startswith("val") and "train/" + key.split("/", 1)[1] in found.aligned:
            continue
        a, b = one.a.mean(0), one.b.mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = 10.0 ** np.floor(np.log10(np.maximum(np.abs(a), np.abs(b))))
        allowed = 1.02 * (rounding(one.a) + rounding(one.b)) * np.nan_to_num(unit) + 1e-6 * np.abs(a)
        if one.how != "same positions":
            # A mean over a stretch is compared with one over slightly other steps: allow what the schedule moves within a stretch.
            slope = np.abs(np.gradient(a)) if len(a) > 1 else 0.0
            allowed = allowed + slope
        wrong = np.flatnonzero(np.abs(a - b) > allowed)
        if len(wrong):
            at = one.x[wrong[0]]
            found.facts.append({
                "code": "learning_rate", "name": key, "at": float(at), "axis": one.axis, "points": len(wrong),
                "text": f"the learning rate differs at {len(wrong)} of {len(a)} positions, first at {one.axis} {at:g}: {a[wrong[0]]:.4g} against {b[wrong[0]]:.4g}",
            })


def _list(values: set) -> str:
    return " and ".join(str(value) for value in sorted(values))


# -- what stops "equivalent" --------------------------------------------------------------------------------------------------------------------------
def _coverage(found: Comparison, policy: Policy) -> None:
    for key, one in found.aligned.items():
        if one.coverage < policy.min_coverage and not (one.pair.kind == "metric" and not is_primary(key)):
            found.holds.append({"code": "coverage", "name": key,
                                "text": f"both sides cover only {one.coverage:.1%} of {key}; {policy.min_coverage:.0%} is needed"})


def _unpaired(ref: list[Run], cand: list[Run], found: Comparison) -> None:
    for side, runs, keys in (("reference", ref, found.only_ref), ("candidate", cand, found.only_cand)):
        paired = [pair.ref if side == "reference" else pair.cand for pair in found.pairs if pair.kind == "loss"]
        for key in keys:
            phase, name = key.split("/", 1)
            kind = names.kind_of(name)
            if phase == "epoch" or phase == "val" and not (kind == "metric" and is_primary(key)):
                # Shown as not compared. Event files have no validation losses, and mAP says what validation found.
                continue
            if kind == "loss" and _is_sum(runs, key, [other for other in paired if other.startswith(phase + "/")]):
                found.notes.append(f"{key} is on the {side}'s side only; it is the sum of losses that are compared")
            elif kind in ("loss", "lr", "metric"):
                found.holds.append({"code": "unpaired", "name": key, "text": f"{key} is on the {side}'s side only"})


def _is_sum(runs: list[Run], key: str, others: list[str]) -> bool:
    """Whether series `key` is the sum of `others` in every run, up to the four decimals of a log."""
    for run in runs:
        parts = [run.series[other] for other in others]
        whole = run.series[key]
        if len(parts) < 2 or any(len(part) != len(whole) for part in parts):
            return False
        total = sum(part.value for part in parts)
        if not np.nanmax(np.abs(total - whole.value), initial=0.0) <= 1e-4 * (len(parts) + 1) + 1e-5 * np.nanmax(np.abs(whole.value), initial=0.0):
            return False
    return True


# -- curves ------------------------------------------------------------------------------------------------------------------------------------------
def _losses(found: Comparison, policy: Policy) -> list[Hypothesis]:
    train = {k: v for k, v in found.aligned.items() if v.pair.kind == "loss" and k.startswith("train/")}
    val = {k: v for k, v in found.aligned.items() if v.pair.kind == "loss" and k.startswith("val/")}
    other = {k: v for k, v in found.aligned.items() if v.pair.kind == "other"}
    by_epoch = {k: v for k, v in found.aligned.items() if v.pair.kind == "loss" and k.startswith("epoch/")}
    # Sums over an epoch decide only where there is nothing finer.
    train, other = (train, other | by_epoch) if train else (by_epoch, other)
    pairing = {}
    for key, one in train.items():
        if one.how == "same positions" and len(one.a) == len(one.b):
            pairing[key] = _pairing(one, policy.lockstep)
    # Validation lines see the same images in every run, so only training noise can show that two runs are one trajectory.
    found.pairing = float(np.median(list(pairing.values()))) if pairing else 0.0
    total, parts = _total(train)
    val_total, val_parts = _total(val)
    rows: list[Hypothesis] = []
    m = policy.margin_loss
    if total is not None:
        rows += _windows("train/total loss" if total.pair.how == "sum" else total.pair.ref, total, found, policy, pairing.get(total.pair.ref, found.pairing),
                         whole=(m, 0.30, True), quarters=(2 * m, 0.10, True))
        if total.pair.how == "sum":
            found.aligned["train/total loss"] = total
    for key, one in parts.items():
        rows += _windows(key, one, found, policy, min(found.pairing, pairing.get(key, 0.0)),
                         whole=(2 * m, 0.25 / len(parts), True), quarters=(4 * m, 0.10 / len(parts), False))
    if val_total is not None:
        if val_total.pair.how == "sum":
            found.aligned["val/total loss"] = val_total
        rows += _windows("val/total loss" if val_total.pair.how == "sum" else val_total.pair.ref, val_total, found, policy, found.pairing,
                         whole=(2 * m, 0.05, True), quarters=None)
    for key, one in (val_parts | other).items():
        rows += _windows(key, one, found, policy, found.pairing, whole=(4 * m, 0.02 / len(val_parts | other), False), quarters=None)
    return rows


def _pairing(one: Aligned, lockstep: float) -> float:
    """The lowest noise correlation of the pairs of runs, in order; the first pair that is not in lockstep settles it."""
    lowest = 1.0
    for x, y in zip(one.a, one.b):
        lowest = min(lowest, noise_correlation(x, y))
        if lowest < lockstep:
            break
    return lowest


def _total(losses: dict[str, Aligned]) -> tuple[Aligned | None, dict[str, Aligned]]:
    """(the total, its parts). A logged total is used as it is; else the parts are added up where they share their positions."""
    if not losses:
        return None, {}
    stated = next((key for key in losses if names.canonical(key.split("/", 1)[1]) == "loss"), None)
    if stated is not None:
        return losses[stated], {k: v for k, v in losses.items() if k != stated}
    first = next(iter(losses.values()))
    if any(not np.array_equal(one.x, first.x) for one in losses.values()):
        x = first.x
        for one in losses.values():
            x = np.intersect1d(x, one.x)
        if not len(x):
            return None, losses
    else:
        x = first.x
    pick = lambda one: slice(None) if len(one.x) == len(x) else np.searchsorted(one.x, x)  # noqa: E731
    a = sum(one.a[:, pick(one)] for one in losses.values())
    b = sum(one.b[:, pick(one)] for one in losses.values())
    phase = first.pair.ref.split("/")[0]
    name = f"{phase}/total loss"
    return Aligned(Pair(name, name, "sum", "loss"), first.axis, first.how, x, a, b, min(o.coverage for o in losses.values())), losses


def _windows(name: str, one: Aligned, found: Comparison, policy: Policy, pairing: float, *, whole, quarters) -> list[Hypothesis]:
    level = local_level(one.a, one.b)
    zero = level == 0
    if zero.any():
        # A loss that is switched off on both sides is zero there, and says nothing.
        found.notes.append(f"{name} is zero on both sides at {int(zero.sum())} of {len(zero)} positions, which are left out")
    a, b, x, level = one.a[:, ~zero] / level[~zero], one.b[:, ~zero] / level[~zero], one.x[~zero], level[~zero]
    count = len(x)
    # From two or three runs alone, the noise must come from inside them.
    if count < (4 if len(a) + len(b) <= 3 else 1):
        found.holds.append({"code": "too_few_points", "name": name, "text": f"{name} has only {count} positions in common that are not zero"})
        return []
    estimate = lambda s: compare_means(a[:, s], b[:, s], policy.seed_sd_loss, pairing=pairing, lockstep=policy.lockstep)  # noqa: E731
    margin, share, deciding = whole
    rows = [Hypothesis(f"{name}, whole", estimate(slice(None)), margin, share, deciding)]
    if quarters and count >= 32:
        margin, share, deciding = quarters
        edges = np.linspace(0, count, 5).astype(int)
        rows += [Hypothesis(f"{name}, quarter {i + 1}", estimate(slice(edges[i], edges[i + 1])), margin, share / 4, deciding) for i in range(4)]
    if not found.details:
        return rows
    paired = pairing >= policy.lockstep and len(a) == len(b)
    seed_sd = policy.seed_sd_loss * (math.sqrt(max(0.0, 1 - pairing)) if paired else 1.0)
    found.bands[one.pair.ref] = first_leave(a, b, x, policy.margin_loss, seed_sd) | {"level": level, "name": name, "axis": one.axis}
    return rows


# -- what to do next -----------------------------------------------------------------------------------------------------------------------------------
def _needed(found: Comparison, policy: Policy) -> None:
    if found.verdict != CANNOT_TELL:
        return
    open_ones = [h for h in found.hypotheses if h.deciding and h.outcome == CANNOT_TELL]
    answers = [runs_needed(h.estimate, h.margin, h.share, policy.alpha) for h in open_ones]
    if answers:
        unknown = [a for a in answers if a[0] is None]
        different = [a for a in answers if a[1] == DIFFERENT]
        found.runs_needed = unknown[0] if unknown and not different else min(different) if different else max(answers)


def _first(found: Comparison) -> None:
    """The earliest place at which something differs: a fact, or a curve that leaves its band and is judged different."""
    places = [{"at": f["at"], "axis": f["axis"], "what": f["text"]} for f in found.facts if "at" in f]
    guilty = {h.name.rsplit(", ", 1)[0] for h in found.hypotheses if h.outcome == DIFFERENT}
    for key, band in found.bands.items():
        if band["first"] is not None and band["name"] in guilty:
            low, high = band["first"]
            places.append({"at": low, "axis": band["axis"], "what": f"{band['name']} leaves the band between {band['axis']} {low:g} and {high:g}"})
    if places:
        found.first_difference = min(places, key=lambda p: (p["axis"] != "step", p["at"]))

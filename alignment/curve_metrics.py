"""Metrics by evaluation: the later mAP, the last value, the best epoch."""

from __future__ import annotations

import math

import numpy as np

from alignment.curve_align import Aligned
from alignment.curves import Hypothesis, Policy, block_error, compare_means
from alignment.log_reader import names


def is_primary(key: str) -> bool:
    """Whether series `key` is mAP, the metric that decides."""
    return names.canonical(key.split("/", 1)[1]) == "map"


def metric_hypotheses(metrics: dict[str, Aligned], policy: Policy, run_pairing: float) -> tuple[list[Hypothesis], list[dict], list[str]]:
    """(questions, a summary of each metric, notes) for the aligned `metrics`, whose values become fractions. `run_pairing` is the correlation of the
    two sides' training noise: whether the runs are one trajectory shows there, not in a few evaluations.
    """
    notes, summaries = [], []
    for key, one in metrics.items():
        percent_a, percent_b = np.nanmax(one.a) > 1.0, np.nanmax(one.b) > 1.0
        one.a, one.b = one.a / (100 if percent_a else 1), one.b / (100 if percent_b else 1)
        if percent_a != percent_b:
            notes.append(f"{key} is in percent on one side only; both are compared as fractions")
    noise = {key: _late_noise(one) for key, one in metrics.items()}
    main = next((key for key in metrics if is_primary(key)), None)
    rows: list[Hypothesis] = []
    others = max(1, 2 * len(metrics) - 1)
    for key, one in metrics.items():
        count = len(one.x)
        late = slice(count - max(1, count // 3), count)
        deciding = key == main
        sd, own = policy.seed_sd_metric, noise[key][3]
        if not deciding and main is not None and noise[main][3] > 0:
            # A number over few objects wanders more from seed to seed, as it does from epoch to epoch.
            sd *= max(1.0, own / noise[main][3])
        pairing = run_pairing if count >= 8 else 0.0
        long_run, freedom, one_off, _ = noise[key]
        inside = None if long_run is None else (long_run / math.sqrt(late.stop - late.start), freedom)
        estimate = compare_means(one.a[:, late], one.b[:, late], sd, pairing=pairing, relative=False, noise=inside, lockstep=policy.lockstep)
        rows.append(Hypothesis(f"{key}, last third of the evaluations", estimate, policy.margin_metric * (1 if deciding else 2),
                               0.15 if deciding else 0.05 / others, deciding))
        last = compare_means(one.a[:, -1:], one.b[:, -1:], sd, pairing=pairing, relative=False, noise=None if long_run is None else (one_off, freedom), lockstep=policy.lockstep)
        rows.append(Hypothesis(f"{key}, last evaluation", last, policy.margin_metric * 2, 0.05 / others, False))
        summaries.append(_best(key, one))
    return rows, summaries, notes


def _late_noise(one: Aligned) -> tuple[float | None, float, float, float]:
    """Noise of the later two thirds of the evaluations, a straight line taken out: (long-run noise of the difference or None when there are too few
    evaluations, its degrees of freedom, noise of one evaluation's difference, noise of one evaluation of the reference)."""
    count = len(one.x)
    start = count // 3
    if count - start < 8:
        return None, 1.0, 0.0, 0.0
    t = np.arange(count - start) - (count - start - 1) / 2
    flatten = lambda y: y - y.mean() - t * (t @ y) / (t @ t)  # noqa: E731
    delta = flatten(one.b[:, start:].mean(0) - one.a[:, start:].mean(0))
    error, freedom = block_error(delta)
    return error * math.sqrt(len(delta)), freedom, float(delta.std(ddof=2)), float(np.mean([flatten(row[start:]).std(ddof=2) for row in one.a]))


def _best(key: str, one: Aligned) -> dict:
    return {
        "name": key, "name_cand": one.pair.cand, "evaluations": len(one.x), "axis": one.axis,
        "best_ref": [float(v) for v in one.a.max(1)], "best_cand": [float(v) for v in one.b.max(1)],
        "best_at_ref": [float(one.x[i]) for i in one.a.argmax(1)], "best_at_cand": [float(one.x[i]) for i in one.b.argmax(1)],
        "last_ref": [float(v) for v in one.a[:, -1]], "last_cand": [float(v) for v in one.b[:, -1]],
    }

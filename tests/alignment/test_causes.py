"""Every rule of the rule base: a planted fault on which it speaks, computed and not made up; and no other rule may speak there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from alignment.causes import RULES, Evidence, cause_hints, half_inside, speaking
from alignment.compare import compare_tensors
from alignment.noise import measure_floor, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult

RNG = np.random.default_rng(11)
X = RNG.normal(size=(2, 8, 12, 12))
W = RNG.normal(size=(8, 8, 3, 3)) / 9
SQUARE = RNG.normal(size=(48, 48)) / 7


def windows(x, size=3, dilation=1):
    """(B, C, H', W', size, size) of a padded x."""
    reach = dilation * (size - 1) + 1
    return np.lib.stride_tricks.sliding_window_view(x, (reach, reach), axis=(2, 3))[..., ::dilation, ::dilation]


def pad(x, by=1, mode="constant"):
    return np.pad(x, ((0, 0), (0, 0), (by, by), (by, by)), mode)


def conv(x, w=W, mode="constant", dilation=1):
    return np.einsum("bchwij,ocij->bohw", windows(pad(x, dilation, mode), dilation=dilation), w)


def average_pool(x, counting=True, divisor=9):
    total = windows(pad(x)).sum((-1, -2))
    return total / divisor if counting else total / windows(pad(np.ones_like(x))).sum((-1, -2))


def batch_norm(x, eps=1e-5, unbiased=False, axes=(0, 2, 3)):
    var = x.var(axis=axes, keepdims=True, ddof=int(unbiased))
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(var + eps)


def spread_out(x):
    """Channels of different magnitude."""
    return x * np.linspace(0.02, 2, x.shape[1])[:, None, None]


def resize(x, aligned=False, nearest=False, outside=None):
    """Twice the size along the last axis."""
    n = x.shape[-1]
    at = np.arange(2 * n) * (n - 1) / (2 * n - 1) if aligned else (np.arange(2 * n) + 0.5) / 2 - 0.5
    if nearest:
        return x[..., np.arange(2 * n) // 2]
    low = np.floor(at).astype(int)
    part = at - low
    values = np.concatenate((np.full_like(x[..., :1], outside) if outside is not None else x[..., :1], x,
                             np.full_like(x[..., :1], outside) if outside is not None else x[..., -1:]), -1)
    return values[..., low + 1] * (1 - part) + values[..., np.minimum(low + 2, n + 1)] * part


def bfloat16(x):
    """Rounded to the nearest; ties do not matter here."""
    return ((np.ascontiguousarray(x, np.float32).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def shuffle(x, groups):
    return x.reshape(2, groups, 8 // groups, 12, 12).swapaxes(1, 2).reshape(x.shape)


def shallow(x):
    """Rounded down to thousandths."""
    return np.floor(x * 1000) / 1000


def poked(x, value, index=5):
    found = x.copy()
    found.reshape(-1)[index] = value
    return found


PICTURE = RNG.normal(size=(1, 3, 12, 12))
LINE = RNG.normal(size=(900,))
#: what is planted, the right result, the wrong one, the module's type, the stage, the rules that must speak, further evidence
PLANTS = [
    ("eps of a norm over everything", batch_norm(X, axes=(0, 1, 2, 3)), batch_norm(X, 1e-2, axes=(0, 1, 2, 3)), "LayerNorm", "", {"scale of a norm", "constant ratio"}),
    ("eps of a BatchNorm", batch_norm(spread_out(X)), batch_norm(spread_out(X), 1e-3), "BatchNorm2d", "", {"statistics of a norm", "a factor for each channel"}),
    ("a norm over other axes", batch_norm(spread_out(X)), batch_norm(spread_out(X), axes=(1,)), "BatchNorm2d", "", {"norm"}),
    ("divisor of a pool", average_pool(X), average_pool(X, divisor=8), "AvgPool2d", "", {"divisor of a pool", "constant ratio"}),
    ("padding counted in a pool", average_pool(X), average_pool(X, counting=False), "AvgPool2d", "", {"border of a pool", "borders only"}),
    ("weight of a loss", LINE ** 2, 2 * LINE ** 2, "loss", "loss", {"scale of a loss", "constant ratio"}),
    ("scale of an attention", X @ X, X @ X / np.sqrt(12), "Attention", "", {"constant ratio"}),
    ("padding mode", conv(X), conv(X, mode="edge"), "Conv2d", "", {"border of a convolution", "borders only"}),
    ("dilation", conv(X), conv(X, dilation=2), "Conv2d", "", {"convolution"}),
    ("groups of weights in another order", conv(X), conv(X, W[[4, 5, 6, 7, 0, 1, 2, 3]]), "Conv2d", "", {"order of channels", "permuted channels"}),
    ("the edge of a resize", resize(X), resize(X, outside=0), "Upsample", "", {"border of a resize", "borders only"}),
    ("align_corners", resize(X), resize(X, aligned=True), "Upsample", "", {"resize"}),
    ("nearest for bilinear", resize(X), resize(X, nearest=True), "Upsample", "", {"resize"}),
    ("padding", pad(X), pad(X, mode="edge"), "ZeroPad", "", {"borders only"}),
    ("channel shuffle", shuffle(X, 2), shuffle(X, 4), "ShuffleBlock", "", {"permuted channels"}),
    ("BGR for RGB", PICTURE, PICTURE[:, ::-1], "", "data", {"pixels", "permuted channels"}),
    ("a mirrored picture", PICTURE, PICTURE[..., ::-1], "", "data", {"pixels reversed", "reversed"}),
    ("mean and deviation of the input", PICTURE, PICTURE * np.array([1, 1.1, 0.9])[:, None, None] + np.array([0.1, 0, -0.1])[:, None, None], "", "",
     {"a factor for each channel"}),
    ("a weight transposed", np.eye(48) @ SQUARE, np.eye(48) @ SQUARE.T, "Linear", "", {"transposed weight", "transposed"}),
    ("height and width swapped", X, X.swapaxes(2, 3), "View", "", {"transposed"}),
    ("a subtraction the wrong way round", X - X.mean(), X.mean() - X, "Sub", "", {"sign flip"}),
    ("clipped", X, np.clip(X, -1, 1), "ReLU6", "", {"saturated"}),
    ("weights never loaded", X, np.zeros_like(X), "Conv2d", "", {"all zero"}),
    ("a detached branch", X, np.zeros_like(X), "Conv2d", "backward", {"zero gradient"}),
    ("a list walked backwards", SQUARE, SQUARE[::-1], "Stack", "", {"reversed"}),
    ("another order of flattening", LINE, LINE.reshape(30, 30).T.reshape(-1), "Flatten", "", {"permuted"}),
    ("a tie", X, poked(X, X.max() + 1), "TopK", "", {"isolated"}),
    ("rounded down", X, shallow(X), "Quantise", "", {"one-sided"}),
    ("a missing bias", X + 0.25, X, "Add", "", {"constant offset"}),
    ("another slope", np.where(X > 0, X, 0.1 * X), np.where(X > 0, X, 0.01 * X), "LeakyReLU", "", {"negative side"}),
    ("ceil for floor", X[..., :6, :6], X[..., :7, :7], "MaxPool2d", "", {"size of a pool", "shape"}),
    ("another stride", X[..., ::2, ::2], X[..., ::3, ::3], "Conv2d", "", {"shape"}),
    ("an axis kept", X.mean((2, 3), keepdims=True), np.broadcast_to(X.mean((2, 3), keepdims=True), X.shape), "Mean", "", {"broadcast"}),
    ("a logarithm of zero", X, poked(X, -np.inf), "Log", "", {"not finite"}),
    ("the reference overflows", poked(X, np.inf), X, "Exp", "", {"reference not finite"}),
    ("a conversion on the way out", X, bfloat16(X), "Conv2d", "", {"half precision output"}),
    ("half precision inside a Linear", (X.reshape(-1, 48) @ SQUARE), bfloat16(X.reshape(-1, 48)).astype(float) @ bfloat16(SQUARE), "Linear", "", {"half precision inside"}),
    ("half precision inside a convolution", conv(X), conv(bfloat16(X).astype(float), bfloat16(W)), "Conv2d", "", {"half precision inside"}),
    ("unbiased variance, in training only", batch_norm(X), batch_norm(X, unbiased=True), "BatchNorm2d", "backward",
     {"train mode only", "scale of a norm", "constant ratio"}, {"training": True, "evaluated": Verdict.PASS}),
    ("the same, wrong in evaluation too", batch_norm(X), batch_norm(X, unbiased=True), "BatchNorm2d", "backward", {"scale of a norm", "constant ratio"},
     {"training": True, "evaluated": Verdict.FAIL}),
]


def row_of(ref, cand, kind, stage="", **more):
    """The comparison's own row, by a floor of float32 rounding; a difference made in float64 is cast last."""
    ref = np.asarray(ref, np.float64)
    floor = measure_floor(np.nan_to_num(ref, posinf=1, neginf=1), [np.nan_to_num(ref, posinf=1, neginf=1).astype(np.float32)] * 2, channel_axis=1 if ref.ndim == 4 else None)
    row = compare_tensors("x", ref.astype(np.float32), np.ascontiguousarray(cand, np.float32), tolerance=tolerance_from_floor(floor), stage=stage or "forward", **more)
    return dataclasses.replace(row, module_type=kind)


def evidence(row, training=False, evaluated=None, history=()):
    seen = None if evaluated is None else TensorResult("x", "x", evaluated, Reason.OK, Gate.BOUND)
    return Evidence(row, training, seen, history)


@pytest.mark.parametrize("ref, cand, kind, stage, expected, more", [pytest.param(*p[1:], *([{}] if len(p) == 6 else []), id=p[0]) for p in PLANTS])
def test_the_rule_of_the_fault_speaks_and_no_other(ref, cand, kind, stage, expected, more):
    row = row_of(ref, cand, kind, stage)
    assert row.failed
    assert {rule.name for rule in speaking(evidence(row, **more))} == expected, (row.reason, row.hint)


def test_a_conversion_that_is_left_out():
    row = compare_tensors("x", np.ones(50, np.float32), np.ones(50, np.float16))
    assert {rule.name for rule in speaking(evidence(row))} == {"type"}


def test_a_sum_in_lower_precision():
    """Within the bound, but three times as far from float64 as the reference."""
    truth = RNG.normal(size=2000)
    ref = (truth + 1e-7 * RNG.normal(size=2000)).astype(np.float32)
    cand = (truth + 5e-7 * RNG.normal(size=2000)).astype(np.float32)
    floor = measure_floor(truth, [(truth + 1e-6 * RNG.normal(size=2000)).astype(np.float32) for _ in range(3)], channel_axis=None)
    row = compare_tensors("x", ref, cand, ref64=truth, tolerance=tolerance_from_floor(floor, float64_ratio=2.0))
    assert row.reason is Reason.LESS_ACCURATE and {rule.name for rule in speaking(evidence(row))} == {"less accurate"}


def momentum_run(momentum, steps=6):
    """Weights (steps, 300) of SGD on a parabola: the first step does not know the momentum yet."""
    weight, speed, found = np.linspace(-1, 1, 300) ** 3, 0.0, []
    for _ in range(steps):
        speed = momentum * speed + weight
        weight = weight - 0.01 * speed
        found.append(weight)
    return found


def test_an_error_that_grows_over_the_steps():
    rows = [row_of(a, b, "", "weights") for a, b in zip(momentum_run(0.9), momentum_run(0.9 * (1 + 1e-4)))]
    history = [(k, row.max_abs, row.failed) for k, row in enumerate(rows)]
    assert not rows[0].failed and rows[-1].failed
    last = rows[-1]
    assert "grows over steps" in {rule.name for rule in speaking(evidence(last, history=history))}
    silent = ([], history[:1], history[1:], [(k, 1.0, k > 0) for k in range(5)], [(k, -e if e else e, f) for k, e, f in history])
    for other in silent:  # nothing known; one step; failed from the start; constant; shrinking
        assert "grows over steps" not in {rule.name for rule in speaking(evidence(last, history=other))}


@pytest.mark.parametrize(("history", "speaks"), [
    ([(0, 1.0, False), (1, 2.0, False), (2, 3.0, True)], True), ([(2, 3.0, True), (0, 1.0, False), (1, 2.0, False)], True), ([(0, 1.0, False), (1, 2.0, True)], False),
    ([(0, 1.0, False), (1, 2.0, True), (2, 3.0, False)], False), ([(0, 1.0, False), (1, 3.0, True), (2, 2.0, True)], False), ([(0, 1.0, False), (1, 1.0, False), (2, 3.0, True)], False),
    ([(0, 1.0, False), (1, None, True), (2, 2.0, False), (3, 3.0, True)], True), ([(0, 1.0, False), (1, None, True), (2, 2.0, True)], False),
])
def test_what_grows(history, speaks):
    """Three steps that are known, in order of the steps; clean at first, failed at last, and larger each time."""
    row = TensorResult("x", "x", Verdict.FAIL, Reason.MISSING, Gate.KEYS)
    assert [hint.startswith("clean at first") for hint in cause_hints(row, history=history)] == [True] * speaks


@pytest.mark.parametrize(("rel_l2", "share", "speaks"), [
    (2.0**-14, 1.0, True), (2.0**-14 - 2.0**-40, 1.0, False), (2.0**-7, 1.0, True), (2.0**-7 + 2.0**-40, 1.0, False), (2.0**-10, 1.5, True), (2.0**-10, 0.5, True), (2.0**-10, 1.75, False),
    (2.0**-10, None, False), (None, 1.0, False),
])
def test_an_error_of_the_size_of_half_precision(monkeypatch, rel_l2, share, speaks):
    """`share`: what part of the squared error the cosine knows of; the limit is set to a number that is exact."""
    monkeypatch.setattr("alignment.causes.UNRELATED", 0.5)
    cosine = None if share is None else 1 - share * (rel_l2 or 1.0) ** 2 / 2
    assert half_inside(Evidence(TensorResult("x", "x", Verdict.FAIL, Reason.BEYOND_TOLERANCE, Gate.BOUND, rel_l2=rel_l2, cosine=cosine))) is speaks


def test_every_rule_is_planted():
    planted = set().union(*(plant[5] for plant in PLANTS)) | {"type", "less accurate", "grows over steps"}
    assert {rule.name for rule in RULES} == planted and len({rule.name for rule in RULES}) == len(RULES)


def test_a_short_format_on_both_sides_is_no_finding():
    """Integers, and halves that the reference holds as well."""
    for ref in (np.round(X * 4), bfloat16(X).astype(np.float64)):
        assert row_of(ref, -ref, "Conv2d").reason is Reason.SIGN_FLIPPED
        assert row_of(ref, ref * 2, "Conv2d").reason is not Reason.LOW_PRECISION


def test_hints_are_sentences_most_special_first():
    row = row_of(batch_norm(X), batch_norm(X, unbiased=True), "BatchNorm2d", "backward")
    hints = cause_hints(row, training=True, evaluated=TensorResult("x", "x", Verdict.PASS, Reason.OK, Gate.BOUND))
    assert hints[0].startswith("equal in evaluation mode") and "eps" in hints[1] and len(hints) == 3
    untrained = cause_hints(row, evaluated=TensorResult("x", "x", Verdict.PASS, Reason.OK, Gate.BOUND))
    assert untrained == hints[1:]
    assert cause_hints(TensorResult("x", "x", Verdict.FAIL, Reason.MISSING, Gate.KEYS)) == ()

"""The first divergence is found in a real chain of layers, whichever layer carries the fault, and inherited errors blame nobody."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.compare import compare_tensors
from alignment.locate import combine, first_divergence
from alignment.noise import measure_floor, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import TensorResult

WIDTHS = [24, 32, 32, 16, 48, 20]
NAMES = [f"layer{k}" for k in range(len(WIDTHS) - 1)]
RNG = np.random.default_rng(4)
WEIGHTS = [(RNG.normal(size=(n, m)) / np.sqrt(m)).astype(np.float32) for m, n in zip(WIDTHS, WIDTHS[1:])]


def layer(k, data, dtype=np.float32, order=None, fault=None):
    """A matrix product and a leaky rectifier; `order` is the order of summation, `fault` spoils the output."""
    order = slice(None) if order is None else order
    out = WEIGHTS[k][:, order].astype(dtype) @ data[order].astype(dtype)
    out = np.where(out > 0, out, out * dtype(0.1))
    return out if fault is None else fault(out)


def chain(data, **more):
    outputs = []
    for k in range(len(WEIGHTS)):
        fault = more.get("faults", {}).get(k)
        outputs.append(layer(k, outputs[-1] if outputs else data, more.get("dtype", np.float32), more["orders"][k] if "orders" in more else None, fault))
    return outputs


def orders(seed):
    rng = np.random.default_rng(seed)
    return [rng.permutation(width) for width in WIDTHS[:-1]]


def rows(faults, *, connect=None):
    """One combined row for each layer: own error on the reference's input, and the error of the whole run."""
    data = np.random.default_rng(9).normal(size=(WIDTHS[0], 200)).astype(np.float32)
    truth, ref = chain(data, dtype=np.float64), chain(data)
    cand = chain(data, orders=orders(1), faults={**faults, **(connect or {})})
    variants = [chain(data, orders=orders(seed)) for seed in range(10, 14)]
    found, previous = [], None
    for k, name in enumerate(NAMES):
        entering = ref[k - 1] if k else data
        own_truth = layer(k, entering, np.float64)
        own_floor = measure_floor(own_truth, [layer(k, entering, order=orders(seed)[k]) for seed in range(10, 14)], channel_axis=0)
        own = compare_tensors(name, ref[k], layer(k, entering, order=orders(1)[k], fault=faults.get(k)), tolerance=tolerance_from_floor(own_floor))
        whole_floor = measure_floor(truth[k], [run[k] for run in variants], channel_axis=0)
        whole = compare_tensors(name, ref[k], cand[k], tolerance=tolerance_from_floor(whole_floor))
        found.append(combine(own, whole, [previous] if previous else [], module_type="LeakyReLU"))
        previous = whole
    return found


def test_no_fault_no_divergence():
    found = rows({})
    assert first_divergence(found) is None
    assert all(row.own > 0 and row.inherited > 0 for row in found) and found[0].amplification is None
    assert all(0.1 < row.amplification < 10 for row in found[1:])


@pytest.mark.parametrize("where", range(len(NAMES)))
def test_the_faulty_layer_is_named(where):
    answer = first_divergence(rows({where: lambda out: out * np.float32(1.001)}))
    assert (answer.name, answer.kind, answer.position, answer.confirmed) == (NAMES[where], "own", where, True)
    assert answer.reason is Reason.CONSTANT_SCALE and answer.ratio > 1 and not answer.others
    assert answer.before == (NAMES[where - 1] if where else None)
    assert answer.after == (NAMES[where + 1] if where + 1 < len(NAMES) else None)
    if answer.after:
        assert f"{answer.after} after it only inherits" in answer.note


def test_an_error_that_cancels_later_is_still_found():
    """The second fault undoes the first, so the last layers agree in the whole run: a search by halves would find nothing."""
    found = rows({1: lambda out: out * np.float32(2), 2: lambda out: out * np.float32(0.5)})
    assert found[-1].inherited_verdict is Verdict.PASS
    answer = first_divergence(found)
    assert answer.name == "layer1" and answer.others == ("layer2",) and "error of its own as well" in answer.note


def test_the_code_between_the_layers_is_named():
    """Every layer agrees on the reference's input, but the candidate's run scales a value on the way."""
    answer = first_divergence(rows({}, connect={2: lambda out: out * np.float32(1.01)}))
    assert (answer.name, answer.kind) == ("layer2", "between") and "outside a module" in answer.causes[0]


def make(name, verdict=Verdict.PASS, reason=Reason.OK, gate=Gate.BOUND, **more):
    return TensorResult(name, name, verdict, reason, gate, **more)


def test_deep_in_the_backward_pass():
    """The forward pass is clean; of the gradients, listed in the order in which they arise, the third is wrong and the rest inherit."""
    forward = [make(f"f{k}", refed=True, own=0.0, stage="forward") for k in range(4)]
    backward = [
        make("g3", refed=True, own=0.0, stage="backward"), make("g2", refed=True, own=0.0, stage="backward"),
        make("g1", Verdict.FAIL, Reason.CONSTANT_SCALE, refed=True, own=0.5, max_abs=0.5, tolerance=1e-6, stage="backward", inherited_verdict=Verdict.FAIL),
        make("g0", refed=True, own=0.0, stage="backward", inherited_verdict=Verdict.FAIL),
    ]
    answer = first_divergence(forward + backward)
    assert (answer.name, answer.stage, answer.confirmed, answer.before, answer.after) == ("g1", "backward", True, "g2", "g0")


def test_the_earliest_step_wins():
    found = [make("b", Verdict.FAIL, Reason.ISOLATED, step=9), make("a", step=7), make("b", Verdict.FAIL, Reason.ISOLATED, step=7)]
    answer = first_divergence(found)
    assert (answer.step, answer.name, answer.kind, answer.confirmed) == (7, "b", "whole", False) and "may inherit" in answer.note


def test_whole_run_rows_do_not_outrank_own_errors_but_missing_ones_count():
    refed = make("b", Verdict.FAIL, Reason.ISOLATED, refed=True, own=1.0)
    assert first_divergence([make("a", Verdict.FAIL, Reason.ISOLATED), refed]).name == "b"
    assert first_divergence([make("a", Verdict.FAIL, Reason.MISSING, Gate.KEYS), refed]).name == "a"


def test_undecided_rows_before_the_answer_take_away_its_certainty():
    found = [make("a", Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE, refed=True), make("b", Verdict.FAIL, Reason.ISOLATED, refed=True, own=1.0)]
    answer = first_divergence(found)
    assert answer.name == "b" and not answer.confirmed and "not decided before it: a" in answer.note


def test_an_answer_whose_predecessor_is_not_clean_is_not_confirmed():
    """The layer before agrees on the reference's input and yet differs in the whole run: the fault may lie before both."""
    before = make("a", refed=True, own=0.0, inherited_verdict=Verdict.FAIL)
    answer = first_divergence([before, make("b", Verdict.FAIL, Reason.ISOLATED, refed=True, own=1.0)])
    assert (answer.name, answer.confirmed) == ("b", False) and "a before it is not clean" in answer.note



def test_where_the_whole_runs_error_comes_from():
    """Own in the faulty layer, inherited in those after it, nothing before it."""
    found = rows({2: lambda out: out * np.float32(1.001)})
    assert [row.origin for row in found] == ["", "", "own", "inherited", "inherited"]


def small_difference(total):
    """A number near one, minus one, made large: rounding becomes a digit."""
    return (total - total.dtype.type(1)) * total.dtype.type(1e6)


def sums(dtype=np.float32, seed=None):
    """Means of 64 numbers near one, each column's in an order of its own."""
    data = 1 + 1e-6 * np.random.default_rng(3).normal(size=(64, 300))
    order = np.arange(64) if seed is None else np.random.default_rng(seed).permutation(64)
    total = np.zeros(300, dtype)
    for k in order:
        total = total + data[k].astype(dtype)
    return total / dtype(64)


def test_amplification_is_no_own_error():
    """The second layer is exact on the reference's input and makes the last bits of the first visible: neither computes something else."""
    truth, ref, cand = sums(np.float64), sums(), sums(seed=1)
    neighbours = [np.nextafter(ref, np.float32(way)) for way in (0, 2)]
    own_floor = measure_floor(small_difference(ref.astype(np.float64)), [small_difference(one) for one in (ref, *neighbours)], channel_axis=None)
    whole_floor = measure_floor(small_difference(ref.astype(np.float64)), [small_difference(ref)] * 2, channel_axis=None)
    entering = compare_tensors("sum", ref, cand, tolerance=tolerance_from_floor(measure_floor(truth, [ref, cand], channel_axis=None)))
    first = combine(compare_tensors("sum", ref, ref, tolerance=tolerance_from_floor(own_floor)), entering)
    whole = compare_tensors("difference", small_difference(ref), small_difference(cand), tolerance=tolerance_from_floor(whole_floor))
    own = compare_tensors("difference", small_difference(ref), small_difference(ref), tolerance=tolerance_from_floor(own_floor))
    second = combine(own, whole, entering=entering.rel_l2)
    assert whole.failed and second.origin == "amplified" and second.amplification > 1000
    answer = first_divergence([first, second])
    assert (answer.name, answer.kind, answer.confirmed) == ("difference", "amplification", True)
    assert "ill-conditioned" in answer.causes[0] and "enters and" in answer.note
    # the same layer, off by more than its own conditioning explains: what is around it is at fault
    third = combine(own, make("difference", Verdict.FAIL, max_abs=1.0, rmse=100 * whole.rmse, rel_l2=100 * whole.rel_l2), entering=entering.rel_l2)
    assert third.origin == "inherited" and first_divergence([first, third]).kind == "between"
    # and a large difference that enters is not rounding, even where the layer makes much of it
    fourth = combine(own, make("difference", Verdict.FAIL, max_abs=1.0, rmse=100 * whole.rmse, rel_l2=1.0), entering=1e-3)
    assert fourth.origin == "amplified" and first_divergence([first, fourth]).kind == "between"

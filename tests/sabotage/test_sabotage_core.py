"""Planted faults: each one turns a whole run red, from bundles on disk to the exit code, under a reason that no other fault shares.

The numbers are the rows of the list "faults that published comparators let through". Rows 18 (weights) and 22 (a child process that fails) belong
to the weight loader and to the runners.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from alignment import noise
from alignment.bundle import Bundle, BundleWriter, Header, comparable
from alignment.cli import finish
from alignment.compare import compare_bundles
from alignment.locate import first_divergence
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from jt_nanodet.errors import UserError

HEADER = Header("layers", "pytorch", "torch", "config", "weights", "inputs", "code", 0)
OTHER = dataclasses.replace(HEADER, side="jittor", framework="jittor", code_sha256="other code")
LABELS = np.arange(40) % 7


class Run:
    """One comparison from end to end. A fault changes the candidate's arrays, the reference's, or what is done with them."""

    def __init__(self, folder, seed=0):
        self.folder, self.header_ref, self.header_cand, self.only = folder, HEADER, OTHER, None
        rng = np.random.default_rng(seed)
        truth = {"stem": rng.normal(size=(4, 8, 12, 12)), "square": rng.normal(size=(64, 64)), "scores": rng.normal(size=(5,)) + 3}
        self.truth = truth

        def rounding():
            return {name: (x + 2e-7 * rng.normal(size=x.shape)).astype(np.float32) for name, x in truth.items()}

        variants = [rounding() for _ in range(4)]
        self.tolerances = {name: noise.tolerance_from_floor(noise.measure_floor(x, [one[name] for one in variants])) for name, x in truth.items()}
        self.ref, self.cand = {**rounding(), "labels": LABELS}, {**rounding(), "labels": LABELS.copy()}
        self.result = Result("layers", tolerances=self.tolerances)
        self.after = lambda result: None

    def write(self, name, header, arrays):
        with BundleWriter(self.folder / name, header) as bundle:
            for key, array in arrays.items():
                bundle.add(key, array)
        return Bundle.open(self.folder / name)

    def judge(self):
        """Exit code and result.json."""
        ref, cand = self.write("a", self.header_ref, self.ref), self.write("b", self.header_cand, self.cand)
        for objection in comparable(ref, cand) + ref.stale(code_sha256="code"):
            self.result.object(objection.reason, objection.text)
        self.result.add(compare_bundles(ref, cand, self.tolerances, only=self.only))
        self.after(self.result)
        code = finish(self.result, self.folder / "out", verbosity=-1)
        return code, json.loads((self.folder / "out" / "result.json").read_text())


def put(side, name, change):
    """A fault that replaces one array of one side."""
    def spoil(run):
        arrays = getattr(run, side)
        arrays[name] = np.ascontiguousarray(change(arrays[name].copy()))
    return spoil


def both(*faults):
    def spoil(run):
        for fault in faults:
            fault(run)
    return spoil


def poke(value, index=3):
    def change(array):
        array.reshape(-1)[index] = value
        return array
    return change


def add_to(side, name, array):
    return lambda run: getattr(run, side).update({name: array})


def steps(count):
    return {f"step{k:04d}/loss": np.float32([k + 1]) for k in range(count)}


def never_called(run):
    run.result.expect(["stem", "head"])


def looser(run):
    """An earlier call has left a looser table behind, and the comparison uses it instead of the declared one."""
    run.tolerances = {**run.tolerances, "stem": dataclasses.replace(run.tolerances["stem"], bound=1.0, channel_bound=None)}
    run.cand["stem"] += np.float32(0.1)


def stale(run):
    run.header_ref = dataclasses.replace(HEADER, code_sha256="the code of last week")


def framework_absent(run):
    run.after = lambda result: result.skip("head", "jittor could not be imported")


def flaky(run):
    """The first attempt fails, the check is simply made again."""
    run.after = lambda result: result.add(next(row for row in result.tensors if row.name_ref == "stem"))


def only_one_run(run):
    run.cand = {}


def rename(run):
    run.cand = {("squares" if name == "square" else name): array for name, array in run.cand.items()}


def little_by_little(array):
    return array - np.random.default_rng(0).uniform(1e-4, 1e-2, array.shape).astype(np.float32)


SHIFT = np.random.default_rng(5).permutation(64 * 64)
#: row, what is planted, how, reason it must be given, exit code
TABLE = [
    (1, "an output missing in the second run", lambda run: run.cand.pop("square"), Reason.MISSING, 1),
    (2, "an extra output in the second run", add_to("cand", "more", np.ones((2, 2), np.float32)), Reason.EXTRA, 1),
    (3, "an output renamed", rename, Reason.RENAMED, 1),
    (4, "only one run given", only_one_run, Reason.NOTHING_COMPARED, 3),
    (5, "fewer images", put("cand", "stem", lambda x: x[:3]), Reason.SHORTER, 1),
    (6, "f32 to f16", put("cand", "stem", lambda x: x.astype(np.float16)), Reason.DTYPE, 1),
    (7, "(1,) against (5,)", put("cand", "scores", lambda x: x[:1]), Reason.BROADCAST, 1),
    (8, "transposed square", put("cand", "square", lambda x: x.T), Reason.TRANSPOSED, 1),
    (9, "empty on both sides", both(*(add_to(side, "boxes", np.zeros((0, 4), np.float32)) for side in ("ref", "cand"))), Reason.EMPTY, 1),
    (10, "NaN in the candidate", put("cand", "stem", poke(np.nan)), Reason.NOT_FINITE_CAND, 1),
    (11, "NaN on both sides", both(put("ref", "stem", poke(np.nan)), put("cand", "stem", poke(np.nan))), Reason.NOT_FINITE_BOTH, 1),
    (12, "permuted elements", put("cand", "square", lambda x: x.reshape(-1)[SHIFT].reshape(64, 64)), Reason.PERMUTED, 1),
    (13, "one wrong element", put("cand", "stem", poke(0.9)), Reason.ISOLATED, 1),
    (14, "all differences negative", put("cand", "stem", little_by_little), Reason.ONE_SIDED, 1),
    (15, "the check is never called", never_called, Reason.NOT_CHECKED, 1),
    (16, "a looser tolerance left by an earlier call", looser, Reason.TOLERANCE_CHANGED, 1),
    (19, "a stale reference", stale, Reason.STALE, 3),
    (20, "a filter that matches nothing", lambda run: setattr(run, "only", "nothing*"), Reason.FILTER_MATCHED_NOTHING, 3),
    (21, "a framework is absent and its part skipped", framework_absent, Reason.COVERAGE, 3),
    (23, "a failed check repeated until it passes", flaky, Reason.CHECKED_TWICE, 1),
]
#: The same faults in other dress, and the false passes seen in five tools; reasons may repeat here.
VARIANTS = [
    ("fewer steps", lambda run: (run.ref.update(steps(3)), run.cand.update(steps(2))), Reason.SHORTER, 1),
    ("more steps", lambda run: (run.ref.update(steps(2)), run.cand.update(steps(3))), Reason.LONGER, 1),
    ("nothing in either run", lambda run: (run.ref.clear(), run.cand.clear()), Reason.NOTHING_COMPARED, 3),
    ("f32 to int32", put("cand", "scores", lambda x: x.astype(np.int32)), Reason.DTYPE, 1),
    ("scalar against (5,)", lambda run: run.cand.update(scores=np.float32(3).reshape(())), Reason.BROADCAST, 1),
    ("(1, 64) against (64, 64)", put("cand", "square", lambda x: x[:1]), Reason.BROADCAST, 1),
    ("height and width swapped", put("cand", "stem", lambda x: x.swapaxes(2, 3)), Reason.TRANSPOSED, 1),
    ("NaN in the reference", put("ref", "stem", poke(np.nan)), Reason.NOT_FINITE_REF, 1),
    ("NaN against -1", both(put("ref", "stem", poke(-1)), put("cand", "stem", poke(np.nan))), Reason.NOT_FINITE_CAND, 1),
    ("infinity on both sides", both(put("ref", "stem", poke(np.inf)), put("cand", "stem", poke(np.inf))), Reason.NOT_FINITE_BOTH, 1),
    ("reversed tensor", put("cand", "square", lambda x: x[::-1, ::-1]), Reason.REVERSED, 1),
    ("sign flipped", put("cand", "stem", lambda x: -x), Reason.SIGN_FLIPPED, 1),
    ("scaled by 4.9 %", put("cand", "stem", lambda x: x * np.float32(1.049)), Reason.CONSTANT_SCALE, 1),
    ("permuted logits of equal mean", put("cand", "stem", lambda x: x[:, [1, 0, 2, 3, 4, 5, 6, 7]]), Reason.CHANNELS_PERMUTED, 1),
    ("cosine 0.995 and 0.9 off in one place", put("cand", "stem", lambda x: poke(x.reshape(-1)[7] + np.float32(0.9), 7)(x)), Reason.ISOLATED, 1),
    ("one label off by one", put("cand", "labels", lambda x: poke(x[5] + 1, 5)(x)), Reason.NOT_EXACT, 1),
    ("all zeros", put("cand", "stem", np.zeros_like), Reason.ALL_ZERO, 1),
    ("another slope of the rectifier", put("cand", "stem", lambda x: np.where(x < 0, x * np.float32(0.1), x)), Reason.NEGATIVE_SIDE, 1),
    ("another eps of a normalisation",
     put("cand", "stem", lambda x: x * np.sqrt(1 - 9.9e-4 / np.linspace(0.1, 2, 8, dtype=np.float32))[:, None, None].astype(np.float32)),
     Reason.CHANNEL_AFFINE, 1),
    ("a border treated differently", put("cand", "stem", lambda x: np.pad(x[..., 1:-1, 1:-1], ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")), Reason.BORDER_ONLY, 1),
    ("other weights", lambda run: setattr(run, "header_cand", dataclasses.replace(OTHER, weights_sha256="x")), Reason.WEIGHTS_DIFFER, 3),
    ("other inputs", lambda run: setattr(run, "header_cand", dataclasses.replace(OTHER, inputs_sha256="x")), Reason.INPUTS_DIFFER, 3),
    ("another configuration", lambda run: setattr(run, "header_cand", dataclasses.replace(OTHER, config_sha256="x")), Reason.CONFIG_DIFFERS, 3),
    ("no hashes", lambda run: setattr(run, "header_cand", dataclasses.replace(OTHER, weights_sha256="")), Reason.UNHASHED, 3),
]


@pytest.mark.parametrize("fault, reason, code", [pytest.param(row[2], row[3], row[4], id=f"{row[0]:02d} {row[1]}") for row in TABLE])
def test_planted_fault(tmp_path, fault, reason, code):
    check(tmp_path, fault, reason, code)


@pytest.mark.parametrize("fault, reason, code", [pytest.param(*row[1:], id=row[0]) for row in VARIANTS])
def test_planted_variant(tmp_path, fault, reason, code):
    check(tmp_path, fault, reason, code)


def check(folder, fault, reason, code):
    run = Run(folder)
    fault(run)
    exit_code, document = run.judge()
    assert (document["reason"], exit_code) == (str(reason), code)
    assert document["verdict"] != "pass" and (document["first_failure"] is not None) == (code == 1)


def test_every_row_has_a_reason_of_its_own():
    reasons = [row[3] for row in TABLE]
    assert len(set(reasons)) == len(reasons) >= 15


@pytest.mark.parametrize("seed", range(60))
def test_no_fault_no_alarm(tmp_path, seed):
    exit_code, document = Run(tmp_path, seed).judge()
    assert (exit_code, document["verdict"], document["compared"], document["coverage"]) == (0, "pass", 4, 1.0)


def test_13_one_wrong_element_in_ten_million():
    ref = np.random.default_rng(0).normal(size=10**7).astype(np.float32)
    cand = ref.copy()
    cand[123_456] += np.float32(5)
    tolerance = noise.tolerance_from_floor(noise.measure_floor(ref[:1000].astype(np.float64), [ref[:1000]] * 2))
    (row,) = compare_bundles({"x": ref}, {"x": cand}, {"x": tolerance})
    assert (row.reason, row.index, row.beyond) == (Reason.ISOLATED, (123_456,), 1)


def test_tiny_gradients_of_the_wrong_sign():
    """An absolute tolerance of a thousandth would accept any of these."""
    truth = 1e-8 * np.random.default_rng(0).normal(size=(16, 9))
    variants = [(truth * (1 + 1e-7 * k)).astype(np.float32) for k in range(4)]
    tolerance = noise.tolerance_from_floor(noise.measure_floor(truth, variants[1:]))
    (row,) = compare_bundles({"g": variants[0]}, {"g": -variants[0]}, {"g": tolerance})
    assert (row.verdict, row.reason) == (Verdict.FAIL, Reason.SIGN_FLIPPED)


def test_cosine_and_mean_never_decide():
    """Cosine 0.91 with a largest difference of 9e-4: accepted elsewhere because the difference is small in absolute terms."""
    rng = np.random.default_rng(0)
    ref = (1e-3 * rng.normal(size=4000)).astype(np.float32)
    cand = ref + np.clip(4.6e-4 * rng.normal(size=4000), -9e-4, 9e-4).astype(np.float32)
    tolerance = noise.tolerance_from_floor(noise.measure_floor(ref.astype(np.float64), [ref, ref]))
    (row,) = compare_bundles({"x": ref}, {"x": cand}, {"x": tolerance})
    assert 0.89 < row.cosine < 0.93 and row.max_abs < 1e-3 and row.failed


def test_16_a_lax_comparison_does_not_loosen_the_next():
    ref, cand = np.zeros(100, np.float32), np.full(100, 0.5, np.float32)
    strict = noise.tolerance_from_floor(noise.measure_floor(np.ones(100), [np.ones(100, np.float32)] * 2))
    lax = dataclasses.replace(strict, bound=1.0)
    assert compare_bundles({"x": ref}, {"x": cand}, {"x": lax})[0].verdict is Verdict.PASS
    assert compare_bundles({"x": ref}, {"x": cand}, {"x": strict})[0].failed
    with pytest.raises(dataclasses.FrozenInstanceError):
        strict.bound = 1.0


def test_17_a_culprit_deep_in_the_backward_pass_is_named():
    rows = [TensorResult(f"forward{k}", None, Verdict.PASS, Reason.OK, Gate.BOUND, refed=True, own=0.0) for k in range(9)]
    for k in range(9):
        wrong = k == 6
        rows.append(TensorResult(
            f"backward{k}", None, Verdict.FAIL if wrong else Verdict.PASS, Reason.CONSTANT_SCALE if wrong else Reason.OK, Gate.BOUND, refed=True,
            own=0.5 if wrong else 0.0, stage="backward", inherited=0.5 if k >= 6 else 0.0, inherited_verdict=Verdict.FAIL if k >= 6 else Verdict.PASS,
        ))
    answer = first_divergence(rows, training=True)
    assert (answer.name, answer.stage, answer.confirmed, answer.others) == ("backward6", "backward", True, ())


def test_19_a_missing_reference_is_an_error_and_is_not_made_anew(tmp_path):
    with pytest.raises(UserError, match="make reference"):
        Bundle.open(tmp_path / "absent", regenerate="make reference")
    assert list(tmp_path.iterdir()) == []


def test_22_a_run_that_dies_half_way_leaves_no_bundle(tmp_path):
    with pytest.raises(MemoryError):
        with BundleWriter(tmp_path / "b", HEADER, shard_bytes=1) as bundle:
            bundle.add("x", np.ones(10))
            raise MemoryError
    with pytest.raises(UserError, match="does not exist"):
        Bundle.open(tmp_path / "b")

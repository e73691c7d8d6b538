"""Faults planted in the port itself: each must turn the comparison that can see it red, under its reason, at the module that is at fault.

`test_sabotage_core.py` holds the faults that published comparators let through; the training has faults of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from alignment.reasons import Reason, Verdict
from alignment.runners import child, tasks
from jt_nanodet.checkpoint import read_weights, write_weights
from jt_nanodet.errors import UserError
from tests.sabotage import port_faults as faults
from tests.sabotage.port import ROOT, Port

pytestmark = [pytest.mark.jittor, pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def world(jittor, tmp_path_factory):
    """The port beside one honest reference."""
    yield Port(tmp_path_factory.mktemp("reference"))
    jittor.flags.no_grad = 0  # the runner switches gradients off for its process; this one goes on


@pytest.fixture
def port(world):
    world.fresh()
    return world


FIRST_BLOCK, SQUARE = "backbone.stage2.0", "backbone.stage2.1.branch2.0"
TRANSPOSED = faults.weight(SQUARE, "weight", lambda w: w.transpose(1, 0, 2, 3))
#: What is planted, how, the reason it must be given, the first divergence.
LAYERS = [
    ("a square weight transposed", TRANSPOSED, Reason.BEYOND_TOLERANCE, SQUARE),
    ("BatchNorm eps 1e-3 for 1e-5", faults.every("BatchNorm2d", eps=1e-3), Reason.CHANNEL_AFFINE, "backbone.conv1.1"),
    ("biased running variance", faults.weight("fpn.reduce_layers.0.bn", "running_var", lambda v: v * np.float32(191 / 192)), Reason.CHANNEL_AFFINE, "fpn.reduce_layers.0.bn"),
    ("training mode", faults.training_mode, Reason.CHANNEL_AFFINE, "backbone.conv1.1"),
    ("slope 0.01 for 0.1", faults.every("LeakyReLU", negative_slope=0.01), Reason.NEGATIVE_SIDE, "backbone.conv1.2"),
    ("groups and channels swapped in the shuffle", faults.shuffle_with_groups_and_channels_swapped, Reason.CHANNELS_PERMUTED, FIRST_BLOCK),
    ("another order of concatenation", faults.cheap_half_first, Reason.CHANNELS_PERMUTED, "fpn.top_down_blocks.0.blocks.0.ghost1"),
    ("nearest for bilinear", faults.one("fpn.upsample", mode="nearest"), Reason.BEYOND_TOLERANCE, "fpn.upsample"),
    ("align_corners", faults.one("fpn.upsample", align_corners=True), Reason.BEYOND_TOLERANCE, "fpn.upsample"),
    ("padding off by one", faults.one("backbone.conv1.0", padding=(0, 0)), Reason.SHAPE, "backbone.conv1.0"),
    ("bins counted from 1", faults.weight("head.distribution_project", "project", lambda p: p + 1), Reason.CONSTANT_OFFSET, "head.distribution_project"),
    ("missing sigmoid", faults.scores(lambda logits: logits), Reason.ONE_SIDED, "decode/scores"),
    ("double sigmoid", faults.scores(lambda logits: logits.sigmoid().sigmoid()), Reason.CONSTANT_OFFSET, "decode/scores"),
    ("height and width swapped in the grid", faults.grid(lambda honest, hw, strides: honest(hw[::-1], strides)), Reason.BEYOND_TOLERANCE, "decode/boxes"),
    ("boxes not clipped to the input", faults.boxes_not_clipped_to_the_input, Reason.BEYOND_TOLERANCE, "decode/boxes"),
    ("recording changes the result", faults.recording_changes_the_result, Reason.OBSERVER_CHANGED_RESULT, "observer/jittor"),
]
STRUCTURE = [
    ("BatchNorm eps 1e-3 for 1e-5", faults.every("BatchNorm2d", eps=1e-3), "backbone.conv1.1", "eps: 1e-05 against 0.001"),
    ("momentum 0.9 for 0.1", faults.every("BatchNorm2d", momentum=0.9), "backbone.conv1.1", "momentum: 0.1 against 0.9"),
    ("slope 0.01 for 0.1", faults.every("LeakyReLU", negative_slope=0.01), "backbone.conv1.2", "slope: 0.1 against 0.01"),
    ("nearest for bilinear", faults.one("fpn.upsample", mode="nearest"), "fpn.upsample", "mode: bilinear against nearest"),
]
#: What is planted, how, which count of the differences must not be zero.
PICTURES = [
    ("RGB for BGR", faults.pixels(lambda x: faults.normalised(x[:, ::-1])), "moved", Reason.INPUTS_DIFFER),
    ("mean and std swapped", faults.pixels(lambda x: faults.normalised(x, faults.STD, faults.MEAN)), "moved", Reason.INPUTS_DIFFER),
    ("a score threshold of 0.3 before the metric", faults.postprocessing(score_threshold=0.3), "missing", Reason.UNEXPLAINED_DETECTIONS),
]
#: What is planted, how, the differences it must make, and in which crafted case.
POSTPROCESSING = [
    ("suppressed at an overlap of the threshold", faults.overlap_rule(closed=True), {"missing": 1}, "overlap at the threshold"),
    ("overlap with + 1", faults.overlap_rule(plus=1), {"missing": None}, "overlap below the threshold, above it with + 1"),
    ("class offset left out", faults.class_offset_left_out, {"missing": 1}, "one box in two classes"),
    ("kept at a score of the threshold", faults.closed_score_threshold, {"extra": 1}, "a score at the threshold"),
    ("best 100 before suppression", faults.best_hundred_before_suppression, {"missing": 1}, "a crowd before a single box"),
    ("no limit of 100", faults.postprocessing(max_detections=1000), {"extra": 30}, "more than a hundred"),
    ("ties by the higher index", faults.ties_by_the_higher_index, {"moved": 1}, "equal scores"),
    ("boxes in whole pixels", faults.whole_pixels, {"moved": None}, "overlap below the threshold, above it with + 1"),
    ("boxes not clipped to the picture", faults.unwarp(faults.not_clipped), {"moved": 1}, "a box beyond the picture"),
    ("un-warped with the forward matrix", faults.unwarp(faults.forward_matrix), {"moved": None}, "equal scores"),
]


def table(rows):
    return [pytest.param(*row[1:], id=row[0]) for row in rows]


def red(result, reason, first):
    assert (str(result.verdict), result.exit_code, result.reason) == ("fail", 1, reason), result.last_line
    assert result.first_failure.name_ref == first


@pytest.mark.parametrize(("plant", "reason", "first"), table(LAYERS))
def test_in_the_network(port, monkeypatch, tmp_path, plant, reason, first):
    plant(port, monkeypatch)
    result = port.layers(tmp_path / "out")
    red(result, reason, first)
    assert result.parts["first_divergence"]["name"] == first


def ran(script):
    """What a script of a reproduction prints: the largest difference from either side."""
    done = subprocess.run([sys.executable, str(script)], cwd=script.parent, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return {words[3]: float(words[4]) for line in done.stdout.splitlines() if (words := line.split())[:3] == ["largest", "difference", "from"]}


def test_a_layer_at_fault_can_be_seen_again(port, monkeypatch, tmp_path):
    """From its class and settings alone: each framework gives its own side's result again, and differs from the other's."""
    faults.every("BatchNorm2d", eps=1e-3)(port, monkeypatch)
    result = port.layers(tmp_path)
    folder = port.repro(tmp_path, result)
    assert result.parts["repro"] == str(folder.relative_to(tmp_path)) == "repro/backbone_conv1_1"
    assert sorted(path.name for path in folder.iterdir()) == ["compare.npz", "compare.py", "run_jittor.py", "run_pytorch.py", "tensors.npz", "weights_jittor.npz", "weights_pytorch.npz"]
    off, bound = result.first_failure.max_abs, result.first_failure.tolerance
    for name, own, other in (("run_pytorch.py", "ref", "cand"), ("run_jittor.py", "cand", "ref")):
        found = ran(folder / name)
        assert found[own] <= bound < 0.9 * off < found[other], (name, found)
        assert len((folder / name).read_text().splitlines()) < 30
    shown = subprocess.run([sys.executable, str(folder / "compare.py")], capture_output=True, text=True, check=True).stdout
    assert float(shown.split("largest difference ")[1].split()[0]) > 0.9 * off and repr(bound) in shown


def test_in_float64_another_formula_is_told_from_rounding(port, monkeypatch, tmp_path):
    """The faulty type lies apart in float64 as well; every other module agrees there to less than float32 could show."""
    faults.every("BatchNorm2d", eps=1e-3)(port, monkeypatch)
    result = port.layers(tmp_path, float64="backbone.conv1*")
    assert result.first_failure.module_type == "BatchNorm2d" and result.first_failure.hint.endswith("another formula, not rounding")
    apart = {row.name_ref: row.float64_rel_l2 for row in result.rows() if row.float64_rel_l2 is not None}
    sound = {row.name_ref for row in result.rows() if row.refed and not row.failed}
    assert set(apart) == {"backbone.conv1", "backbone.conv1.0", "backbone.conv1.1", "backbone.conv1.2"} & set(apart) and len(apart) >= 3
    assert apart["backbone.conv1.1"] > 1e-5 and max(apart[name] for name in sound & set(apart)) < 1e-6
    with pytest.raises(UserError, match="matches no call"):
        port.layers(tmp_path / "other", float64="bakcbone.*")
    assert not (tmp_path / "other" / "bundles" / "jittor").exists()
    from jt_nanodet.operators import switch
    assert switch.on()


def test_a_block_at_fault_is_taken_out_of_its_model(port, monkeypatch, tmp_path):
    """The port's files are honest here, the fault was in memory: so both frameworks give the reference's result and neither the port's."""
    faults.shuffle_with_groups_and_channels_swapped(port, monkeypatch)
    result = port.layers(tmp_path)
    folder = port.repro(tmp_path, result)
    assert folder.name == "backbone_stage2_0" and (folder / "config.yml").is_file()
    for name in ("run_pytorch.py", "run_jittor.py"):
        found = ran(folder / name)
        assert found["ref"] <= result.first_failure.tolerance < found["cand"], (name, found)


def test_where_no_layer_is_at_fault_there_is_nothing_to_see_again(port, monkeypatch, tmp_path):
    faults.scores(lambda logits: logits)(port, monkeypatch)
    result = port.layers(tmp_path)
    assert result.parts["repro"] is None and port.repro(tmp_path, result) is None and not (tmp_path / "repro").exists()


@pytest.mark.parametrize(("plant", "first", "text"), table(STRUCTURE))
def test_in_the_structure(port, monkeypatch, tmp_path, plant, first, text):
    plant(port, monkeypatch)
    result = port.structure(tmp_path)
    red(result, Reason.STRUCTURE_DIFFERS, first)
    assert text in result.first_failure.hint


@pytest.mark.parametrize(("plant", "kind", "reason"), table(PICTURES))
def test_on_pictures(port, monkeypatch, tmp_path, plant, kind, reason):
    plant(port, monkeypatch)
    result = port.infer(tmp_path)
    assert (str(result.verdict), result.reason) == ("fail", reason)
    assert result.parts["detections"][kind] > 0


@pytest.mark.parametrize(("plant", "counts", "about"), table(POSTPROCESSING))
def test_in_the_postprocessing(port, monkeypatch, tmp_path, plant, counts, about):
    plant(port, monkeypatch)
    result = port.crafted(tmp_path)
    red(result, Reason.UNEXPLAINED_DETECTIONS, "detections")
    found = result.parts["detections"]
    assert about in {one["file_name"] for one in found["differences"] if not one["cause"]}
    for kind, count in counts.items():
        assert found[kind] == count if count is not None else found[kind] > 0


def test_a_transposed_weight_is_no_longer_the_same_bits(port, monkeypatch, tmp_path):
    TRANSPOSED(port, monkeypatch)
    red(port.weight_hashes(tmp_path), Reason.NOT_EXACT, f"{SQUARE}.weight")


def test_without_a_fault_all_is_green(port, tmp_path):
    """The twin of every row above."""
    for k, compare in enumerate((port.layers, port.structure, port.weight_hashes, port.infer, port.crafted)):
        (tmp_path / str(k)).mkdir()
        result = compare(tmp_path / str(k))
        assert (result.verdict, result.reason, result.exit_code) == (Verdict.PASS, Reason.OK, 0), (compare.__name__, result.first_failure)
        assert result.compared > 0
    assert result.parts["detections"]["matched"] > 100


def test_there_are_enough_rows():
    names = [row[0] for row in LAYERS + PICTURES + POSTPROCESSING]
    assert len(set(names)) == len(names) >= 25


def test_a_floored_grid_ends_the_child(port, monkeypatch, tmp_path):
    """Fewer priors than the head has rows cannot be decoded: the child dies, and nothing looks like a result."""
    faults.grid(faults.floored_grid)(port, monkeypatch)
    job, report = child.prepare("jittor", [{**port.common, "kind": "layers", "output": str(tmp_path / "b"), "reference": str(port.folder / "bundles" / "pytorch")}], {}, tmp_path)
    assert tasks.main([str(job)], lambda task: port.backend, {"layers": tasks.layers_candidate}) == 1
    assert not report.exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize(("change", "text"), [
    (lambda w: w.pop("head.gfl_cls.0.bias"), "1 missing (first: head.gfl_cls.0.bias)"),
    (lambda w: w.update(more=np.ones(3, np.float32)), "1 unexpected (first: more)"),
    (lambda w: w.update({"head.gfl_cls.0.weight": w["head.gfl_cls.0.weight"].transpose(1, 0, 2, 3)}), "1 of another shape (first: head.gfl_cls.0.weight is (48, 37, 1, 1), not (37, 48, 1, 1))"),
    (lambda w: w.update({"backbone.conv1.1.bias": w["backbone.conv1.1.bias"] * np.nan}), "NaN"),
], ids=["missing", "unexpected", "of another shape", "not finite"])
def test_weights_that_do_not_fit_are_refused(port, tmp_path, change, text):
    spoilt = read_weights(port.weights)
    change(spoilt)
    write_weights(tmp_path / "spoilt.npz", spoilt)
    with pytest.raises(UserError) as error:
        port.fresh(tmp_path / "spoilt.npz")
    assert text in str(error.value)


def test_other_weights_are_not_comparable(port, tmp_path):
    port.fresh(port.other_weights(tmp_path))
    result = port.layers(tmp_path / "out")
    assert (result.verdict, result.reason, result.exit_code) == (Verdict.NOT_COMPARABLE, Reason.WEIGHTS_DIFFER, 3)


def test_fewer_pictures_are_not_comparable(port, tmp_path):
    result = port.infer(tmp_path, limit=4)
    assert (result.verdict, result.reason, result.exit_code) == (Verdict.NOT_COMPARABLE, Reason.INPUTS_DIFFER, 3)


def test_a_stale_reference_is_not_comparable(port, monkeypatch, tmp_path):
    """The code has changed since the reference was made."""
    honest = child.code_sha256
    monkeypatch.setattr(child, "code_sha256", lambda side: honest(side) if side == "jittor" else "the code of today")
    result = port.layers(tmp_path / "out")
    assert (result.verdict, result.reason, result.exit_code) == (Verdict.NOT_COMPARABLE, Reason.STALE, 3)


def test_a_reference_that_is_not_there_is_an_error(port, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        tasks.layers_candidate(port.run, {**port.common, "kind": "layers", "output": str(tmp_path / "out"), "reference": str(tmp_path / "absent")})
    assert not (tmp_path / "out").exists()


CHILDREN = {
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
    "failed": ("import sys; print('the reason'); sys.exit(7)", "ended with exit status 7 before it was done: the reason"),
    "silent": ("", "ended with exit status 0 before it was done"),
    "refused": ("import json, sys; json.dump({'error': 'give another file.'}, open(json.load(open(sys.argv[1]))['report'], 'w')); sys.exit(2)", "give another file."),
}


@pytest.mark.parametrize("how", CHILDREN)
def test_a_child_that_fails_is_never_a_pass(tmp_path, monkeypatch, how):
    code, text = CHILDREN[how]
    (tmp_path / "stand_in.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setitem(child.MODULES, "jittor", "stand_in")
    # what an earlier run left must not be taken for an answer of this one
    (tmp_path / "jittor.report.json").write_text(json.dumps({"side": "jittor", "error": None, "tasks": []}))
    with pytest.raises(UserError) as error:
        child.run("jittor", [{"kind": "layers"}], {}, tmp_path, verbosity=-1)
    assert text in str(error.value) and "\n" not in str(error.value)
    assert sys.executable not in str(error.value)

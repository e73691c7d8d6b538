"""The train command: files, lines, resuming bit for bit, interruption, and one sentence for each failure."""
import contextlib
import dataclasses
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jt_nanodet.checkpoint import read_weights
from jt_nanodet.errors import run_cli
from tests.training.tiny import ROOT, tiny_config, write_tiny

SIDES = [pytest.param("torch_ref", marks=pytest.mark.torch), pytest.param("jt_nanodet", marks=pytest.mark.jittor)]
SUFFIX = {"torch_ref": ".pth", "jt_nanodet": ".pkl"}


@pytest.fixture(scope="module", params=SIDES)
def side(request):
    if request.param == "jt_nanodet":
        request.getfixturevalue("jittor")
    return request.param


def train(side, config, folder, *options):
    """(exit code, text on stdout, text on stderr) of the command, in this process."""
    import importlib

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_cli(importlib.import_module(f"{side}.trainer").main, [str(config), "--save-dir", str(folder), "--device", "cpu", *options])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def finished(side, tmp_path_factory):
    """(folder, config, text) of a run of two epochs."""
    base = tmp_path_factory.mktemp(side)
    config = write_tiny(base)
    code, text, err = train(side, config, base / "whole")
    assert code == 0, err
    return base / "whole", config, text


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory):
    """(folder, config) of a run of the reference, for what both sides share."""
    base = tmp_path_factory.mktemp("reference")
    config = write_tiny(base)
    assert train("torch_ref", config, base / "run", "--max-steps", "3")[0] == 0
    return base / "run", config


def states_equal(one, two):
    a, b = (read_weights(folder / "training_state.npz") for folder in (one, two))
    assert list(a) == list(b)
    return [k for k in a if not np.array_equal(a[k], b[k])]


def test_files_and_lines(side, finished):
    folder, _, text = finished
    for name in (f"model_last{SUFFIX[side]}", f"model_best{SUFFIX[side]}", "training_state.npz", "logs.txt", "log.jsonl", "loss.png", "map.png"):
        assert (folder / name).stat().st_size > 0, name
    assert not list(folder.glob(".tmp*"))
    line = r"\[NanoDet\]\[\d\d-\d\d \d\d:\d\d:\d\d\]INFO: "
    train_line = (line + r"Train\|Epoch1/2\|Iter0\(1/4\)\| mem:[\d.]+G\| lr:2\.00e-05\| loss_qfl:\d+\.\d{4}\| loss_bbox:\d+\.\d{4}\| loss_dfl:\d+\.\d{4}\| "
                         r"aux_loss_qfl:\d+\.\d{4}\| aux_loss_bbox:\d+\.\d{4}\| aux_loss_dfl:\d+\.\d{4}\| $")
    for want in (train_line, line + r"Val\|Epoch2/2\|Iter8\(1/1\)\|", line + r"Val_metrics: \{'mAP': ",
                 line + r"Epoch 1/2: loss=\S+ cls_loss=\S+ reg_loss=\S+ lr=\S+$", line + r"Best mAP: \d\.\d{4} at epoch \d$"):
        assert re.search(want, text, re.M), want
    assert (folder / "logs.txt").read_text() == text
    rows = [json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()]
    assert rows[0]["type"] == "header" and rows[0]["seed"] == 0 and len(rows[0]["config_sha256"]) == 64 and rows[0]["versions"]["numpy"]
    assert [r["step"] for r in rows if r["type"] == "train"] == list(range(8))
    assert [r["epoch"] for r in rows if r["type"] == "val"] == [1, 2]


@pytest.mark.torch
def test_hash_of_the_configuration_leaves_the_folder_out(tmp_path):
    from torch_ref.training_loop import header

    config = tiny_config(tmp_path)
    hashes = {header(SimpleNamespace(path="a.yml", config=dataclasses.replace(config, **change), seed=0, device="cpu"), 1)["config_sha256"]
              for change in ({"save_dir": "one"}, {"save_dir": "two"}, {"grad_clip": 1})}
    assert len(hashes) == 2


def test_event_file_holds_the_losses(finished):
    from alignment.log_reader.events import read_events

    folder, _, _ = finished
    run = read_events(sorted(folder.glob("events.out.tfevents.*")), folder)
    assert run.lines["scalars"] == 8 * 7 + 2 * 12


def test_last_weights_are_the_averages(side, finished):
    folder, _, _ = finished
    state = read_weights(folder / "training_state.npz")
    if side == "torch_ref":
        import torch

        weights = {k: v.numpy() for k, v in torch.load(folder / "model_last.pth", weights_only=True)["state_dict"].items()}
    else:
        weights = read_weights(folder / "model_last.pkl")
    assert len(weights) == sum(k.startswith("ema/") for k in state)
    for k, v in weights.items():
        assert v.shape == state[f"ema/{k}"].shape and np.array_equal(v, state[f"ema/{k}"]), k


@pytest.mark.parametrize("steps", [3, 4, 6])
def test_resume_is_bit_for_bit(side, finished, tmp_path, steps):
    """Stopped within the first epoch, at its end, and within the second."""
    whole, config, _ = finished
    code, _, err = train(side, config, tmp_path / "run", "--max-steps", str(steps))
    assert code == 0, err
    code, text, err = train(side, config, tmp_path / "run", "--resume")
    assert code == 0 and "Resumed at epoch" in text, err
    assert states_equal(whole, tmp_path / "run") == []
    rows = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["type"] == "train"] == list(range(8)) and [r["resumed"] for r in rows if r["type"] == "header"] == [False, True]


def start(side, config, folder, *options):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    code = f"import sys; from jt_nanodet.errors import run_cli; from {side}.trainer import main; sys.exit(run_cli(main))"
    command = [sys.executable, "-c", code, str(config), "--save-dir", str(folder), "--device", "cpu", *options]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process, word):
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"{word!r} never came; exit code {process.wait()}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_go_on_where_they_were(side, finished, tmp_path, how):
    whole, config, _ = finished
    process = start(side, config, tmp_path / "run")
    wait_for(process, "Iter5(")  # in the middle of the second epoch
    process.send_signal(how)
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), rest
    saved = read_weights(tmp_path / "run" / "training_state.npz")
    # a kill loses the unfinished epoch at most, a signal nothing but the step under way
    assert int(saved["global_step"]) >= (4 if how == signal.SIGKILL else 6)
    code, _, err = train(side, config, tmp_path / "run", "--resume")
    assert code == 0, err
    assert states_equal(whole, tmp_path / "run") == []


@pytest.mark.torch
def test_kill_in_mid_checkpoint_leaves_the_old_one(reference_run, tmp_path):
    """The writer is stopped by a kill between the temporary file and its taking the old one's place."""
    _, config = reference_run
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from torch_ref.trainer import main
replace, count = os.replace, [0]
def killing(a, b):
    count[0] += str(b).endswith("training_state.npz")
    if count[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
os.replace = killing
main([{str(config)!r}, "--save-dir", {str(tmp_path / 'run')!r}, "--device", "cpu"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -9, done.stderr
    state = read_weights(tmp_path / "run" / "training_state.npz")
    assert int(state["global_step"]) == 4 and list((tmp_path / "run").glob(".tmp*")), "the half-written file is a temporary one"
    result, _, err = train("torch_ref", config, tmp_path / "run", "--resume")
    assert result == 0, err
    assert not list((tmp_path / "run").glob(".tmp*")), "a resumed run clears what a kill left"


@pytest.mark.torch
@pytest.mark.parametrize("where", ["checkpoint", "log"])
def test_full_disk_is_one_sentence(reference_run, tmp_path, monkeypatch, where):
    _, config = reference_run
    folder = tmp_path / "run"
    assert train("torch_ref", config, folder, "--max-steps", "3")[0] == 0
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(*args, **kwargs):
        raise full

    if where == "checkpoint":
        monkeypatch.setattr(os, "fsync", failing)
    else:
        monkeypatch.setattr("jt_nanodet.run.scalars.ScalarWriter.add", failing)
    code, _, err = train("torch_ref", config, folder, "--resume")
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: cannot write") and "No space left" in err, err
    monkeypatch.undo()
    assert train("torch_ref", config, folder, "--resume")[0] == 0


@pytest.mark.torch
@pytest.mark.parametrize(("options", "words"), [
    (["--resume", "--seed", "1"], "had seed 0, and now it is 1"),
    (["--resume", "--batch-size", "2"], "had batch 4, and now it is 2"),
    (["--resume", "--load-weights", "x.npz"], "leave out --load-weights"),
    (["--epochs", "0"], "at least 1"),
    (["--load-weights", "nowhere.npz"], "nowhere.npz"),
])
def test_refusals(reference_run, options, words):
    folder, config = reference_run
    code, _, err = train("torch_ref", config, folder, *options)
    assert code == 2 and words in err and err.count("\n") == 1, err


@pytest.mark.torch
def test_nothing_to_resume(reference_run, tmp_path):
    code, _, err = train("torch_ref", reference_run[1], tmp_path / "none", "--resume")
    assert code == 2 and "nothing to resume" in err


def test_weights_of_another_class_count(side, finished, tmp_path):
    folder, config, _ = finished
    weights = {k.removeprefix("ema/"): v for k, v in read_weights(folder / "training_state.npz").items() if k.startswith("ema/")}
    for k in list(weights):
        if "gfl_cls" in k:
            weights[k] = np.concatenate([weights[k], weights[k][:2]])
    from jt_nanodet.checkpoint import write_weights

    write_weights(tmp_path / "seven.npz", weights)
    code, text, err = train(side, config, tmp_path / "run", "--load-weights", str(tmp_path / "seven.npz"), "--max-steps", "1")
    assert code == 0 and "The weights are for 7 classes, the model for 5" in text, err


def test_both_sides_start_from_the_same_weights(side, finished, tmp_path):
    """The first state of a run, before any step, is a function of the seed alone."""
    from jt_nanodet.run.start import starting_weights

    _, config, _ = finished
    assert train(side, config, tmp_path / "run", "--max-steps", "1", "--seed", "5")[0] == 0
    state = read_weights(tmp_path / "run" / "training_state.npz")
    shapes = {k.removeprefix("model/"): v.shape for k, v in state.items() if k.startswith("model/")}
    start_, _ = starting_weights(shapes, 5, None, 5)
    # one step moves no weight by more than twice the rate (2e-5 here): the update is at most the rate, the decay far less
    assert all(np.abs(state[f"model/{k}"] - v).max() <= 4e-5 for k, v in start_.items() if "running" not in k and "num_batches" not in k)


@pytest.mark.torch
def test_half_precision_runs(reference_run, tmp_path):
    import yaml

    tree = yaml.safe_load(reference_run[1].read_text())
    tree["device"]["precision"] = 16
    path = tmp_path / "half.yml"
    path.write_text(yaml.safe_dump(tree))
    code, text, err = train("torch_ref", path, tmp_path / "run", "--max-steps", "2")
    assert code == 0 and "bfloat16" in text, err


@pytest.mark.torch
def test_two_processes_train_as_one_with_the_whole_batch(reference_run, tmp_path):
    """BatchNorm frozen, normalisers below their bound in one of the processes; the limit is fp32's rounding of the sums, 100 times over."""
    _, config = reference_run
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    assert train("torch_ref", config, alone, "--freeze-bn", "--max-steps", "3")[0] == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "torch_ref", "train", str(config),
               "--save-dir", str(pair), "--device", "cpu", "--freeze-bn", "--max-steps", "3", "--batch-size", "2"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    norms = [[json.loads(x)["grad_norm"] for x in (f / "log.jsonl").read_text().splitlines() if '"train"' in x] for f in (alone, pair)]
    assert len(norms[0]) == 3
    np.testing.assert_allclose(norms[1], norms[0], rtol=100 * np.finfo(np.float32).eps, atol=0)

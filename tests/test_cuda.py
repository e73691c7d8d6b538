"""Model, losses and training step on a GPU against the same on the CPU; each device in a process of its own.

The measure is the CPU's own answer to weights that were moved by one unit in the last place: what that changes, another device may too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jt_nanodet import runtime_cuda
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.cuda, pytest.mark.slow]
#: Two ways of rounding a whole network may differ by this many times what one way shows.
FACTOR = 16

PROGRAM = """
import dataclasses, sys
import numpy as np
from jt_nanodet import runtime
device, nudge, precision, output = sys.argv[1], sys.argv[2] == "1", int(sys.argv[3]), sys.argv[4]
runtime.setup(device)
import jittor as jt
from jt_nanodet.bench.gpu import batch_of
from jt_nanodet.config import load_config
from jt_nanodet.decode import decode
from jt_nanodet.detector import build_model, load_state, state_arrays
from jt_nanodet.postprocess import detect_batch
from jt_nanodet.training_step import TrainingStep
config = load_config("configs/nanodet-plus-m_320.yml")
config = dataclasses.replace(config, device=dataclasses.replace(config.device, precision=precision))
arch = config.model.arch
model = build_model(arch)
r = np.random.RandomState(0)
weights = {}
for name, value in state_arrays(model).items():  # drawn, so that both devices have the same
    if value.dtype.kind != "f" or value.ndim == 0:
        weights[name] = value
    elif name.endswith("running_var") or value.ndim == 1 and name.endswith("weight"):
        weights[name] = (0.5 + r.rand(*value.shape)).astype(np.float32)
    else:
        fan = np.prod(value.shape[1:]) if value.ndim > 1 else 16
        weights[name] = (r.randn(*value.shape) / np.sqrt(max(fan, 1))).astype(np.float32)
    if nudge and weights[name].dtype == np.float32 and weights[name].size:
        weights[name] = np.where(r.rand(*weights[name].shape) < 0.5, np.nextafter(weights[name], np.float32(9e9)), weights[name]).astype(np.float32)
    else:
        r.rand(*weights[name].shape)
load_state(model, weights)
batch = batch_of(2, 128)
found = {}
with jt.no_grad():
    raw = model(jt.array(batch["img"]))
    boxes, scores = decode(raw, model.head.distribution_project, arch.head, (128, 128))
found["forward/raw"], found["forward/boxes"], found["forward/scores"] = raw.numpy(), boxes.numpy(), scores.numpy()
found["detections"] = np.array([len(d[0]) for d in detect_batch(boxes, scores)])
step = TrainingStep(model, config)
for number in range(3):
    report = step.step(batch, keep_gradients=number == 0)
    found[f"loss/{number}"] = np.array([report.loss])
    if number == 0:
        found["assigned"] = np.stack([a.gt_index for a in report.assignments])
        found.update({f"gradient/{k}": v for k, v in report.gradients.items()})
np.savez(output, **found)
"""


def run(folder: Path, device: str, nudge: bool = False, precision: int = 32) -> dict[str, np.ndarray]:
    output = folder / f"{device}-{nudge}-{precision}.npz"
    done = subprocess.run([sys.executable, "-c", PROGRAM, device, str(int(nudge)), str(precision), str(output)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(output) as file:
        return {k: file[k] for k in file.files}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """cpu, moved (the CPU with moved weights) and cuda."""
    try:
        runtime_cuda.find_gpu()
    except UserError:
        pytest.skip("not run: no NVIDIA GPU")
    folder = tmp_path_factory.mktemp("cuda")
    return {"folder": folder, "cpu": run(folder, "cpu"), "moved": run(folder, "cpu", nudge=True), "cuda": run(folder, "cuda")}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest number."""
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


@pytest.mark.parametrize("name", ["forward/raw", "forward/boxes", "forward/scores", "loss/0"])
def test_equals_the_cpu(runs, name):
    own, other = distance(runs["cpu"][name], runs["moved"][name]), distance(runs["cpu"][name], runs["cuda"][name])
    print(f"{name}: moved weights {own:.3g}, GPU {other:.3g}")
    assert other <= FACTOR * own


def test_gradients_equal_the_cpu(runs):
    names = [n for n in runs["cpu"] if n.startswith("gradient/")]
    own, other = (np.sqrt(sum(((runs["cpu"][n] - runs[side][n]) ** 2).sum() for n in names)) for side in ("moved", "cuda"))
    print(f"gradients: moved weights {own:.3g}, GPU {other:.3g}")
    assert other <= FACTOR * own


def test_assignments_equal_the_cpu(runs):
    differ = {side: int((runs["cpu"]["assigned"] != runs[side]["assigned"]).sum()) for side in ("moved", "cuda")}
    print(differ)
    assert differ["cuda"] <= max(1, FACTOR * differ["moved"])


def test_three_steps_in_half_precision(runs):
    half = run(runs["folder"], "cuda", precision=16)
    losses = [half[f"loss/{n}"][0] for n in range(3)]
    assert np.isfinite(losses).all()
    print(losses, [runs["cuda"][f"loss/{n}"][0] for n in range(3)])

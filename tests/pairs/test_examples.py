"""The examples of docs/pairs.md through the command line, and a fault planted in each, found at its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment import layers
from jt_nanodet.errors import UserError

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
#: Each fault: text of the port, what replaces it, and the call that must be named first.
FAULTS = {
    "resnet": ("self.conv_b, self.norm_b = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)",
               "self.conv_b, self.norm_b = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout, eps=1e-3)", "layer1.bn2"),
    "transformer": ("return self.out(jt.matmul", "return 1.01 * self.out(jt.matmul", "block.attn/0"),
    "segmentation": ("nn.MaxPool2d(2, 2)", "nn.AvgPool2d(2, 2)", "pool"),
}


#: Faults of the backward pass alone: the forward pass stays as it is.
BACKWARD_FAULTS = {
    "resnet": ("return self.relu(y + (x if self.shortcut", "return self.relu(y + (x.detach() if self.shortcut", "backward/layer1/input/0", "own"),
    "transformer": ("return self.out(jt.matmul(weights, v)", "return self.out(jt.matmul(weights.detach(), v)", "backward/block.attn@2/input/0", "own"),
    "segmentation": ("jt.concat([a, self.up(b)], 1)", "jt.concat([a, self.up(b).detach()], 1)", "backward/(model)/up.weight", "own"),
}


def run(pair: Path, out: Path, *more: str) -> tuple[int, dict]:
    code = layers.main(["--pair", str(pair), "--output", str(out), "--threads", "1", "-q", *more])
    return code, json.loads((out / "result.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
@pytest.mark.parametrize("name", ["resnet", "transformer", "segmentation"])
def test_an_example_passes_and_a_fault_is_found_at_its_place(tmp_path, name):
    code, result = run(EXAMPLES / f"{name}.py", tmp_path / "clean", "--backward")
    assert code == 0 and result["failed"] == result["skipped"] == 0, result["first_failure"]
    assert result["backward"]["calls"] > 8 and result["backward"]["agreement"]["cosine"] > 0.99999
    code, result = run(changed(tmp_path, name, *FAULTS[name][:2]), tmp_path / "broken")
    assert code == 1 and result["first_failure"] == FAULTS[name][2]
    old, new, place, kind = BACKWARD_FAULTS[name]
    code, result = run(changed(tmp_path, name, old, new), tmp_path / "backward", "--backward")
    assert code == 1 and result["first_failure"] == place and result["first_divergence"] is None
    assert (result["backward"]["first_divergence"]["name"], result["backward"]["first_divergence"]["kind"]) == (place, kind)


def changed(folder: Path, name: str, old: str, new: str) -> Path:
    """The example with a fault in its port."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    broken = folder / f"{name}.py"
    broken.write_text(text.replace(old, new), encoding="utf-8")
    return broken


@pytest.mark.torch
def test_a_side_that_hangs_is_stopped(tmp_path):
    pair = tmp_path / "p.py"
    pair.write_text("def build_reference():\n    import time; time.sleep(60)\ndef build_candidate(): pass\ndef inputs(seed): pass\n")
    with pytest.raises(UserError, match="--timeout"):
        layers.main(["--pair", str(pair), "--output", str(tmp_path / "out"), "-q", "--timeout", "0.5"])

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


def run(pair: Path, out: Path) -> tuple[int, dict]:
    code = layers.main(["--pair", str(pair), "--output", str(out), "-q"])
    return code, json.loads((out / "result.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
@pytest.mark.parametrize("name", ["resnet", "transformer", "segmentation"])
def test_an_example_passes_and_a_fault_is_found_at_its_place(tmp_path, name):
    code, result = run(EXAMPLES / f"{name}.py", tmp_path / "clean")
    assert code == 0 and result["failed"] == result["skipped"] == 0, result["first_failure"]
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    old, new, place = FAULTS[name]
    assert text.count(old) == 1
    broken = tmp_path / f"{name}.py"
    broken.write_text(text.replace(old, new), encoding="utf-8")
    code, result = run(broken, tmp_path / "broken")
    assert code == 1 and result["first_failure"] == place


@pytest.mark.torch
def test_a_side_that_hangs_is_stopped(tmp_path):
    pair = tmp_path / "p.py"
    pair.write_text("def build_reference():\n    import time; time.sleep(60)\ndef build_candidate(): pass\ndef inputs(seed): pass\n")
    with pytest.raises(UserError, match="--timeout"):
        layers.main(["--pair", str(pair), "--output", str(tmp_path / "out"), "-q", "--timeout", "0.5"])

"""The examples of docs/pairs.md through the command line, and a fault planted in each, found at its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment import layers, pair_report, report, train, verify
from alignment.reasons import Verdict
from jt_nanodet.errors import UserError

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
#: Each fault: text of the port, what replaces it, and the call that must be named first.
FAULTS = {
    "resnet": ("self.conv_b, self.norm_b = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), BatchNorm(cout)",
               "self.conv_b, self.norm_b = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), BatchNorm(cout, eps=1e-3)", "layer1.bn2"),
    "transformer": ("return self.out(jt.matmul", "return 1.01 * self.out(jt.matmul", "block.attn/0"),
    "segmentation": ("nn.MaxPool2d(2, 2)", "nn.AvgPool2d(2, 2)", "pool"),
}


#: Faults of the backward pass alone: the forward pass stays as it is.
BACKWARD_FAULTS = {
    "resnet": ("return self.relu(y + (x if self.shortcut", "return self.relu(y + (x.detach() if self.shortcut", "backward/layer1/input/0", "own"),
    "transformer": ("return self.out(jt.matmul(weights, v)", "return self.out(jt.matmul(weights.detach(), v)", "backward/block.attn@2/input/0", "own"),
    "segmentation": ("jt.concat([a, self.up(b)], 1)", "jt.concat([a, self.up(b).detach()], 1)", "backward/(model)/up.weight", "own"),
}

#: Faults that only training shows, the number that must be named first, and its step: another momentum, a branch that is cut off, one that is cut off from the second step on.
TRAINING_FAULTS = {
    "resnet": ("nn.Conv2d(cout, cout, 3, 1, 1, bias=False), BatchNorm(cout)", "nn.Conv2d(cout, cout, 3, 1, 1, bias=False), BatchNorm(cout, momentum=0.2)",
               "after/model/layer1.bn2.running_mean", "module layer1.bn2 (BatchNorm2d), stage1.norm_b.running_mean in the port", 0),
    "transformer": ("def execute(self, tokens):\n            x, _ = self.block(self.embed(tokens))", "def execute(self, tokens):\n            self.seen = getattr(self, 'seen', 0) + self.is_train; e = self.embed(tokens); x, _ = self.block(e.detach() if self.seen > 2 else e)",
                    "gradient/embed.bias", "module embed (Linear)", 1),
}


def run(pair: Path, out: Path, *more: str, command=layers) -> tuple[int, dict]:
    code = command.main(["--pair", str(pair), "--output", str(out), "--threads", "1", "-q", *more])
    return code, json.loads((out / "result.json").read_text(encoding="utf-8"))


def parts(folder: Path) -> dict[str, dict]:
    """The results of a report."""
    return {name: json.loads((folder / name / "result.json").read_text(encoding="utf-8")) for name in pair_report.PARTS}


def report_of(pair: Path, out: Path) -> tuple[int, dict, dict[str, dict]]:
    code = report.main(["--pair", str(pair), "--output", str(out), "--threads", "1", "--steps", "2"])
    return code, json.loads((out / "report.json").read_text(encoding="utf-8")), parts(out)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
@pytest.mark.parametrize("name", ["resnet", "transformer", "segmentation"])
def test_an_example_passes_and_a_fault_is_found_at_its_place(tmp_path, name, capsys):
    clean = tmp_path / "clean"
    code, top, found = report_of(EXAMPLES / f"{name}.py", clean)
    assert code == 0 and top["verdict"] == "pass" and top["failed"] == top["skipped"] == 0, top["first_failure"]
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"PASSED | {top['compared']} compared, 0 failed")
    assert found["layers"]["backward"]["calls"] > 8 and found["layers"]["backward"]["agreement"]["cosine"] > 0.99999
    assert found["weights"]["compared"] > 8 and all(row["hint"] for row in found["weights"]["tensors"])
    steps = found["train"]["train"]["steps"]
    assert len(steps) == 2 and found["train"]["train"]["rows_compared"] > 50 and steps[0]["loss"]["total"]["ref"] != steps[1]["loss"]["total"]["ref"]
    assert 0 < steps[1]["free"]["weights_rel_l2"] < 0.01 and found["train"]["train"]["floors_measured"][0] == 0
    page = (clean / "report.md").read_text(encoding="utf-8")
    assert "| Training steps | PASSED |" in page and "Decode" not in page
    if name == "segmentation":
        checked(clean)
    code, result = run(changed(tmp_path, name, *FAULTS[name][:2]), tmp_path / "broken")
    assert code == 1 and result["first_failure"] == FAULTS[name][2]
    old, new, place, kind = BACKWARD_FAULTS[name]
    code, top, found = report_of(changed(tmp_path, name, old, new), tmp_path / "backward")
    assert code == 1 and top["first_failure"] == found["layers"]["first_failure"] == place and found["layers"]["first_divergence"] is None
    assert (found["layers"]["backward"]["first_divergence"]["name"], found["layers"]["backward"]["first_divergence"]["kind"]) == (place, kind)
    assert [found[part]["verdict"] for part in pair_report.PARTS] == ["pass", "pass", "fail", "fail"]
    if name in TRAINING_FAULTS:
        old, new, place, words, step = TRAINING_FAULTS[name]
        code, result = run(changed(tmp_path, name, old, new), tmp_path / "training", "--steps", "2", "--optimizer", "sgd", command=train)
        assert code == 1 and result["first_failure"] == place, result["first_failure_detail"]
        divergence = result["first_divergence"]
        assert (divergence["name"], divergence["step"]) == (place, step) and words in divergence["hint"]
    else:
        assert found["train"]["first_failure"] == "gradient/up.bias" and "module up (ConvTranspose2d)" in found["train"]["first_divergence"]["hint"]


def checked(folder: Path) -> None:
    """The report holds; with a number, a tensor or the pair file changed it does not."""
    assert verify.verify(folder, verbosity=-1).verdict is Verdict.PASS
    for name, old, new, row in (("layers/result.json", '"size": 2048', '"size": 2049', "layers/result.json"), ("pair.py", "nn.ReLU()", "nn.ReLU( )", "pair.py"),
                                ("train/result.json", '"failed": 0', '"failed": 1', "report.json")):
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert {row, f"{name} (hash)"} <= {one.name_ref for one in verify.verify(folder, verbosity=-1).rows() if one.failed}
        path.write_text(text, encoding="utf-8")


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
    for command in (layers, train, report):
        with pytest.raises(UserError, match="--timeout"):
            command.main(["--pair", str(pair), "--output", str(tmp_path / "out"), "-q", "--timeout", "0.5"])
        assert not (tmp_path / "out" / "result.json").exists() and not (tmp_path / "out" / "steps").exists()


@pytest.mark.parametrize("words", [("--steps", "0"), ("--lr", "-1"), ("--lr", "nan"), ("--floors-every", "0"), ("--config", "x.yml")])
def test_numbers_that_make_no_training_are_refused_before_anything_starts(tmp_path, words):
    with pytest.raises(UserError, match="give"):
        train.main(["--pair", str(EXAMPLES / "resnet.py"), "--output", str(tmp_path / "out"), "-q", *words])
    assert not (tmp_path / "out").exists()

"""The port uses no operator of Jittor's that the recorded atlas knows to differ, unless the place says ``# differs:`` or a reason stands here."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from alignment import ops
from alignment.atlas import uses
from alignment.atlas.pages import read_document
from alignment.atlas.table import entries
from alignment.runners.child import ROOT
from jt_nanodet.errors import UserError

PORT = ROOT / "jt_nanodet"
FINITE = "the difference is about NaN (and, for gradients, about exact ties): weights are checked when they are read, and a loss that is not finite ends the training"
#: Name -> files, and why the difference does not reach what the port computes. A file or name that needs no reason any more fails below.
ALLOWED: dict[str, tuple[set[str], str]] = {
    ".abs": ({"assigner.py", "losses.py"}, FINITE + "; at 0 the factor has the exponent 2, so its gradient is 0 whatever that of abs is, and the cross entropy has a backward of its own"),
    ".sigmoid": ({"assigner.py", "decode.py", "losses.py"}, "below -30 Jittor gives 1e-13 for less: under the last place of every cost and loss, and far under the score threshold"),
    ".sum": ({"assigner.py", "layers.py", "losses.py"}, "short sums: over classes, bins or boxes of one image, in int32 far from its end; `Scale` sums in float64; dims are named one by one"),
    ".max": ({"losses.py", "postprocess.py"}, FINITE + "; the largest logit is taken out of the gradient, and postprocess computes with NumPy"),
    ".min": ({"assigner.py", "engine/engine.py"}, "NumPy's"),
    ".mean": ({"tester.py"}, "NumPy's"),
    ".num_batches_tracked": ({"layers.py"}, "the port's own buffer, because Jittor's BatchNorm has none"),
    "jt.arange": ({"assigner.py", "losses.py"}, "of whole numbers, where the types agree"),
    "jt.full": ({"losses.py"}, "the type is given"),
    "jt.maximum": ({"boxes.py"}, FINITE),
    "jt.minimum": ({"boxes.py"}, FINITE),
    "nn.Conv2d": ({"aux_head.py", "backbone.py", "head.py", "layers.py", "neck.py"}, "what is missing is padding_mode, and the model pads with zeros"),
    "nn.MaxPool2d": ({"layers.py"}, "what is missing is dilation, and the model has none"),
}
#: Functions without an entry of their own -> why.
UNTRIED = {"nn.Conv": "a class that the engine looks for, not a call: nn.Conv2d is its other name"}


@pytest.fixture(scope="module")
def found():
    return uses.used(PORT, read_document(ops.RECORDING))


def test_what_differs_has_a_reason_at_its_place_or_here(found):
    places = defaultdict(set)
    for use, marked in found[0]:
        if marked and not use.reason:
            places[use.name].add(use.file)
    assert len(found[0]) > 300
    for name, files in places.items():
        allowed = ALLOWED.get(name, (set(), ""))[0]
        assert files <= allowed, f"{name} differs in Jittor and is used in {sorted(files - allowed)}: say `# differs: why` there, or give a reason in ALLOWED"
    needless = {name: sorted(files - places.get(name, set())) for name, (files, _) in ALLOWED.items() if files - places.get(name, set())}
    assert not needless, f"these reasons are not needed any more: {needless}"


def test_some_places_say_so_themselves(found):
    """Without these the reading of comments could be broken and nobody would see it."""
    there = {(use.file, use.name) for use, marked in found[0] if marked and use.reason}
    assert {("assigner.py", "jt.argsort"), ("assigner.py", "jt.argmin"), ("assigner.py", "jt.topk"), ("losses.py", ".max")} <= there


def test_every_function_that_the_port_calls_is_tried(found):
    assert set(found[1]) == set(UNTRIED)


def test_the_recording_is_of_these_entries():
    recorded = {(one["family"], one["name"], one["jittor"]) for one in read_document(ops.RECORDING)["entries"]}
    now = {(one.family, one.name, one.jittor) for one in entries()}
    assert recorded == now, "the entries have changed: python -m alignment.ops --output out --record reports/results/ops_atlas.json"


def document(*named: tuple[str, str, str]) -> dict:
    return {"entries": [{"name": name, "family": name.partition(",")[0], "jittor": code, "outcome": outcome} for name, code, outcome in named]}


@pytest.mark.parametrize(("named", "names"), [
    ([("sort", "jt.sort(x)[0]", "differs")], {"jt.sort"}),
    ([("relu", "nn.relu(x)", "equal")], set()),
    ([("softmax", "nn.softmax(x)", "unclear")], set()),
    ([("sum", "x.sum()", "equal"), ("sum of many", "x.sum()", "differs")], {".sum"}),
    ([("clone", "x.clone()", "equal"), ("add", "x.clone().index_add_(0, i, s)", "differs")], {".index_add_"}),
    ([("shape", "x.shape", "equal"), ("deconv", "nn.ConvTranspose1d(4, 3, 3)(x).shape", "missing")], {"nn.ConvTranspose1d"}),
    ([("zeros", "jt.zeros(3)", "equal"), ("rate, early", "jt.lr_scheduler.StepLR(jt.zeros(1))", "equal"), ("rate, late", "jt.lr_scheduler.StepLR(jt.zeros(1))", "differs")], {"lr_scheduler.StepLR"}),
    ([("norm", "jt.norm(x)", "equal"), ("sum", "x.sum()", "equal"), ("norm at zero", "jt.norm(x * 0).sum()", "differs")], {"jt.norm"}),
])
def test_whom_an_entry_speaks_about(named, names):
    assert set(uses.marked(document(*named))[0]) == names


SOURCE = '''import jittor as jt
from jittor import nn


def f(x):
    a = jt.sort(x)[0]
    b = jt.sort(x)[0]  # differs: in ties
    # differs: the comment above counts
    c = (a +
         jt.sort(x)[0])
    if jt.sort(x)[0].sum() > 0:  # differs: the head
        d = jt.sort(a)[0]
    return nn.relu(c)
'''


def test_a_planted_use_is_found_and_a_reason_covers_its_own_statement_alone(tmp_path, capsys):
    (tmp_path / "port.py").write_text(SOURCE)
    (tmp_path / "other.py").write_text("import numpy as np\nnp.sort(3)\n")
    recording = tmp_path / "atlas.json"
    entry = {"family": "order", "forward": "differs", "gradient": "", "edges": "", "findings": [{"case": "seed 0", "part": "forward", "outcome": "differs", "how": "exact", "text": "30"}]}
    recording.write_text(json.dumps({"schema_version": 1, "versions": {}, "entries": [{**entry, "name": "ties", "jittor": "jt.sort(x)[0]", "outcome": "differs"}]}))
    assert ops.main(["--used-by", str(tmp_path), "--expect", str(recording), "--output", str(tmp_path / "out")]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "jt.sort differs" in line]
    assert [line.partition(" ")[0] for line in shown] == ["port.py:6:", "port.py:12:"] and "ties: forward: 30" in shown[0]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["compared"] == 5 and [one["name"] for one in result["not_run"]] == ["nn.relu"]


@pytest.mark.parametrize(("words", "end"), [
    (["--used-by", "nowhere"], "give --used-by a Python file"), (["--used-by", "README.md", "--first", "1"], "or --used-by"),
    (["--used-by", "torch_ref"], "imports jittor: give --used-by"), (["--used-by", "README.md"], "cannot be read as Python"),
])
def test_bad_input_is_one_sentence(words, end, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=end):
        ops.main(["--output", str(tmp_path / "out"), *words])

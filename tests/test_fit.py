"""weights_convert.fit: the model's names come from another process; what fits, what does not, what is noted."""

import json
import sys

import numpy as np
import pytest

from jt_nanodet.errors import UserError
from weights_convert import fit
from weights_convert.fit import Expected, check_fit, expected_state

MODEL = {
    "backbone.0.weight": ((4, 3), "float32"),
    "backbone.1.weight": ((4,), "float32"),
    "backbone.1.num_batches_tracked": ((), "int64"),
    "head.weight": ((2, 4), "float32"),
    "aux_head.weight": ((2, 4), "float32"),
    "aux_head.1.num_batches_tracked": ((), "int64"),
}
EXPECTED = Expected(MODEL, ("aux_fpn.", "aux_head."))


def weights(*without: str, **changes) -> dict:
    whole = {name: np.zeros(shape, dtype) for name, (shape, dtype) in MODEL.items()}
    return {name: a for name, a in whole.items() if not any(part in name for part in without)} | changes


def fits(given, expected=EXPECTED):
    return check_fit(given, expected, "w.pth", "c.yml")


def test_whole_weights_fit_without_a_note():
    assert fits(weights()) == []


def test_inference_weights_are_noted():
    assert fits(weights("aux_")) == ["inference weights: 4 of 6; auxiliary branch absent"]


def test_absent_counters_are_noted():
    assert fits(weights("num_batches")) == [
        "2 batch counters (num_batches_tracked) absent: loaders start them at zero"
    ]
    assert len(fits(weights("num_batches", "aux_"))) == 2


def test_other_precision_and_order_are_noted():
    half = {name: a.astype("f2") if a.dtype.kind == "f" else a for name, a in weights().items()}
    assert fits(half) == ["other precision than the model's (float16 for float32): loaders convert it"]
    assert fits(dict(reversed(weights().items()))) == ["the order of the names is not the model's"]


def test_model_without_training_branch():
    keys = {name: what for name, what in MODEL.items() if "aux" not in name}
    assert fits(weights("aux_"), Expected(keys, ("aux_fpn.", "aux_head."))) == []
    with pytest.raises(UserError, match="2 unexpected"):
        fits(weights(), Expected(keys, ("aux_fpn.", "aux_head.")))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (weights("backbone.0"), r"1 missing \(backbone.0.weight\)"),
        (weights("aux_head.weight"), r"1 missing \(aux_head.weight\)"),
        (weights("backbone.1.num"), r"1 missing \(backbone.1.num_batches_tracked\)"),
        (weights(extra=np.zeros(1)), r"1 unexpected \(extra\)"),
        (weights(**{"head.weight": np.zeros((4, 2), "f4")}), r"1 misshaped \(head.weight \(4, 2\) for \(2, 4\)\)"),
        (weights(**{"backbone.1.num_batches_tracked": np.zeros(1, "i8")}), r"misshaped .* \(1,\) for \(\)"),
        (weights(**{"head.weight": np.zeros((2, 4), "i4")}), "1 of another type .head.weight int32 for float32"),
        ({f"x{i}": np.zeros(1) for i in range(9)}, r"3 missing \(.*\), 9 unexpected \(x0, x1, x2, …\)"),
    ],
)
def test_misfits_are_counted_and_the_first_named(given, match):
    with pytest.raises(UserError, match=match) as caught:
        fits(given)
    assert "\n" not in str(caught.value) and str(caught.value).endswith("--config FILE.yml")


def answer_with(monkeypatch, tmp_path, code: str):
    (tmp_path / "stub.py").write_text(code)
    (tmp_path / "c.yml").write_text("model: {}\n")
    monkeypatch.setattr(fit, "STATE_COMMAND", [sys.executable, str(tmp_path / "stub.py")])
    return tmp_path / "c.yml"


def test_state_is_asked_of_another_process(monkeypatch, tmp_path):
    keys = [[name, list(shape), dtype] for name, (shape, dtype) in MODEL.items()]
    text = json.dumps({"keys": keys, "training_only_prefixes": ["aux_fpn.", "aux_head."]})
    config = answer_with(monkeypatch, tmp_path, f"import sys; assert sys.argv[2] == '--json'; print({text!r})")
    assert expected_state(config) == EXPECTED


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("import sys; sys.exit('error: unknown key backbon in c.yml')", r"unknown key backbon in c.yml\); try: "),
        ("raise SystemExit(3)", "no message"),
        ("print('no JSON')", "no list of keys"),
        ("print('{}')", "no list of keys"),
        ("print('[1]')", "no list of keys"),
    ],
)
def test_failures_of_that_process_are_one_sentence(monkeypatch, tmp_path, code, match):
    config = answer_with(monkeypatch, tmp_path, code)
    with pytest.raises(UserError, match=match) as caught:
        expected_state(config)
    assert "\n" not in str(caught.value)


def test_absent_configuration_and_slow_process(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no configuration file"):
        expected_state(tmp_path / "absent.yml")
    config = answer_with(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr(fit, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UserError, match="timed out"):
        expected_state(config)

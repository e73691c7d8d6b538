"""``bench inference`` and ``bench limits`` without their processes: what is verified, what is left out, what the table says."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from jt_nanodet.bench import inference, inference_tables, limits
from jt_nanodet.errors import UserError
from tests.training.tiny import write_tiny


def files(folder, **errors):
    truth = np.linspace(-1, 1, 100)
    np.save(folder / "truth.npy", truth)
    for name, error in errors.items():
        np.save(folder / f"{name}.npy", truth + error)


def test_another_network_is_refused_and_a_coarse_one_shown(tmp_path):
    files(tmp_path, pytorch=1e-6, jt_nanodet=2e-6, openvino=1e-2)
    found: dict = {}
    inference.verify(tmp_path, {"pytorch": 1, "jt_nanodet": 1, "openvino": 1}, found)
    assert found["jt_nanodet"]["times_reference"] == pytest.approx(2, rel=1e-3) and found["openvino"]["max_error"] == pytest.approx(1e-2)
    files(tmp_path, pytorch=1e-6, jt_nanodet=1e-4)
    with pytest.raises(UserError, match="jt_nanodet computes something else"):
        inference.verify(tmp_path, {"pytorch": 1, "jt_nanodet": 1}, {})
    files(tmp_path, pytorch=1e-6, jt_nanodet=np.nan)
    with pytest.raises(UserError, match="jt_nanodet computes something else"):
        inference.verify(tmp_path, {"pytorch": 1, "jt_nanodet": 1}, {})


def test_a_constant_output_verifies_nothing(tmp_path):
    np.save(tmp_path / "truth.npy", np.full(100, -4.5))
    np.save(tmp_path / "pytorch.npy", np.full(100, -4.5))
    with pytest.raises(UserError, match="hardly varies"):
        inference.verify(tmp_path, {"pytorch": 1}, {})


def case(rounds=(2.0, 2.0, 4.0), theirs=(4.0, 5.0, 5.0), **changes):
    one = {"median_ms": 2.0, "p20_ms": 1.5, "p80_ms": 3.0, "min_ms": 1.0, "max_error": 1e-6}
    found = {"jt_nanodet": {**one, "round_medians_ms": list(rounds)}, "openvino-f32": {**one, "median_ms": 4.0, "round_medians_ms": list(theirs)},
             "onnxruntime": {"not_run": "pip install x"}, "openvino": {**one, "max_error": 0.25, "round_medians_ms": [4.0, 2.0, 4.0]}}
    return {"config": "nanodet-plus-m_320", "size": [320, 320], "batch": 1, "threads": 2, "flags": "", "rounds": 3, "contestants": found, **changes}


def test_ratios_are_those_of_neighbouring_turns():
    assert inference_tables.ratio(case(), "openvino-f32")["median"] == pytest.approx(0.5)
    assert inference_tables.ratio(case(), "onnxruntime") is None and inference_tables.ratio(case(), "pytorch") is None


def test_tables_leave_out_what_did_not_run_and_answer_what_was_asked():
    made = inference_tables.tables([case(), case(batch=8, rounds=(4.0, 4.0, 4.0))], "a CPU, 2 cores")
    assert all(len(row) == len(table["columns"]) == len(table["columns_zh"]) for table in made.values() for row in table["rows"])
    assert len(made["inference"]["rows"]) == 6 and "onnxruntime" not in str(made["ratios"]["columns"])
    assert made["ratios"]["rows"][0] == ["nanodet-plus-m_320, batch 1, 2 threads", "2.0", "4.0 (0.50)", "2.0 (1.00)"]
    answers = {tuple(row[:2]): row[-1] for row in made["asked"]["rows"]}
    assert answers["nanodet-plus-m_320, batch 1, 2 threads", "OpenVINO, float32"] == "yes" and answers["nanodet-plus-m_320, batch 8, 2 threads", "OpenVINO, float32"] == "yes"
    assert answers["nanodet-plus-m_416, batch 1, 2 threads", "OpenVINO, float32"] == "no" and "0.25" in made["ratios"]["note"]
    assert inference_tables.asked([case(batch=8, rounds=(5.0, 5.0, 5.0))])["rows"][3][3:] == ["1.00", "1.00 to 1.15", "no"]


def test_cases_are_added_and_measured_again(tmp_path):
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({"command": "bench inference", "cases": [case(), case(batch=8)]}))
    found = inference_tables.joined(str(path), [case(batch=8, rounds=(1.0,))])
    assert [one["batch"] for one in found] == [1, 8] and found[1]["contestants"]["jt_nanodet"]["round_medians_ms"] == [1.0]
    assert len(inference_tables.joined(None, [case()])) == len(inference_tables.joined(str(tmp_path / "absent"), [case()])) == 1
    for text in ("{", "[]", '{"command": "bench limits"}'):
        path.write_text(text)
        with pytest.raises(UserError, match="nothing can be added"):
            inference.main(["configs/nanodet-plus-m_320.yml", "--output", str(path), "--add"])


@pytest.mark.jittor
@pytest.mark.torch
@pytest.mark.slow
def test_contestants_take_turns_on_a_tiny_network(tmp_path, jittor, capsys):
    """The whole way, processes included; ONNX Runtime is measured where it is installed, and said not to be run elsewhere."""
    config, output = write_tiny(tmp_path), tmp_path / "speed.json"
    assert inference.main([str(config), "--rounds", "2", "--runs", "2", "--contestants", "jt_nanodet", "pytorch", "onnxruntime", "--output", str(output)]) == 0
    (found,) = json.loads(output.read_text(encoding="utf-8"))["cases"]
    for name in ("jt_nanodet", "pytorch"):
        one = found["contestants"][name]
        assert len(one["round_medians_ms"]) == 2 and 0 < one["min_ms"] <= one["median_ms"] and one["max_error"] < 1e-3 and one["peak_memory_mb"] > 10
    assert ("not_run" if importlib.util.find_spec("onnxruntime") is None else "median_ms") in found["contestants"]["onnxruntime"]
    assert "our time over it" in capsys.readouterr().out


def test_bad_counts_are_answered():
    with pytest.raises(UserError, match="are counts"):
        inference.main(["configs/nanodet-plus-m_320.yml", "--batch", "0"])
    with pytest.raises(UserError, match="one file for the first"):
        inference.main(["a.yml", "b.yml", "c.yml", "--weights", "a.npz", "b.npz"])
    with pytest.raises(UserError, match="are counts"):
        limits.main(["configs/nanodet-plus-m_320.yml", "--rounds", "0"])


def test_steps_of_one_kind_are_one_row():
    step = {"kind": "pointwise", "kernel": 1, "stride": 1, "width": 4, "height": 4, "seconds": 1e-3, "multiply_adds": 10**6}
    rows = limits.table([step, step, {**step, "kind": "upsample", "multiply_adds": 0}], 4.0)["rows"]
    assert rows[0] == ["pointwise, 4x4", 2, 2000.0, 66.7, 2.0, 50.0] and rows[-1][:2] == ["all", 3]

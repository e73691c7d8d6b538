"""``bench inference`` and ``bench limits`` without their processes: what is verified, what is left out, what the table says."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet.bench import inference, limits
from jt_nanodet.errors import UserError


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


def test_the_table_compares_with_openvino_and_leaves_out_what_did_not_run():
    one = {"median_ms": 2.0, "p20_ms": 1.5, "p80_ms": 3.0, "min_ms": 1.0, "max_error": 1e-6}
    case = {"config": "m", "batch": 1, "threads": 2, "contestants": {"jt_nanodet": one, "openvino-f32": {**one, "min_ms": 2.0}, "onnxruntime": {"not_run": "pip install x"}}}
    rows = inference.rows([case])["rows"]
    assert [row[6] for row in rows] == [0.5, 1.0] and len(rows[0]) == len(inference.rows([])["columns"])


def test_bad_counts_are_answered():
    with pytest.raises(UserError, match="are counts"):
        inference.main(["configs/nanodet-plus-m_320.yml", "--batch", "0"])
    with pytest.raises(UserError, match="are counts"):
        limits.main(["configs/nanodet-plus-m_320.yml", "--rounds", "0"])


def test_steps_of_one_kind_are_one_row():
    step = {"kind": "pointwise", "kernel": 1, "stride": 1, "width": 4, "height": 4, "seconds": 1e-3, "multiply_adds": 10**6}
    rows = limits.table([step, step, {**step, "kind": "upsample", "multiply_adds": 0}], 4.0)["rows"]
    assert rows[0] == ["pointwise, 4x4", 2, 2000.0, 66.7, 2.0, 50.0] and rows[-1][:2] == ["all", 3]

"""The size table: both precisions of every model, the mAP where weights are given, and the claims as they were made."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jt_nanodet.errors import run_cli
from reports.readme_tables import own_table
from weights_convert import fit, sizes

EXPECTED = fit.Expected({"backbone.conv1.0.weight": ((40, 3, 3, 3), "float32"), "head.n.num_batches_tracked": ((), "int64"), "aux_head.w": ((5,), "float32")}, ("aux_",))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(fit, "expected_state", lambda config: EXPECTED)
    monkeypatch.setattr(sizes, "mean_precision", lambda name, weights, images, annotations: 0.3 if "float32" in weights.stem else 0.2999)


def test_the_table(small, tmp_path):
    np.savez(tmp_path / "a.npz", **{"backbone.conv1.0.weight": np.ones((40, 3, 3, 3), "f4")})
    (tmp_path / "ann.json").write_text('{"images": [1, 2]}')
    words = ["--weights", f"nanodet-plus-m_320={tmp_path / 'a.npz'}", "--images", str(tmp_path), "--annotations", str(tmp_path / "ann.json"), "--output", str(tmp_path / "s.json")]
    assert sizes.main(words) == 0
    document = json.loads((tmp_path / "s.json").read_text())
    given, drawn = document["measured"][0], document["measured"][2]
    assert given["source"] == "released" and (given["float32"]["mAP"], given["float16"]["mAP"]) == (0.3, 0.2999) and given["numbers"] == 1080
    assert drawn["source"] == "drawn" and drawn["float32"]["mAP"] is None
    assert 2160 < given["float16"]["bytes"] < given["float32"]["bytes"] - 2000
    table, note = own_table(document["tables"]["sizes"], chinese=False)
    assert len(table.rows) == 4 and "first README 1.8" in note and "NanoDet-m (not Plus) 1.8" in note and "on 2 COCO pictures" in note


def test_bad_input(small, tmp_path, capsys):
    for words, said in ((["--weights", "x=y"], "names no model"), (["--images", "x"], "go together")):
        assert run_cli(sizes.main, [*words, "--output", str(tmp_path / "s.json")]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

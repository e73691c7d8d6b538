"""Released weights by name, from a server of the test's own: fetched, cached, held to their first checksum, converted; and what is said without a network."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest

from jt_nanodet.checkpoint import read_weights
from jt_nanodet.errors import UserError, run_cli
from jt_nanodet.run.start import starting_weights
from jt_nanodet.weight_rules import initial_weights
from tests.data.bad_server import serving
from weights_convert import fit, pretrained
from weights_convert.__main__ import main

#: A backbone and a detector so small that a test can hold them; the real names and shapes are the configuration's.
EXPECTED = fit.Expected({"backbone.conv1.0.weight": ((2, 3, 1, 1), "float32"), "head.w": ((2,), "float32"), "aux_fpn.w": ((1,), "float32")}, ("aux_",))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(fit, "expected_state", lambda config: EXPECTED)


@pytest.fixture
def run(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def started(*words):
        code = run_cli(main, [*map(str, words), "--cache", str(tmp_path / "cache"), "--timeout", "0.3"])
        return code, *capsys.readouterr()

    return started


def saved(state):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def checkpoint():
    import torch

    plain = {"backbone.conv1.0.weight": torch.ones(2, 3, 1, 1), "head.w": torch.zeros(2)}
    state = {f"{prefix}{name}": value for prefix in ("model.", "avg_model.") for name, value in plain.items()}
    return saved({"state_dict": {**state, "model.aux_fpn.w": torch.ones(1), "avg_model.aux_fpn.w": torch.ones(1)}, "epoch": 3})


@pytest.mark.torch
def test_fetched_converted_and_kept(run, tmp_path):
    with serving(checkpoint(), ["cut"]) as server:
        code, said, complaints = run("--pretrained", "nanodet-plus-m_320", "--mirror", server.url, "b.npz")
        assert code == 0, complaints
        assert "noted now; not published" in said and "EMA weights" in said and "wrote b.npz: 3 weights" in said
        asked = len(server.asked)
        code, said, _ = run("--pretrained", "nanodet-plus-m_320", "--mirror", server.url)
        assert code == 0 and "as at the first fetch" in said and len(server.asked) == asked
    assert list(read_weights(tmp_path / "nanodet-plus-m_320.pkl")) == list(read_weights(tmp_path / "b.npz"))
    (tmp_path / "cache" / "nanodet-plus-m_320_checkpoint.ckpt").write_bytes(checkpoint() + b"0")
    code, _, complaints = run("--pretrained", "nanodet-plus-m_320")
    assert code == 2 and "when it was first fetched" in complaints


@pytest.mark.torch
def test_a_backbone_gets_its_prefix_and_loses_its_end(run, tmp_path, monkeypatch):
    import torch

    body = saved({"conv1.0.weight": torch.ones(2, 3, 1, 1), "conv5.0.weight": torch.ones(2, 2, 1, 1), "fc.weight": torch.ones(4, 2)})
    entry = pretrained.TABLE["shufflenetv2_1.0x"]
    asset = type(entry.asset)(entry.asset.name, entry.asset.urls, None, hashlib.sha256(body).hexdigest()[:10])
    monkeypatch.setitem(pretrained.TABLE, "shufflenetv2_1.0x", type(entry)(asset, entry.config, entry.kind))
    with serving(body) as server:
        code, said, complaints = run("--pretrained", "shufflenetv2_1.0x", "--mirror", server.url, "b.npz")
    assert code == 0, complaints
    assert "begins with the published" in said and "a backbone alone" in said and "a detector has not" in said
    weights = read_weights(tmp_path / "b.npz")
    assert list(weights) == ["backbone.conv1.0.weight"]
    shapes = {name: shape for name, (shape, _) in EXPECTED.keys.items()}
    start, remarks = starting_weights(shapes, 5, weights, 20)
    assert np.all(start["backbone.conv1.0.weight"] == 1) and np.array_equal(start["head.w"], initial_weights(shapes, 5)["head.w"])
    assert remarks == ["The weights are a backbone alone: neck and heads start from the seed", "The weights count no batches: num_batches_tracked starts at 0"]


def test_a_wrong_file_under_the_right_name(run, tmp_path):
    with serving(b"no checkpoint at all") as server:
        code, _, complaints = run("--pretrained", "nanodet-plus-m_416", "--mirror", server.url)
        assert code == 2 and "neither a zip file nor a pickle" in " ".join(complaints.split())
        code, _, complaints = run("--pretrained", "shufflenetv2_1.5x", "--mirror", server.url)
        assert code == 2 and "what came is not the file" in complaints


def test_without_a_network(run, tmp_path):
    code, _, complaints = run("--pretrained", "nanodet-plus-m_320", "--mirror", "http://127.0.0.1:9")
    assert code == 2 and complaints.splitlines()[-1].startswith("error: ")
    place = tmp_path / "cache" / "nanodet-plus-m_320_checkpoint.ckpt"
    assert f"put it at '{place}', then repeat the command" in complaints and "https://github.com/RangiLyu/nanodet/releases" in complaints


def test_names_and_options(run, capsys):
    assert "did you mean nanodet-plus-m_320" in run("--pretrained", "nanodet-plus-m-320")[2]
    assert "give one path" in run("--pretrained", "nanodet-plus-m_320", "a.pkl", "b.pkl")[2]
    with pytest.raises(SystemExit) as left:
        main(["only.pth"])
    assert left.value.code == 2
    assert main(["--pretrained", "list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in pretrained.TABLE) and "not published" in said and "drive.google.com" in said


def test_the_table_is_sound():
    for name, entry in pretrained.TABLE.items():
        assert pretrained.config_path(name).is_file() and all(url.startswith("https://") for url in entry.asset.urls)
        assert (entry.kind == "backbone") == name.startswith("shufflenet")
    with pytest.raises(UserError, match="the names are"):
        pretrained.find("x")

"""The command line and ``convert``: exit codes, one-sentence failures, and that a failure writes nothing."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jt_nanodet.checkpoint import read_weights, write_weights
from jt_nanodet.errors import UserError, run_cli
from weights_convert import conversion, convert, fit, formats
from weights_convert.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = {"backbone.w": np.arange(6, dtype="f4").reshape(2, 3), "head.scale": np.array(1.0, "f4")}


@pytest.fixture
def source(tmp_path):
    write_weights(tmp_path / "a.npz", WEIGHTS)
    return tmp_path / "a.npz"


def command(*arguments, **kwargs):
    words = [sys.executable, "-m", "weights_convert", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, **kwargs)


def refused(capsys, *arguments, match=""):
    """The command ends with 2 and one sentence on stderr, and touches no file."""
    folder = Path(arguments[0]).parent
    before = {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*") if not p.is_fifo()}
    code = run_cli(main, [str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert code == 2 and said.out == "", said
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and match in said.err, said.err
    assert before == {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*") if not p.is_fifo()}
    return said.err


def test_command_writes_and_tells(source, tmp_path):
    run = command(source, tmp_path / "b.pkl", "--json", tmp_path / "t.json")
    assert run.returncode == 0 and run.stderr == ""
    assert "2 keys: 2 consistent, 0 renamed, 0 value_converted, 0 dropped" in run.stdout
    assert run.stdout.splitlines()[-1].startswith(f"wrote {tmp_path / 'b.pkl'}: 2 weights, SHA-256 ")
    document = json.loads((tmp_path / "t.json").read_text())
    assert [row["source"] for row in document["rows"]] == list(WEIGHTS) and document["notes"] == []
    assert document["weights_sha256"] in run.stdout
    assert list(read_weights(tmp_path / "b.pkl")) == list(WEIGHTS)
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "b.pkl", "t.json"]


def test_command_fails_in_one_sentence(tmp_path):
    run = command(tmp_path / "absent.pth", tmp_path / "b.pkl")
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: cannot read ") and run.stderr.count("\n") == 1
    assert command().returncode == 2


def test_command_works_from_another_folder_and_without_torch_or_jittor(source, tmp_path):
    code = (
        "import sys, weights_convert.__main__ as m; code = m.main(sys.argv[1:]);"
        "assert not {'torch', 'jittor', 'torch_ref'} & set(sys.modules); sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "a.npz", "b.pkl"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert run.returncode == 0 and (tmp_path / "b.pkl").exists()


def test_quiet_verbose_and_overwrite(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "b.pkl"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main([str(source), str(tmp_path / "b.pkl"), "--verbose"]) == 0
    said = capsys.readouterr().out
    assert "head.scale" in said and "existed and was replaced" in said
    assert main([str(source), str(tmp_path / "b.pkl"), "--overwrite"]) == 0
    assert "replaced" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.npz", "a.pkl"])
@pytest.mark.parametrize("damage", ["absent", "empty", "truncated", "text", "folder"])
def test_unreadable_sources(tmp_path, capsys, name, damage):
    path = tmp_path / name
    if damage == "folder":
        path.mkdir()
    elif damage == "truncated":
        pytest.importorskip("torch")
        write_weights(tmp_path / "whole.npz", WEIGHTS)
        convert(tmp_path / "whole.npz", path)
        path.write_bytes(path.read_bytes()[:-40])
    elif damage != "absent":
        path.write_bytes(b"" if damage == "empty" else b"<html>404</html>")
    refused(capsys, path, tmp_path / "out.pkl")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_malicious_pickle(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.ones(1), "x": Bomb()}))
    refused(capsys, tmp_path / "a.pkl", tmp_path / "out.npz", match="system'")


@pytest.mark.torch
def test_malicious_ckpt_is_read_without_running_it(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"model.w": torch.ones(2)}, "callbacks": Bomb(), "anything": [Bomb()]}, "a.ckpt")
    assert main(["a.ckpt", "b.pkl"]) == 0
    assert "1 foreign classes named in the file were neither imported nor run: posix.system" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "b.pkl"]
    torch.save({"state_dict": {"model.w": torch.ones(2), "model.x": Bomb()}}, "a.ckpt")
    refused(capsys, tmp_path / "a.ckpt", tmp_path / "c.pkl", match="'posix.system' and no tensor as 'model.x'")
    torch.load("a.ckpt", weights_only=False)  # the should-fail twin
    assert (tmp_path / "executed").exists()


def test_nonfinite_weights(tmp_path, capsys):
    write_weights(tmp_path / "a.npz", {**WEIGHTS, "head.bias": np.array([0, np.nan, np.inf], "f4")})
    refused(capsys, tmp_path / "a.npz", tmp_path / "b.pkl", match="2 NaN or infinite values in 1 of 3 arrays")
    assert main([str(tmp_path / "a.npz"), str(tmp_path / "b.pkl"), "--allow-nonfinite"]) == 0
    assert np.isnan(read_weights(tmp_path / "b.pkl")["head.bias"][1])


def test_selection_that_is_not_there(source, tmp_path, capsys):
    refused(capsys, source, tmp_path / "b.pkl", "--weights", "ema", match="--weights auto")


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_destination_is_the_source(source, tmp_path, capsys, link):
    target = source
    if link:
        target = tmp_path / "other.npz"
        link(source, target)
    refused(capsys, source, target, match="is the source as well")


def test_places_that_cannot_be_written(source, tmp_path, capsys):
    refused(capsys, source, tmp_path / "absent" / "b.pkl", match="mkdir -p")
    refused(capsys, source, tmp_path / "b.onnx", match=".pkl")
    (tmp_path / "c.pkl").mkdir()
    refused(capsys, source, tmp_path / "c.pkl", match="is a folder")
    refused(capsys, source, tmp_path / "b.pkl", "--json", tmp_path / "absent" / "t.json", match="mkdir -p")
    refused(capsys, source, tmp_path / "b.pkl", "--json", tmp_path / "b.pkl", match="is the destination as well")
    refused(capsys, source, tmp_path / "b.pkl", "--json", source, match="is the source as well")


def test_read_back_that_differs_keeps_the_old_file(source, tmp_path, monkeypatch):
    (tmp_path / "b.pkl").write_bytes(b"old")
    wrong = {**WEIGHTS, "backbone.w": WEIGHTS["backbone.w"] + 1}
    genuine = formats.write_destination
    monkeypatch.setattr(conversion.formats, "write_destination", lambda file, suffix, _: genuine(file, suffix, wrong))
    with pytest.raises(UserError, match="did not read back"):
        convert(source, tmp_path / "b.pkl")
    assert (tmp_path / "b.pkl").read_bytes() == b"old" and sorted(os.listdir(tmp_path)) == ["a.npz", "b.pkl"]


def test_writing_pth_without_pytorch(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    refused(capsys, source, tmp_path / "b.pth", match="pip install torch")


def state_stub(tmp_path, monkeypatch, keys: dict):
    answer = {"keys": [[n, list(a.shape), str(a.dtype)] for n, a in keys.items()], "training_only_prefixes": ["aux_"]}
    (tmp_path / "stub.py").write_text(f"print({json.dumps(answer)!r})")
    (tmp_path / "c.yml").touch()
    monkeypatch.setattr(fit, "STATE_COMMAND", [sys.executable, str(tmp_path / "stub.py")])


def test_config_that_fits(source, tmp_path, capsys, monkeypatch):
    state_stub(tmp_path, monkeypatch, WEIGHTS | {"aux_head.w": np.zeros(3, "f4")})
    assert main([str(source), str(tmp_path / "b.pkl"), "--config", str(tmp_path / "c.yml")]) == 0
    assert "note: inference weights: 2 of 3; auxiliary branch absent" in capsys.readouterr().out


def test_config_of_another_architecture(source, tmp_path, capsys, monkeypatch):
    state_stub(tmp_path, monkeypatch, {"backbone.w": np.zeros((9, 3), "f4"), "neck.w": np.zeros(1)})
    said = refused(capsys, source, tmp_path / "b.pkl", "--config", tmp_path / "c.yml", match="do not fit the model of")
    assert "1 missing (neck.w), 1 unexpected (head.scale), 1 misshaped (backbone.w (2, 3) for (9, 3))" in said

"""Folders of dumped tensors: equal bits, a measured floor, and what cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignment import dumps, layers
from jt_nanodet.errors import UserError


def dump(folder, tensors, npz=False):
    folder.mkdir(parents=True)
    np.savez(folder / "t.npz", **tensors) if npz else save_file(tensors, folder / "t.safetensors")


def verdict(tmp_path, out="out"):
    code = layers.main(["--ref", str(tmp_path / "ref"), "--cand", str(tmp_path / "cand"), "--output", str(tmp_path / out), "-q"])
    return code, json.loads((tmp_path / out / "result.json").read_text())


def values(seed=0):
    return np.random.RandomState(seed).randn(64).astype(np.float32)


def test_equal_bits_pass_and_formats_may_differ(tmp_path):
    dump(tmp_path / "ref", {"a": values(), "n": np.arange(3)})
    dump(tmp_path / "cand", {"a": values(), "n": np.arange(3)}, npz=True)
    code, result = verdict(tmp_path)
    assert code == 0 and result["compared"] == 2


def test_without_a_floor_a_difference_is_undecided_and_with_one_it_is_decided(tmp_path):
    dump(tmp_path / "ref", {"a": values(), "b": values(1)})
    dump(tmp_path / "cand", {"a": np.nextafter(values(), np.float32(9)), "b": values(1) * np.float32(1.01)})
    assert verdict(tmp_path)[1]["verdict"] == "inconclusive"
    dump(tmp_path / "ref" / "float64", {"a": values().astype(np.float64), "b": values(1).astype(np.float64)})
    dump(tmp_path / "ref" / "repeat1", {"a": np.nextafter(values(), np.float32(-9)), "b": np.nextafter(values(1), np.float32(-9))})
    code, result = verdict(tmp_path)
    assert code == 1 and result["failed"] == 1 and result["first_failure"] == "b" and result["first_failure_detail"]["reason"] == "constant_scale"


def test_a_tensor_on_one_side_only_fails(tmp_path):
    dump(tmp_path / "ref", {"a": values(), "b": values()})
    dump(tmp_path / "cand", {"a": values(), "c\n<script>": values(2)})
    code, result = verdict(tmp_path)
    assert code == 1 and result["failed"] == 2


@pytest.mark.parametrize("name", ["t.safetensors", "t.npz"])
def test_a_file_cut_short_and_an_empty_folder_are_refused(tmp_path, name):
    dump(tmp_path / "ref", {"a": values()}, npz=name.endswith("npz"))
    path = tmp_path / "ref" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="dump it again"):
        dumps.read(tmp_path / "ref")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no"):
        dumps.read(tmp_path / "none")


def test_one_folder_against_itself_proves_nothing(tmp_path):
    dump(tmp_path / "ref", {"a": values()})
    with pytest.raises(UserError, match="same folder"):
        layers.main(["--ref", str(tmp_path / "ref"), "--cand", str(tmp_path / "ref"), "--output", str(tmp_path / "out")])

"""Folders of dumped tensors: equal bits, a measured floor, and what cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignment import layers
from alignment.compare import compare_tensors
from alignment.dump_files import Folder
from alignment.noise import measure_floor, tolerance_from_floor
from alignment.result import plain
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


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
        Folder(tmp_path / "ref")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no"):
        Folder(tmp_path / "none")


def test_one_folder_against_itself_proves_nothing(tmp_path):
    dump(tmp_path / "ref", {"a": values()})
    with pytest.raises(UserError, match="same folder"):
        layers.main(["--ref", str(tmp_path / "ref"), "--cand", str(tmp_path / "ref"), "--output", str(tmp_path / "out")])


LAYOUTS = ["safetensors", "npy", "npz", "compressed", "npy, Fortran's order", "npz, Fortran's order", "compressed, Fortran's order", "npy, big-endian"]


def stored(folder, layout, array, name="a"):
    """The array in a file of its own, as the layout says."""
    folder.mkdir(parents=True, exist_ok=True)
    if "Fortran" in layout:
        array = np.asfortranarray(array)
    if "big-endian" in layout:
        array = array.astype(array.dtype.newbyteorder(">"))
    kind = layout.split(",")[0]
    if kind == "safetensors":
        save_file({name: array}, folder / f"{name}.safetensors")
    elif kind == "npy":
        np.save(folder / f"{name}.npy", array)
    else:
        (np.savez_compressed if kind == "compressed" else np.savez)(folder / f"{name}.npz", **{name: array})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_in_blocks_and_gives_the_same_row(tmp_path, layout, monkeypatch):
    """With blocks of 1000 elements; one element differs, and the row is that of the arrays in memory, but for the order of sums."""
    monkeypatch.setattr("alignment.measures.CHUNK", 1000)
    ref = np.random.RandomState(0).randn(3, 4, 50, 31).astype(np.float32)
    cand = ref.copy()
    cand[2, 3, 49, 0] += np.float32(0.25)
    stored(tmp_path / "ref", layout, ref)
    stored(tmp_path / "cand", layout, cand)
    truth, repeat = ref.astype(np.float64), np.nextafter(ref, np.float32(9))
    stored(tmp_path / "ref" / "float64", layout, truth)
    stored(tmp_path / "ref" / "repeat1", layout, repeat)
    code, result = verdict(tmp_path)
    bound = tolerance_from_floor(measure_floor(truth, [ref, repeat], ["as is", "repeat1"]))
    whole = plain(compare_tensors("a", ref, cand, tolerance=bound, ref64=truth).to_json())
    assert code == 1 and result["tensors"][0] == {**whole, "sqnr_db": pytest.approx(whole["sqnr_db"])}
    assert (whole["reason"], whole["index"], whole["beyond"]) == ("isolated", [2, 3, 49, 0], 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_are_the_array(tmp_path, layout):
    array = np.random.RandomState(1).randn(7, 5, 3)
    stored(tmp_path, layout, array)
    blocks = Folder(tmp_path)["a"]
    assert (blocks.shape, blocks.dtype, blocks.size, blocks.nbytes) == ((7, 5, 3), np.float64, 105, 840)
    for part in (slice(0, 105), slice(50, 60), slice(10, 20), slice(104, 105), slice(5, 5)):
        assert np.array_equal(blocks[part], array.reshape(-1)[part])
    assert blocks[17] == array.reshape(-1)[17] and blocks[-1] == array[-1, -1, -1] and np.array_equal(np.asarray(blocks), array)
    with pytest.raises(IndexError):
        blocks[105]


#: Compares a pair of 10^7 elements; only a process of its own knows its own peak. The second size is that of importing everything.
PEAK = """
import sys
from alignment import layers
from jt_nanodet.run.memory import peak_memory_bytes
before = peak_memory_bytes()
code = layers.main(["--ref", "ref", "--cand", "cand", "--output", "out", "-q"])
print(code, before, peak_memory_bytes())
"""


@pytest.mark.parametrize("layout", ["safetensors", "npz", "compressed"])
def test_ten_million_elements_are_compared_in_little_memory(tmp_path, layout):
    """Ref, candidate, float64 and a repeat hold 200 MB; what the comparison adds to the size of the bare program stays below 100 MB, whatever the format."""
    ref = (np.arange(10**7, dtype=np.float32) % 4096 + 1).reshape(2, 5, 1000, 1000)  # compresses in a second
    stored(tmp_path / "ref", layout, ref)
    stored(tmp_path / "ref" / "float64", layout, ref.astype(np.float64))
    stored(tmp_path / "ref" / "repeat1", layout, ref)
    ref[1, 4, 999, 999] += 1
    stored(tmp_path / "cand", layout, ref)
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    code, before, after = map(int, done.stdout.split()[-3:])
    row = json.loads((tmp_path / "out" / "result.json").read_text())["tensors"][0]
    assert code == 1 and (row["reason"], row["index"], row["beyond"]) == ("isolated", [1, 4, 999, 999], 1)
    assert after - before < 100 << 20


def test_a_file_cut_short_while_it_is_compared_is_one_sentence(tmp_path):
    stored(tmp_path, "npy", np.zeros(10**6))
    blocks = Folder(tmp_path)["a"]
    with open(tmp_path / "a.npy", "r+b") as file:
        file.truncate(10**6)
    with pytest.raises(UserError, match="shorter while it was being read.*dump it again"):
        blocks[900_000:900_010]
    (tmp_path / "a.npy").unlink()
    with pytest.raises(UserError, match="dump it again"):
        blocks[0:10]

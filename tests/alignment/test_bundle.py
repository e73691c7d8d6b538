"""A bundle comes back as it was written, or not at all; two bundles are compared only when everything that decides the result is equal."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from alignment.bundle import Bundle, BundleWriter, Header, array_sha256, comparable
from alignment.compare import compare_bundles
from alignment.reasons import Reason, Verdict
from jt_nanodet.errors import UserError

HEADER = Header("layers", "pytorch", "torch", "c" * 64, "w" * 64, "i" * 64, "k" * 64, 7, command="python -m alignment.layers --config x.yml --output y")
ARRAYS = {
    "input": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "head/gfl_cls.0 (ü, *, ..)": np.arange(6, dtype=np.int64).reshape(3, 2).T,
    "scale": np.array(2.5, np.float32), "keep": np.array([True, False]), "none": np.zeros((0, 4), np.float32), "half": np.ones(3, np.float16),
    "double": np.full((1, 1), np.pi), "bytes": np.arange(5, dtype=np.uint8), "big endian": np.arange(3, dtype=">f4"),
}


def write(folder, header=HEADER, arrays=ARRAYS, **more):
    with BundleWriter(folder, header, **more) as bundle:
        for name, array in arrays.items():
            bundle.add(name, array)
    return Bundle.open(folder)


@pytest.mark.parametrize("shard_bytes", [1, 100, 1 << 28])
def test_round_trip(tmp_path, shard_bytes):
    bundle = write(tmp_path / "b", shard_bytes=shard_bytes)
    assert list(bundle) == list(bundle.stages) == list(ARRAYS) and bundle.header == HEADER
    for name, array in ARRAYS.items():
        assert bundle[name].dtype == array.dtype.newbyteorder("=") and bundle[name].shape == array.shape == bundle.shape(name), name
        np.testing.assert_array_equal(bundle[name], array)
        assert bundle.sha256(name) == array_sha256(array)
    assert bundle.altered() == [] and "absent" not in bundle and os.listdir(tmp_path) == ["b"]


def test_arrays_are_copied_and_read_only(tmp_path):
    buffer = np.zeros(4, np.float32)
    with BundleWriter(tmp_path / "b", HEADER) as bundle:
        for step in range(2):
            buffer[:] = step
            bundle.add(f"step{step:04d}/x", buffer)
    opened = Bundle.open(tmp_path / "b")
    assert opened["step0000/x"].tolist() == [0] * 4 and opened["step0001/x"].tolist() == [1] * 4
    with pytest.raises(ValueError):
        opened["step0000/x"][0] = 3


def test_header_is_amended_at_the_end(tmp_path):
    writer = BundleWriter(tmp_path / "b", dataclasses.replace(HEADER, durations={"build": 1.0}))
    writer.add("x", np.ones(1))
    writer.close(durations={"forward": 2.0}, peak_memory_mb=12.5, extra={"images": 3})
    header = Bundle.open(tmp_path / "b").header
    assert (header.durations, header.peak_memory_mb, header.extra) == ({"build": 1.0, "forward": 2.0}, 12.5, {"images": 3})


@pytest.mark.parametrize("name, array", [
    ("", np.ones(1)), ("__metadata__", np.ones(1)), ("x", np.ones(1)), ("y", np.array(["a"])), ("y", np.array([object()])), ("y", np.ones(1, np.complex64)),
])
def test_what_cannot_be_stored_is_refused(tmp_path, name, array):
    writer = BundleWriter(tmp_path / "b", HEADER)
    writer.add("x", np.ones(1))
    with pytest.raises(ValueError):
        writer.add(name, array)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        with BundleWriter(tmp_path / "b", HEADER, shard_bytes=1) as bundle:
            bundle.add("x", np.ones(4))
            raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_a_bundle_is_replaced_but_no_other_folder(tmp_path):
    write(tmp_path / "b")
    assert list(write(tmp_path / "b", arrays={"new": np.ones(1)})) == ["new"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="give another folder"):
        BundleWriter(tmp_path / "mine", HEADER)
    assert (tmp_path / "mine" / "precious.txt").exists()


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="--output"):
        BundleWriter(tmp_path / "file" / "b", HEADER)


def damage(kind, folder):
    header, tensors = folder / "header.json", folder / "tensors.safetensors"
    document = json.loads(header.read_text())
    if kind == "missing folder":
        shutil.rmtree(folder)
    elif kind == "no header":
        header.unlink()
    elif kind == "header cut off":
        header.write_text(header.read_text()[:200])
    elif kind == "header is a list":
        header.write_text("[]")
    elif kind == "tensors cut off":
        tensors.write_bytes(tensors.read_bytes()[:-5])
    elif kind == "tensors empty":
        tensors.write_bytes(b"")
    elif kind == "tensors missing":
        tensors.unlink()
    elif kind == "rubbish of equal length":
        tensors.write_bytes(b"\xff" * tensors.stat().st_size)
    elif kind == "other schema":
        header.write_text(json.dumps({**document, "schema_version": 99}))
    elif kind == "stage without a tensor":
        header.write_text(json.dumps({**document, "stages": [*document["stages"], "more"]}))
    elif kind == "tensor without a file":
        document["tensors"]["more"] = document["tensors"]["input"]
        header.write_text(json.dumps({**document, "stages": [*document["stages"], "more"]}))
    elif kind == "other shape":
        document["tensors"]["input"]["shape"] = [24]
        header.write_text(json.dumps(document))
    elif kind == "path outside":
        document["files"] = {"../x": 1}
        header.write_text(json.dumps(document))


@pytest.mark.parametrize("kind", [
    "missing folder", "no header", "header cut off", "header is a list", "tensors cut off", "tensors empty", "tensors missing", "rubbish of equal length",
    "other schema", "stage without a tensor", "tensor without a file", "other shape", "path outside",
])
def test_a_damaged_bundle_is_refused_with_the_command_to_write_it_again(tmp_path, kind):
    write(tmp_path / "b")
    damage(kind, tmp_path / "b")
    with pytest.raises(UserError, match=r"again with `make parity`\.$"):
        Bundle.open(tmp_path / "b", regenerate="make parity")


def test_its_own_command_is_named(tmp_path):
    write(tmp_path / "b")
    damage("tensors cut off", tmp_path / "b")
    with pytest.raises(UserError, match="alignment.layers --config x.yml"):
        Bundle.open(tmp_path / "b")


def test_changed_bytes_are_found(tmp_path):
    write(tmp_path / "b")
    tensors = tmp_path / "b" / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    assert len(Bundle.open(tmp_path / "b").altered()) == 1


@pytest.mark.parametrize("change, reason", [
    ({"config_sha256": "x"}, Reason.CONFIG_DIFFERS), ({"weights_sha256": "x"}, Reason.WEIGHTS_DIFFER), ({"inputs_sha256": "x"}, Reason.INPUTS_DIFFER),
    ({"seed": 8}, Reason.SEED_DIFFERS), ({"kind": "infer"}, Reason.KIND), ({"flags": {"training": True}}, Reason.FLAGS_DIFFER),
    ({"code_sha256": ""}, Reason.UNHASHED),
], ids=lambda value: str(value))
def test_a_pair_that_cannot_be_compared(tmp_path, change, reason):
    ref = write(tmp_path / "a", dataclasses.replace(HEADER, flags={"training": False, "mkldnn": True}))
    cand = write(tmp_path / "b", dataclasses.replace(HEADER, side="jittor", framework="jittor", **change))
    (objection,) = comparable(ref, cand)
    assert objection.reason is reason and objection.text


def test_a_pair_that_can(tmp_path):
    ref, cand = write(tmp_path / "a"), write(tmp_path / "b", dataclasses.replace(HEADER, side="jittor", code_sha256="j", threads=3, flags={"fuse": 1}))
    assert comparable(ref, cand) == []
    rows = compare_bundles(ref, cand, {}, allow_0d_as_1d=True)
    assert [row.name_ref for row in rows] == list(ARRAYS)
    assert {row.reason for row in rows} == {Reason.OK, Reason.EMPTY} and rows[0].verdict is Verdict.PASS


def test_one_run_is_not_a_pair(tmp_path):
    bundle = write(tmp_path / "b")
    os.symlink(tmp_path / "b", tmp_path / "link")
    (objection,) = comparable(bundle, Bundle.open(tmp_path / "link"))
    assert objection.reason is Reason.SAME_RUN


def test_stale(tmp_path):
    bundle = write(tmp_path / "b")
    assert bundle.stale(code_sha256="k" * 64, weights_sha256="w" * 64) == []
    (objection,) = bundle.stale(code_sha256="today")
    assert objection.reason is Reason.STALE and "alignment.layers" in objection.text
    with pytest.raises(ValueError):
        bundle.stale(colour="red")

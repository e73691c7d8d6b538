"""alignment.bundle, sentence by sentence: what a bundle says when it cannot be written, read or compared, and where shards begin."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alignment import bundle as b
from alignment.bundle import Bundle, BundleWriter, Header, Objection, array_sha256, comparable
from alignment.reasons import Reason
from jt_nanodet.errors import UserError

HEADER = Header(kind="layers", side="pytorch", framework="torch", config_sha256="c" * 64, weights_sha256="w" * 64, inputs_sha256="i" * 64, code_sha256="p" * 64, seed=3)


def written(folder, arrays, header=HEADER, **more):
    with BundleWriter(folder, header, **more) as writer:
        for name, array in arrays.items():
            writer.add(name, array)
    return folder


def document(folder):
    return json.loads((folder / "header.json").read_text(encoding="utf-8"))


def changed(folder, **changes):
    (folder / "header.json").write_text(json.dumps({**document(folder), **changes}, ensure_ascii=False), encoding="utf-8")
    return folder


def test_hash_of_an_array():
    big = np.arange(3, dtype=">f4")
    assert array_sha256(big) == hashlib.sha256(b"float32 (3,)\n" + np.arange(3, dtype="<f4").tobytes()).hexdigest()
    assert array_sha256(np.float32(2)) == hashlib.sha256(b"float32 ()\n" + np.float32(2).tobytes()).hexdigest()
    turned = np.arange(6).reshape(2, 3).T
    assert array_sha256(turned) == array_sha256(turned.copy()) != array_sha256(turned.reshape(2, 3)) and array_sha256(np.zeros((0, 3))) != array_sha256(np.zeros((3, 0)))


@pytest.mark.parametrize(("name", "array", "said"), [
    ("", np.ones(1), "^the stage name '' is not allowed$"), ("__metadata__", np.ones(1), "^the stage name '__metadata__' is not allowed$"), ("a", np.ones(1), "^the stage name 'a' is taken$"),
    ("z", np.ones(1, np.complex64), "^z: type complex64 cannot be stored; use one of float64, float32, float16, int64, int32, int16, int8, uint8, bool$"),
])
def test_what_cannot_be_added(tmp_path, name, array, said):
    with pytest.raises(ValueError, match=said), BundleWriter(tmp_path / "x", HEADER) as writer:
        writer.add("a", np.ones(1))
        writer.add(name, array)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_side(tmp_path):
    with pytest.raises(ValueError, match=r"^side must be one of \('pytorch', 'jittor'\), not 'mxnet'$"):
        BundleWriter(tmp_path / "x", dataclasses.replace(HEADER, side="mxnet"))


@pytest.mark.parametrize(("limit", "files"), [(16, 2), (17, 1), (24, 1), (25, 1), (8, 3), (1, 3)])
def test_shards_begin_where_they_are_full(tmp_path, limit, files):
    """Three arrays of 8 bytes."""
    arrays = {name: np.full(1, k, np.float64) for k, name in enumerate("abc")}
    found = Bundle.open(written(tmp_path / "x", arrays, shard_bytes=limit))
    names = ["tensors.safetensors", "tensors-0002.safetensors", "tensors-0003.safetensors"]
    assert list(document(tmp_path / "x")["files"]) == names[:files] and all(found[name] == arrays[name] for name in arrays)
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == sorted([*names[:files], "header.json"])


def test_every_shard_is_counted_from_nothing(tmp_path):
    written(tmp_path / "x", {name: np.full(1, k, np.float64) for k, name in enumerate("abcdef")}, shard_bytes=17)
    assert [one["file"] for one in document(tmp_path / "x")["tensors"].values()] == ["tensors.safetensors"] * 3 + ["tensors-0002.safetensors"] * 3


def test_what_an_earlier_attempt_left_is_removed(tmp_path):
    left = tmp_path / f".x.{os.getpid()}.partial"
    left.mkdir()
    (left / "half").write_text("x")
    written(tmp_path / "x", {"a": np.ones(1)})
    assert os.listdir(tmp_path) == ["x"] and sorted(os.listdir(tmp_path / "x")) == ["header.json", "tensors.safetensors"]


def test_a_second_end_does_nothing(tmp_path):
    for end in (BundleWriter.close, BundleWriter.abort):
        writer = BundleWriter(tmp_path / "x", HEADER)
        writer.add("a", np.ones(1))
        writer.close()
        end(writer)
        assert Bundle.open(tmp_path / "x")["a"] == 1
    gone = BundleWriter(tmp_path / "y", HEADER)
    shutil.rmtree(tmp_path / f".y.{os.getpid()}.partial")
    gone.abort()
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(("place", "error", "said"), [
    ("save_file", ValueError("disk full"), "disk full"), ("save_file", OSError(28, "No space left on device"), "No space left on device"), ("os.replace", OSError(13, "Permission denied"), "Permission denied"),
])
def test_a_disk_that_fails_is_named_and_leaves_nothing(tmp_path, monkeypatch, place, error, said):
    def fail(*args):
        raise error

    with pytest.raises(UserError, match=f"x cannot be written .{said}.; give a folder you can write to with --output.$"), BundleWriter(tmp_path / "x", HEADER) as writer:
        writer.add("a", np.ones(1))
        if place == "save_file":
            monkeypatch.setattr(b, "save_file", fail)
        else:
            kept = os.replace  # header.json is renamed as well, within the folder
            monkeypatch.setattr(b.os, "replace", lambda source, target: fail() if str(target).endswith("x") else kept(source, target))
    assert os.listdir(tmp_path) == []


def test_a_bundle_is_read_in_any_locale(tmp_path):
    assert list(Bundle.open(written(tmp_path / "x", {"头": np.ones(1)}))) == ["头"]
    again = "import sys; from alignment.bundle import Bundle; sys.stdout.buffer.write(list(Bundle.open(sys.argv[1]))[0].encode('utf-8'))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", again, str(tmp_path / "x")], env=environment, cwd=Path(b.__file__).parents[1], check=True, capture_output=True)
    assert done.stdout.decode("utf-8") == "头"


def replaced(folder, entries, data):
    """The bundle's file as one with this header and these bytes; its size as recorded fits."""
    head = json.dumps(entries).encode()
    (folder / "tensors.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    return changed(folder, files={"tensors.safetensors": 8 + len(head) + len(data)})


def test_words_beside_the_tensors_are_passed_over(tmp_path):
    good = written(tmp_path / "x", {"a": np.ones(1)})
    entry = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
    for entries in ({"__metadata__": {"a": "b"}, "a": entry}, {"a": entry, "__metadata__": {"a": "b"}}):
        assert Bundle.open(replaced(good, entries, np.full(1, 3.0).tobytes()))["a"].tolist() == [3.0]


@pytest.mark.parametrize("place", [[0, 7], [0, 4], [1, 9], [8, 16], [-8, 0], [8, 0], [0, 9]])
def test_bytes_that_are_not_the_tensors(tmp_path, place):
    """The file holds eight bytes after its header, all of them the tensor's."""
    good = written(tmp_path / "x", {"a": np.ones(1)})
    with pytest.raises(UserError, match="tensors.safetensors and header.json disagree about 'a'"):
        Bundle.open(replaced(good, {"a": {"dtype": "F64", "shape": [1], "data_offsets": place}}, bytes(8)))


def test_arrays_are_copied_when_they_are_added(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    with BundleWriter(tmp_path / "deep" / "x", HEADER) as writer:
        writer.add("a", array)
        writer.add("big", np.arange(3, dtype=">i4"))
        array[:] = 0
    found = Bundle.open(tmp_path / "deep" / "x")
    assert np.array_equal(found["a"], np.arange(6.0).reshape(2, 3)) and found["big"].tolist() == [0, 1, 2] and found.dtype("a") == np.float64 and found.dtype("big") == np.int32
    moment = datetime.datetime.fromisoformat(found.created)
    assert moment.utcoffset() == datetime.timedelta(0) and abs((datetime.datetime.now(datetime.timezone.utc) - moment).total_seconds()) < 60


def test_a_folder_or_file_in_the_way_is_kept(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(UserError, match=f"{name} exists and is no bundle; give another folder with --output.$"):
            BundleWriter(tmp_path / name, HEADER)
    with pytest.raises(UserError, match=r"deeper cannot be written \((File exists|Not a directory)\); give a folder you can write to with --output.$"):
        BundleWriter(tmp_path / "file" / "deeper", HEADER)
    (tmp_path / "empty").mkdir()
    assert Bundle.open(written(tmp_path / "empty", {"a": np.ones(1)}))["a"] == 1


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "none").mkdir()
    for folder, more, said in ((tmp_path / "none", {}, "none holds no complete bundle; run the command that writes it again.$"), (tmp_path / "gone", {}, "gone does not exist; run the command that writes it again.$"),
                               (tmp_path / "gone", {"regenerate": "make it"}, "gone does not exist; write it again with `make it`.$")):
        with pytest.raises(UserError, match=said):
            Bundle.open(folder, **more)
    good = written(tmp_path / "x", {"a": np.ones(3)}, dataclasses.replace(HEADER, command="python -m y"))
    whole = document(good)
    for changes, said in (
        ({"schema_version": 9}, "has schema version 9, and this program reads 1; write it again with `python -m y`.$"), ({"stages": ["b"]}, r"is incomplete \(its list of stages is not its list of tensors\)"),
        ({"files": {"../x": 1}}, r"\(../x is no plain file name\)"), ({"files": {"tensors.safetensors": 5}}, r"\(tensors.safetensors has \d+ bytes instead of 5\)"),
        ({"files": {}}, r"\(1 tensors are not in its files, the first is 'a'\)"), ({"tensors": {"a": {**whole["tensors"]["a"], "shape": [4]}}}, r"\(tensors.safetensors and header.json disagree about 'a'\)"),
        ({"tensors": {"a": {**whole["tensors"]["a"], "dtype": "int64"}}}, "disagree about 'a'"),
    ):
        changed(good, **{**whole, **changes})
        with pytest.raises(UserError, match=said):
            Bundle.open(good)
    changed(good, **{**whole, "command": "重做"})
    (good / "tensors.safetensors").write_bytes((99).to_bytes(8, "little") + b"{}")
    changed(good, **{**whole, "files": {"tensors.safetensors": 10}, "command": "重做"})
    with pytest.raises(UserError, match=r"\(tensors.safetensors is no safetensors file\); write it again with `重做`.$"):
        Bundle.open(good)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_the_length_of_a_header(tmp_path, length):
    """Ten bytes hold a length and a header of two; nothing less or more."""
    good = written(tmp_path / "x", {"a": np.ones(3)})
    (good / "tensors.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    changed(good, files={"tensors.safetensors": 10}, stages=[], tensors={})
    if length == 2:
        assert len(Bundle.open(good)) == 0
    else:
        with pytest.raises(UserError, match="is incomplete .Expecting property name" if length == 1 else "is no safetensors file"):
            Bundle.open(good)


def sides(tmp_path, **changes):
    ref = Bundle.open(written(tmp_path / "ref", {"a": np.ones(1)}))
    cand = Bundle.open(written(tmp_path / "cand", {"a": np.ones(1)}, dataclasses.replace(HEADER, **{"side": "jittor", **changes})))
    return ref, cand


@pytest.mark.parametrize(("changes", "objections"), [
    ({}, []), ({"seed": 4}, [(Reason.SEED_DIFFERS, "seed differs: 3 for the reference, 4 for the candidate")]),
    ({"weights_sha256": "v" * 17}, [(Reason.WEIGHTS_DIFFER, "weights_sha256 differs: wwwwwwwwwwww... for the reference, vvvvvvvvvvvv... for the candidate")]),
    ({"inputs_sha256": "v" * 16}, [(Reason.INPUTS_DIFFER, "inputs_sha256 differs: iiiiiiiiiiii... for the reference, 'vvvvvvvvvvvvvvvv' for the candidate")]),
    ({"kind": "infer", "device": "cuda", "threads": 9, "code_sha256": "other"}, [(Reason.KIND, "kind differs: 'layers' for the reference, 'infer' for the candidate")]),
])
def test_what_may_differ_and_what_may_not(tmp_path, changes, objections):
    assert comparable(*sides(tmp_path, **changes)) == [Objection(*one) for one in objections]


def test_what_was_not_recorded(tmp_path):
    ref, cand = sides(tmp_path, inputs_sha256="", code_sha256="")
    assert comparable(ref, cand)[0] == Objection(Reason.UNHASHED, f"{cand.path} does not record inputs_sha256, code_sha256")
    assert comparable(ref, ref) == [Objection(Reason.SAME_RUN, f"reference and candidate are the same bundle, {ref.path}")]


def test_stale(tmp_path):
    made = Bundle.open(written(tmp_path / "x", {"a": np.ones(1)}, dataclasses.replace(HEADER, command="python -m y")))
    bare = Bundle.open(written(tmp_path / "z", {"a": np.ones(1)}))
    assert made.stale(code_sha256="p" * 64, config_sha256="c" * 64) == []
    assert made.stale(weights_sha256="new") == [Objection(Reason.STALE, f"{made.path} was made with another weights than today's; run `python -m y` again")]
    assert bare.stale(code_sha256="new")[0].text == f"{bare.path} was made with another code than today's; run the command that wrote it again"
    with pytest.raises(ValueError, match="^no such hash: a, b$"):
        made.stale(a="x", b="y")


def test_words_of_a_short_value():
    assert [b._short(one) for one in ("x" * 16, "x" * 17, 5, None)] == [repr("x" * 16), "x" * 12 + "...", "5", "None"]

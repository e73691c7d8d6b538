"""Folders of tensors that somebody damaged or made to mislead: one clear sentence and exit 2, or the right verdict."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignment import layers
from alignment.compare import compare_tensors
from alignment.dump_files import Folder
from alignment.reasons import Gate, Reason, Verdict
from jt_nanodet.errors import printable, run_cli
from reports import write

X = np.linspace(1, 2, 64, dtype=np.float32)


def compared(tmp_path, ref, cand, *more):
    """(exit code, result or None, standard output, standard error) of the command on two dicts of tensors, or two folders that are there already."""
    for place, tensors in (("ref", ref), ("cand", cand)):
        (tmp_path / place).mkdir(exist_ok=True)
        if tensors is not None:
            np.savez(tmp_path / place / "t.npz", **tensors)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_cli(layers.main, ["--ref", str(tmp_path / "ref"), "--cand", str(tmp_path / "cand"), "--output", str(tmp_path / "out"), *more])
    path = tmp_path / "out" / "result.json"
    return code, json.loads(path.read_text()) if path.is_file() else None, out.getvalue(), err.getvalue()


def refused(tmp_path, *words):
    """The folder `ref` as it lies there is refused: exit 2, one sentence, nothing written."""
    code, result, out, err = compared(tmp_path, None, {"a": X})
    assert (code, result, out) == (2, None, "") and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert word in err, err
    assert not (tmp_path / "out").exists()


NAMES = ["<script>alert(1)</script>", "a\"b'c", "x\nPASSED | 9 compared, 0 failed, 0 skipped", "\x1b[2J\u202e", "..", "../../outside", "C:\\x", "a/b/c", " ", "`|*_@all", "{{ 7*7 }}"]


def test_names_are_only_names(tmp_path):
    """They reach the terminal as one line each, pages as text, and no place on the disk."""
    before = set(tmp_path.rglob("*"))
    save = {name: X + k for k, name in enumerate(NAMES)}
    for place, tensors in (("ref", save), ("cand", {name: -array for name, array in save.items()})):
        (tmp_path / place).mkdir()
        with zipfile.ZipFile(tmp_path / place / "t.npz", "w") as archive:
            for name, array in tensors.items():
                with archive.open(zipfile.ZipInfo(name + ".npy"), "w") as member:
                    np.lib.format.write_array(member, array)
    code, result, out, _ = compared(tmp_path, None, None)
    assert code == 3 and {row["name_ref"] for row in result["tensors"]} == set(NAMES)  # all differ, and there is no floor
    lines = out.splitlines()
    assert len(lines) == len(NAMES) + 2 and lines[-1] == f"INCONCLUSIVE | {len(NAMES)} compared, 0 failed, 0 skipped"  # a row each, and the floor
    assert all(line.isprintable() for line in lines) and not any(line.startswith("PASSED") for line in lines)
    paths = write(tmp_path / "out")
    page, text = (paths[kind].read_text(encoding="utf-8") for kind in ("html", "markdown"))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "\u202e" not in page
    outside_code = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.S)
    assert "<script" not in outside_code and "@all" not in outside_code and "\nPASSED" not in text
    made = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before}
    assert made == {"ref", "cand", "out"} and not (tmp_path.parent / "outside").exists()


def test_printable_is_one_line_and_keeps_what_is_text():
    assert printable("a\nb\x1b[0m\u202e\ud800") == "a\\nb\\x1b[0m\\u202e\\ud800"
    assert printable("gewöhnlich 中文 <b>") == "gewöhnlich 中文 <b>"


# -- files


def npz(tmp_path, array=X, **how):
    (tmp_path / "ref").mkdir(exist_ok=True)
    np.savez(tmp_path / "ref" / "t.npz", a=array)
    return tmp_path / "ref" / "t.npz"


def safetensors(tmp_path, header, data=b"\0" * 8):
    (tmp_path / "ref").mkdir(exist_ok=True)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "ref" / "t.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("keep", [0, 1, 9, 100, 300, -1])
@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_a_file_cut_short(tmp_path, kind, keep):
    (tmp_path / "ref").mkdir()
    path = tmp_path / "ref" / f"t.{kind}"
    if kind == "safetensors":
        save_file({"a": X}, path)
    else:
        (np.savez if kind == "npz" else np.save)(path, X)
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, f"t.{kind}", "dump it again")


def test_one_changed_byte_in_an_archive(tmp_path):
    """Neither sizes nor names show it; only the archive's own checksum does."""
    path = npz(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(X.tobytes()) + 17] ^= 1
    path.write_bytes(whole)
    refused(tmp_path, "t.npz", "a.npy", "dump it again")


@pytest.mark.parametrize(("header", "word"), [
    ({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 8]}}, "t.safetensors"),
    ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}, "t.safetensors"),
    ({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, "t.safetensors"),
    ({"a": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}, "t.safetensors"),
    ({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, "BF16"),
    ({"a": {"dtype": "nonsense", "shape": [4], "data_offsets": [0, 8]}}, "t.safetensors"),
    (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "t.safetensors"),
    (b"[]", "t.safetensors"), (b"\xff\xfe", "t.safetensors"), ({"a": 3}, "t.safetensors"),
])
def test_a_header_that_lies(tmp_path, header, word):
    safetensors(tmp_path, header)
    refused(tmp_path, word, "dump it again")


@pytest.mark.parametrize(("array", "word"), [
    (np.array([{"a": 1}], object), "a"), (np.array(["text"]), "'a'"), (np.zeros(3, [("x", "f4")]), "'a'"), (np.zeros(3, "M8[s]"), "'a'"), (np.zeros(3, np.longdouble), "'a'"),
])
def test_what_is_no_number_is_refused_and_no_pickle_is_opened(tmp_path, array, word):
    npz(tmp_path, array)
    refused(tmp_path, "t.npz", word)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_an_archive_is_never_run(tmp_path):
    (tmp_path / "ref").mkdir()
    with zipfile.ZipFile(tmp_path / "ref" / "t.npz", "w") as archive:
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickle.dumps(Bomb(tmp_path / "ran")))
    refused(tmp_path, "t.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("member", "data", "word"), [("readme.txt", b"hello", "readme.txt"), ("a.npy", b"no array", "t.npz"), ("a.npy", b"", "t.npz")])
def test_a_member_that_is_no_array(tmp_path, member, data, word):
    (tmp_path / "ref").mkdir()
    with zipfile.ZipFile(tmp_path / "ref" / "t.npz", "w") as archive:
        archive.writestr(member, data)
    refused(tmp_path, word, "dump it again")


def test_a_member_that_claims_more_than_it_has(tmp_path):
    (tmp_path / "ref").mkdir()
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "ref" / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", stream.getvalue() + b"\0" * 400)
    refused(tmp_path, "1000000000000", "400 bytes")


def test_the_same_name_twice(tmp_path):
    (tmp_path / "ref").mkdir()
    np.savez(tmp_path / "ref" / "1.npz", a=X)
    np.savez(tmp_path / "ref" / "2.npz", a=X)
    refused(tmp_path, "2.npz", "'a'", "keep one of them")


def test_a_folder_in_the_place_of_a_file_and_a_link_to_nowhere(tmp_path):
    (tmp_path / "ref" / "t.npz").mkdir(parents=True)
    refused(tmp_path, "t.npz")
    (tmp_path / "ref" / "t.npz").rmdir()
    (tmp_path / "ref" / "t.npy").symlink_to(tmp_path / "nowhere")
    refused(tmp_path, "t.npy")


def test_booleans_that_are_neither(tmp_path):
    (tmp_path / "ref").mkdir()
    np.save(tmp_path / "ref" / "a.npy", np.zeros(64, bool))
    path = tmp_path / "ref" / "a.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x02")
    code, result, _, err = compared(tmp_path, None, {"a": np.zeros(64, bool)})
    assert (code, result) == (2, None) and "neither 0 nor 1" in err


# -- values


def rows(tmp_path, ref, cand):
    _, result, _, _ = compared(tmp_path, ref, cand, "-q")
    return {row["name_ref"]: (row["verdict"], row["reason"], row["index"]) for row in result["tensors"]}, result


def spoilt(*places, bad=np.nan, array=X):
    array = array.copy()
    for place in places:
        array[place] = bad
    return array


def test_nan_and_infinity(tmp_path):
    """Not even where both sides have the same: nobody knows what either meant."""
    ref = {"both": spoilt(3), "apart": spoilt(3), "ref": spoilt(9), "cand": X, "inf": spoilt(5, bad=np.inf), "signs": spoilt(5, bad=np.inf), "last": X}
    cand = {"both": spoilt(3), "apart": spoilt(40), "ref": X, "cand": spoilt(0), "inf": spoilt(5, bad=np.inf), "signs": spoilt(5, bad=-np.inf), "last": spoilt(63)}
    found, result = rows(tmp_path, ref, cand)
    both, one, other = (str(reason) for reason in (Reason.NOT_FINITE_BOTH, Reason.NOT_FINITE_REF, Reason.NOT_FINITE_CAND))
    assert found == {"both": ("fail", both, [3]), "apart": ("fail", both, [3]), "ref": ("fail", one, [9]), "cand": ("fail", other, [0]), "inf": ("fail", both, [5]),
                     "signs": ("fail", both, [5]), "last": ("fail", other, [63])}
    assert result["tensors"][0]["value_ref"] == "NaN"


def test_zero_dimensions_and_no_elements(tmp_path):
    ref = {"none": np.zeros((0, 3), np.float32), "shape": np.zeros((0, 3)), "one": np.float32(2), "flat": np.float32(2), "full": np.zeros((2, 3))}
    cand = {"none": np.zeros((0, 3), np.float32), "shape": np.zeros((3, 0)), "one": np.float32(2), "flat": np.float32([2]), "full": np.zeros((0, 3))}
    found, result = rows(tmp_path, ref, cand)
    assert found == {"shape": ("fail", "shape", None), "one": ("pass", "ok", []), "flat": ("pass", "ok", [0]), "full": ("fail", "shorter", None)}
    assert result["not_run"][0] == {"name": "none", "reason": "empty, with the same shape, on both sides"}


def test_nothing_but_empty_tensors_is_no_pass(tmp_path):
    code, result, _, _ = compared(tmp_path, {"none": np.zeros(0)}, {"none": np.zeros(0)}, "-q")
    assert (code, result["verdict"], result["reason"]) == (3, "not_comparable", "nothing_compared")


def test_booleans_integers_and_complex_numbers(tmp_path):
    big = np.array([2**63 - 1, -2**63, 2**53], np.int64)
    near = big.copy()
    near[2] += 1  # as floating numbers the two are the same
    z = (X + 1j * X[::-1]).astype(np.complex64)
    turned = z.copy()
    turned[5] = np.conj(turned[5])
    ref = {"mask": X > 1.5, "int": big, "tiny": np.int8([-128, 127]), "top": np.uint64([2**64 - 1]), "complex": z, "conj": z, "width": np.int32([1])}
    cand = {"mask": X > 1.4, "int": near, "tiny": np.int8([127, -128]), "top": np.uint64([2**64 - 2]), "complex": z, "conj": turned, "width": np.int64([1])}
    found, result = rows(tmp_path, ref, cand)
    first = int(np.argmax((X > 1.5) != (X > 1.4)))
    assert found == {"mask": ("fail", "not_exact", [first]), "int": ("fail", "not_exact", [2]), "tiny": ("fail", "not_exact", [0]), "top": ("fail", "not_exact", [0]),
                     "complex": ("pass", "ok", [0, 0]), "conj": ("inconclusive", "no_tolerance", [5, 1]), "width": ("fail", "dtype", None)}
    values = {row["name_ref"]: (row["value_ref"], row["value_cand"]) for row in result["tensors"]}
    assert values["int"] == (2**53, 2**53 + 1) and values["tiny"] == (-128, 127) and values["top"] == (2**64 - 1, 2**64 - 2)


def test_complex_numbers_have_a_floor(tmp_path):
    z = (X + 1j * X[::-1]).astype(np.complex64)
    for place, array in (("ref/float64", z.astype(np.complex128)), ("ref/repeat1", z * np.float32(1 + 1e-7))):
        (tmp_path / place).mkdir(parents=True)
        np.savez(tmp_path / place / "t.npz", good=array, bad=array)
    found, result = rows(tmp_path, {"good": z, "bad": z}, {"good": z * np.float32(1 + 1e-7), "bad": np.conj(z)})
    assert found["good"][:2] == ("pass", "ok") and found["bad"][0] == "fail" and result["tensors"][0]["tolerance"] > 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "large"), [(np.float64, 1.7e308), (np.float32, 3.4e38), (np.float16, 65000)])
def test_the_largest_numbers_overflow_no_verdict(dtype, large):
    """Squares of them are infinite; the verdict is not."""
    ref = np.full(64, large, dtype)
    assert compare_tensors("x", ref, ref.copy()).verdict is Verdict.PASS
    other = ref.copy()
    other[7] = -large
    row = compare_tensors("x", ref, other)
    assert (row.verdict, row.reason, row.index, row.gate) == (Verdict.INCONCLUSIVE, Reason.NO_TOLERANCE, (7,), Gate.BOUND)


def test_what_a_folder_holds_is_read_in_its_own_order(tmp_path):
    for name in ("b", "a", "c"):
        np.save(tmp_path / f"{name}.npy", X)
    save_file({"z": X, "y": X}, tmp_path / "0.safetensors")
    (tmp_path / "notes.txt").write_text("no tensor")
    folder = Folder(tmp_path)
    assert list(folder)[2:] == ["a", "b", "c"] and set(folder) == {"z", "y", "a", "b", "c"} and len(folder) == 5 and "notes" not in folder

"""`alignment.verify` on the report of this folder: whole, it holds; with anything changed, it does not, and says what and why."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment import evidence, verify
from alignment.reasons import Verdict
from alignment.recompute import differences
from alignment.result import read_result
from jt_nanodet.errors import UserError

pytestmark = [pytest.mark.torch, pytest.mark.jittor, pytest.mark.slow]


def copy(report, folder: Path) -> Path:
    """The report under another name; files are shared with the original until one is written anew."""
    shutil.copytree(report.folder, folder, copy_function=os.link)
    return folder


def write(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def edit(path: Path, change) -> None:
    """A JSON file with one thing changed, in the layout in which it was written."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    write(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    write(path, text.replace(old, new, 1).encode())


def seal_again(folder: Path) -> None:
    """What a careful forger does: the seal's hashes are those of the forged files."""
    document = json.loads((folder / evidence.FILE).read_text(encoding="utf-8"))
    for name in document["files"]:
        if (folder / name).is_file():
            document["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": evidence.file_sha256(folder / name)}
    write(folder / evidence.FILE, json.dumps(document).encode())


def judged(folder: Path) -> dict[str, tuple[str, str]]:
    """Name to (reason, hint) of every row that is not a pass."""
    return {row.name_ref: (str(row.reason), row.hint) for row in verify.verify(folder, verbosity=-1).rows() if row.verdict is not Verdict.PASS}


def change_row(key: str, value) -> object:
    def change(document):
        row = next(one for one in document["tensors"] if one["name_ref"] == "backbone.conv1.0")
        assert row[key] != value
        row[key] = value
    return change


def swap_pictures(folder: Path) -> None:
    first, second = sorted((folder / "infer" / "pictures").iterdir())[:2]
    a, b = first.read_bytes(), second.read_bytes()
    write(first, b)
    write(second, a)


#: What is done, the row that must say so, its reason, and a part of its sentence.
EDITS = [
    ("a number in result.json", lambda f: edit(f / "layers/result.json", change_row("own", 1e-12)), "layers/result.json", "not_reproduced", "tensors[backbone.conv1.0].own: 1e-12 in the file"),
    ("a metric in result.json", lambda f: edit(f / "infer/result.json", lambda d: d["metrics"]["jittor"].update(mAP=0.9)), "infer/result.json", "not_reproduced", "metrics.jittor.mAP: 0.9"),
    ("a speed in result.json", lambda f: edit(f / "infer/result.json", lambda d: d["fps"]["jittor"].update(fps=1e4)), "infer/result.json", "not_reproduced", "fps.jittor.fps: 10000.0"),
    ("a row left out", lambda f: edit(f / "weights/result.json", lambda d: d["tensors"].pop(3)), "weights/result.json", "not_reproduced", "length of tensors"),
    ("a hyper-parameter", lambda f: edit(f / "structure/result.json", lambda d: d["totals"]["jittor"].update(flops=1)), "structure/result.json", "not_reproduced", "totals.jittor.flops: 1"),
    ("the count in report.json", lambda f: edit(f / "report.json", lambda d: d.update(compared=d["compared"] + 1)), "report.json", "not_reproduced", "compared"),
    ("a number in report.html", lambda f: replace(f / "report.html", "compared", "Compared"), "report.html", "page_differs", "Compared"),
    ("a word in report.md", lambda f: replace(f / "report.md", "PASSED", "FAILED"), "report.md", "page_differs", "FAILED"),
    ("pictures swapped", swap_pictures, "infer/pictures/{}", "picture_differs", "network input"),
    ("another input", lambda f: write(f / "input.npy", (f / "input.npy").read_bytes()[:-4] + b"abcd"), "input.npy", "inputs_differ", "input"),
    ("another configuration", lambda f: replace(f / "config.yml", "eta_min: 0.00005", "eta_min: 0.00006"), "config.yml", "config_differs", "configuration"),
]


@pytest.fixture(scope="module")
def edited(report, tmp_path_factory):
    """All edits at once, and the same with a seal that knows them: each must still be found by a row of its own."""
    folder = copy(report, tmp_path_factory.mktemp("edited") / "report")
    picture = sorted((folder / "infer" / "pictures").iterdir())[0].name
    for _, change, *_ in EDITS:
        change(folder)
    plain = judged(folder)
    seal_again(folder)
    return plain, judged(folder), picture


def test_a_whole_report_holds(report, tmp_path, capsys):
    code = verify.main([str(report.folder), "--output", str(tmp_path / "out"), "-q"])
    result = read_result(tmp_path / "out")
    assert (code, result["verdict"], result["failed"]) == (0, "pass", 0), result["first_failure_detail"]
    assert capsys.readouterr().out.startswith("PASSED | ")
    names = {row["name_ref"] for row in result["tensors"]}
    assert {"layers/bundles/jittor", "layers/result.json", "infer/result.json", "report.json", "report.html", "COCO's numbers of jittor", "report.html (hash)"} <= names
    assert sum(name.startswith("infer/pictures/") for name in names) >= 4
    assert "floors, seconds and memory" in [entry["name"] for entry in result["not_run"]]
    assert result["hashes"]["evidence"] == evidence.file_sha256(report.folder / evidence.FILE) and result["hashes"]["evidence"] in report.out


@pytest.mark.parametrize(("name", "reason", "text"), [pytest.param(*row[2:], id=row[0]) for row in EDITS])
def test_an_edit_is_found(edited, name, reason, text):
    plain, sealed, picture = edited
    name = name.format(picture)
    for found in (plain, sealed):
        assert found[name][0] == reason and text in found[name][1], found[name]
    assert plain[f"{name} (hash)"][0] in ("altered", "incomplete") and f"{name} (hash)" not in sealed


def test_a_missing_bundle(report, tmp_path):
    folder = copy(report, tmp_path / "report")
    shutil.rmtree(folder / "layers" / "bundles" / "jittor")
    found = judged(folder)
    assert found["layers/bundles/jittor"] == ("missing", "the bundle is not there")
    assert found["layers/result.json"][0] == found["report.json"][0] == "not_run" and found["layers/bundles/jittor/header.json (hash)"][0] == "missing"


def test_a_bundle_cut_short(report, tmp_path):
    folder = copy(report, tmp_path / "report")
    path = folder / "layers" / "bundles" / "pytorch" / "tensors.safetensors"
    write(path, path.read_bytes()[:-1000])
    found = judged(folder)
    assert found["layers/bundles/pytorch"][0] == "incomplete" and found["layers/bundles/pytorch/tensors.safetensors (hash)"][0] == "incomplete"


def test_a_bundle_with_other_numbers(report, tmp_path):
    """Of the same length, and sealed again: the bundle's own header still knows its tensors."""
    folder = copy(report, tmp_path / "report")
    path = folder / "layers" / "bundles" / "jittor" / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    write(path, bytes(data))
    seal_again(folder)
    assert judged(folder)["layers/bundles/jittor"][0] == "altered"


def test_other_code(report, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evidence, "code_now", lambda: "0" * 64)
    assert verify.main([str(report.folder), "--output", str(tmp_path / "out")]) == 3
    assert "made by other code" in capsys.readouterr().out
    result = read_result(tmp_path / "out")
    assert (result["verdict"], result["reason"]) == ("not_comparable", "stale") and result["failed"] == 0
    assert "verdicts and numbers" in [entry["name"] for entry in result["not_run"]]


def test_another_commit_in_the_seal(report, tmp_path, monkeypatch):
    folder = copy(report, tmp_path / "report")
    edit(folder / evidence.FILE, lambda d: d.update(commit="1" * 40, changed_since_commit=False))
    monkeypatch.setattr(evidence, "code_at", lambda commit: "2" * 64 if commit == "1" * 40 else None)
    found = judged(folder)
    assert found["commit"][0] == "stale" and "1" * 40 in found["commit"][1]


def test_the_hash_one_was_told(report, tmp_path):
    assert [row.reason for row in verify.verify(report.folder, "ab" * 32, -1).rows() if row.failed] == ["altered"]


def test_without_a_seal_nothing_is_verified(report, tmp_path):
    folder = copy(report, tmp_path / "report")
    (folder / evidence.FILE).unlink()
    result = verify.verify(folder, verbosity=-1)
    assert (str(result.verdict), str(result.reason)) == ("not_comparable", "unhashed")


@pytest.mark.parametrize("words", [["absent"], ["."]])
def test_no_report(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is no report"):
        verify.main([*words, "--output", str(tmp_path / "out")])


def test_the_report_is_not_written_into(report):
    with pytest.raises(UserError, match="another folder"):
        verify.main([str(report.folder), "--output", str(report.folder)])


def test_the_order_of_a_sum_is_no_difference():
    again = {"size": 1000, "rmse": 0.1 * (1 + 100 * np.finfo(float).eps), "max_abs": 0.25, "n": 3}
    assert differences({"size": 1000, "rmse": 0.1, "max_abs": 0.25, "n": 3}, again) == []
    assert differences({"size": 10, "rmse": 0.1, "max_abs": 0.25, "n": 3}, {**again, "size": 10})[0][0] == "rmse"
    assert [one[0] for one in differences({"a": True, "b": [1, 2], "c": 1}, {"a": 1, "b": [1, 3], "d": 1})] == ["a", "b[1]", "d", "c"]


def test_a_picture_is_its_pixels_and_not_its_file(report, tmp_path):
    """The same pixels, compressed otherwise: only the hash says so."""
    folder = copy(report, tmp_path / "report")
    path = sorted((folder / "infer" / "pictures").iterdir())[0]
    image = cv2.imread(str(path))
    path.unlink()
    cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert list(judged(folder)) == [f"infer/pictures/{path.name} (hash)"]

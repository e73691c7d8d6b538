"""``python -m jt_nanodet voc``: from an archive behind an address to scored detections, and bad input in one sentence."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.errors import run_cli
from jt_nanodet.voc import archives, command
from tests.data.bad_server import serving
from tests.voc.devkit_maker import make, pack


@pytest.fixture
def run(capsys):
    def started(*words):
        code = run_cli(command.main, [*map(str, words)])
        return code, *capsys.readouterr()

    return started


@pytest.fixture
def archive(tmp_path):
    make(tmp_path / "source")
    return pack(tmp_path / "source", tmp_path / "mine.tar")


@pytest.mark.parametrize("how", ["path", "file", "server that cuts"])
def test_from_archive_to_json(run, archive, tmp_path, how):
    data = tmp_path / "data"
    with serving(archive.read_bytes(), ["cut", "stall"]) as server:
        address = {"path": archive, "file": archive.as_uri(), "server that cuts": f"{server.url}/mine.tar"}[how]
        code, said, complaints = run("--data-dir", data, "--download", "--archive", address, "--timeout", "0.5", "--convert", "--verify")
    assert code == 0, complaints
    assert "no checksum is known" in said and "0 faults in 6 pictures" in said and "4 pictures, 6 objects, 1 of them difficult" in said
    assert sorted(path.name for path in (data / "annotations").iterdir()) == ["voc_train.json", "voc_val.json", "voc_verify.json"]
    code, said, _ = run("--data-dir", data, "--download", "--archive", archive.as_uri())
    assert code == 0 and "mine.tar is unpacked already" in said


def test_the_mirror_is_held_to_the_published_checksums(run, archive, tmp_path):
    official = archives.ARCHIVES["2007-test"].name
    (tmp_path / official).write_bytes(archive.read_bytes())
    code, _, complaints = run("--data-dir", tmp_path / "data", "--download", "--only", "2007-test", "--mirror", tmp_path.as_uri())
    assert code == 2 and "451,020,800" in complaints and not (tmp_path / "data" / "VOCdevkit").exists()


def test_a_fault_stops_the_conversion(run, tmp_path):
    folder = make(tmp_path)
    (folder / "JPEGImages" / "000003.jpg").write_bytes(b"")
    code, said, complaints = run("--data-dir", tmp_path, "--convert", "--verify")
    assert code == 1 and "unreadable picture: 1" in said and "nothing was converted" in complaints
    assert json.loads((tmp_path / "annotations" / "voc_verify.json").read_text())["counts"] == {"unreadable picture": 1}
    assert not (tmp_path / "annotations" / "voc_train.json").exists()


def test_mini_and_lists_of_ones_own(run, tmp_path):
    make(tmp_path)
    code, said, _ = run("mini", "--src-dir", tmp_path, "--dst-dir", tmp_path / "mini", "--train-samples", 2, "--val-samples", 1)
    assert code == 0 and "train: 2 pictures" in said and "val: 1 pictures" in said
    assert len(json.loads((tmp_path / "mini" / "annotations" / "voc_train.json").read_text())["images"]) == 2
    code, said, _ = run("--data-dir", tmp_path, "--convert", "--train", "2012:val", "--val", "2012:train")
    assert code == 0 and "VOC2012 val, 2 pictures" in said


def test_score(run, tmp_path):
    make(tmp_path)
    assert run("--data-dir", tmp_path, "--convert")[0] == 0
    truth = tmp_path / "annotations" / "voc_val.json"
    entries = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9} for a in json.loads(truth.read_text())["annotations"]]
    (tmp_path / "found.json").write_text(json.dumps(entries))
    code, said, _ = run("score", "--annotations", truth, "--detections", tmp_path / "found.json", "--json", tmp_path / "score.json")
    assert code == 0 and "VOC2007  mAP 1.0000" in said and "VOC2012  mAP 1.0000" in said and "1 of them difficult and ignored" in said
    assert json.loads((tmp_path / "score.json").read_text())["coco"]["mAP"] == pytest.approx(1)


@pytest.mark.parametrize(("words", "said"), [
    ([], "nothing to do"),
    (["--convert", "--data-dir", "{tmp}/absent"], "--download"),
    (["--download", "--archive", "a.tar", "--mirror", "b"], "--archive"),
    (["--download", "--archive", "{tmp}/absent.tar", "--data-dir", "{tmp}"], "no such file"),
    (["--download", "--archive", "ftp://x/a.tar", "--data-dir", "{tmp}"], "ftp"),
    (["--convert", "--data-dir", "{tmp}", "--train", "2012:sunday"], "sunday.txt does not exist"),
    (["--convert", "--data-dir", "{tmp}", "--train", "1999:train"], "YEAR:LIST"),
    (["mini", "--src-dir", "{tmp}", "--dst-dir", "{tmp}/m", "--train-samples", "0"], "--train-samples"),
    (["mini", "--src-dir", "{tmp}", "--dst-dir", "{tmp}/m"], "ask for fewer"),
    (["score", "--annotations", "{tmp}/absent.json", "--detections", "x"], "no such annotation file"),
])  # fmt: skip
def test_bad_input_is_one_sentence(run, tmp_path, words, said):
    make(tmp_path)
    code, _, complaints = run(*[word.format(tmp=tmp_path) for word in words])
    assert code == 2 and complaints.startswith("error: ") and complaints.count("\n") == 1 and said in complaints

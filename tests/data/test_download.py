"""Downloads against a server that misbehaves: nothing that arrived is lost, wrong bytes never pass, each failure is one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import random

import pytest

from jt_nanodet.data import download
from jt_nanodet.data.download import Asset, fetch, local_path
from jt_nanodet.errors import UserError
from tests.data.bad_server import serving

BODY = random.Random(0).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


def asset(server, size=len(BODY), sha256=SHA, name="file.bin"):
    return Asset(name, (f"{server.url}/{name}",), size, sha256)


def get(server, folder, said=None, **kwargs):
    options = {"timeout": 0.5, "tries": 3, "say": (said.append if said is not None else lambda text: None)}
    return fetch(asset(server, **kwargs), folder, **options)


def clean(folder):
    """Only the whole file is left."""
    assert os.listdir(folder) == ["file.bin"] and (folder / "file.bin").read_bytes() == BODY


PLANS = {
    "at once": ((), [None]),
    "cut once": (("cut",), [None, "bytes=150000-"]),
    "cut three times": (("cut", "cut", "cut"), [None, "bytes=150000-", "bytes=225000-", "bytes=262500-"]),
    "stalled": (("stall",), [None, "bytes=150000-"]),
    "error first": (("error",), [None, None]),
    "announces too much": (("says more",), [None]),
    "announces too little": (("says less",), [None, "bytes=150000-"]),
    "cut, then an error": (("cut", "error"), [None, "bytes=150000-", "bytes=150000-"]),
    "cut, then without ranges": (("cut", "no ranges"), [None, "bytes=150000-"]),
    "cut, then another range": (("cut", "other range"), [None, "bytes=150000-", None]),
}


#: Without its size a file cannot be told from one that the server announces too short.
CASES = [pytest.param(*case, known, id=f"{name}, size {'known' if known else 'unknown'}") for name, case in PLANS.items() for known in (True, False)
         if known or "says less" not in case[0]]


@pytest.mark.parametrize(("plan", "asked", "known"), CASES)
def test_the_whole_file_arrives(tmp_path, plan, asked, known):
    with serving(BODY, plan) as server:
        path = get(server, tmp_path, **({} if known else {"size": None, "sha256": None}))
        assert path == tmp_path / "file.bin"
        if known or "says more" not in plan:
            assert server.asked == asked
    clean(tmp_path)


def test_another_run_goes_on(tmp_path):
    with serving(BODY, ["cut", "error", "error", "error"]) as server:
        with pytest.raises(UserError, match="150,000 bytes are kept and the same command goes on.*with a browser"):
            get(server, tmp_path)
        assert (tmp_path / "file.bin.part").stat().st_size == 150_000
        get(server, tmp_path)
        assert server.asked[-1] == "bytes=150000-"
    clean(tmp_path)


def test_a_file_that_is_there_is_not_fetched_again(tmp_path):
    with serving(BODY) as server:
        get(server, tmp_path)
        get(server, tmp_path)
        assert len(server.asked) == 1
        (tmp_path / "file.bin").write_bytes(BODY[:-1] + b"x")
        with pytest.raises(UserError, match="SHA-256"):
            get(server, tmp_path)
        (tmp_path / "file.bin").write_bytes(BODY[:-1])
        with pytest.raises(UserError, match="cut short"):
            get(server, tmp_path)


def test_a_changed_file_is_not_joined_to_the_old_one(tmp_path):
    with serving(b"old" * 100_000, ["cut", "error", "error", "error"], '"old"') as server:
        with pytest.raises(UserError):
            get(server, tmp_path, size=None, sha256=None)
        server.body, server.mark = BODY, '"new"'
        get(server, tmp_path, size=None, sha256=None)
    clean(tmp_path)


def test_wrong_bytes_are_put_aside_and_never_used(tmp_path):
    with serving(BODY[::-1]) as server:
        with pytest.raises(UserError, match="what came is not the file.*kept as 'file.bin.damaged'"):
            get(server, tmp_path)
    assert os.listdir(tmp_path) == ["file.bin.damaged"]
    with serving(BODY) as server:
        get(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.parametrize(("plan", "said"), [(["missing"], "404"), (["page"] * 9, "web page"), (["error"] * 9, "503")])
def test_a_server_that_has_it_not(tmp_path, plan, said):
    with serving(BODY, plan) as server, pytest.raises(UserError, match=f"{said}.*or fetch http.*put it at"):
        get(server, tmp_path)
    assert not (tmp_path / "file.bin").exists()


def test_the_second_address_and_a_mirror(tmp_path):
    with serving(BODY) as server:
        two = Asset("file.bin", (f"{server.url}/absent.bin", f"{server.url}/file.bin"), len(BODY), SHA)
        fetch(two, tmp_path / "a", timeout=0.5)
        fetch(Asset("file.bin", ("http://127.0.0.1:9/never",), len(BODY), SHA), tmp_path / "b", mirror=f"{server.url}/", timeout=0.5)
    clean(tmp_path / "a")
    clean(tmp_path / "b")


def test_nobody_listens(tmp_path):
    with pytest.raises(UserError, match="refused"):
        fetch(Asset("file.bin", ("http://127.0.0.1:9/file.bin",)), tmp_path, timeout=0.1, tries=1)


def test_local_files_are_used_where_they_lie(tmp_path):
    (tmp_path / "a b.bin").write_bytes(BODY)
    for url in ((tmp_path / "a b.bin").as_uri(), str(tmp_path / "a b.bin")):
        assert fetch(Asset("file.bin", (url,), len(BODY), SHA), tmp_path / "x") == tmp_path / "a b.bin"
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="no such file"):
        fetch(Asset("file.bin", ((tmp_path / "absent").as_uri(),)), tmp_path)
    with pytest.raises(UserError, match="ftp://"):
        local_path("ftp://somewhere/file")


def test_a_full_disk_keeps_what_arrived(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serving(BODY, ["cut"]) as server:
        blocks = []

        def opened(path, mode="r"):
            file = open(path, mode)
            blocks.append(mode)
            return Full(file) if mode == "ab" else file

        monkeypatch.setattr(download, "open", opened, raising=False)
        with pytest.raises(UserError, match="the disk is full; make room.*what has arrived stays"):
            get(server, tmp_path)
        assert (tmp_path / "file.bin.part").read_bytes() == BODY[:150_000] and "ab" in blocks
        monkeypatch.undo()
        get(server, tmp_path)
        assert server.asked[-1] == "bytes=150000-"
    clean(tmp_path)


def test_a_disk_without_room_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with serving(BODY) as server, pytest.raises(UserError, match="1,000 bytes free and 300,000 are still to come"):
        get(server, tmp_path)


def test_progress_and_pauses_are_said(tmp_path, capsys):
    said = []
    with serving(BODY, ["cut"]) as server:
        get(server, tmp_path, said)
    assert any("going on from there" in text for text in said) and said[-1] == "checking file.bin.part"
    meter = download.Meter("file.bin", 0, 2_000_000)
    meter.shown -= 11
    meter.show(1_000_000)
    assert "1.0 of 2.0 MB" in capsys.readouterr().err

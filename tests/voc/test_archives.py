"""Unpacking: what detection needs, nothing outside its folder, nothing lost when an archive is broken or a disk full."""

from __future__ import annotations

import errno
import io
import os
import tarfile

import pytest

from jt_nanodet.errors import UserError
from jt_nanodet.voc import archives
from jt_nanodet.voc.archives import ARCHIVES, unpack
from tests.voc.devkit_maker import make, pack


@pytest.fixture
def archive(tmp_path):
    folder = make(tmp_path / "source")
    (folder / "SegmentationClass").mkdir()
    (folder / "SegmentationClass" / "x.png").write_bytes(b"mask")
    return pack(tmp_path / "source", tmp_path / "a.tar")


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_detection_needs(archive, tmp_path):
    written = unpack(archive, tmp_path / "out")
    found = files(tmp_path / "out")
    assert written == 14 and "VOCdevkit/VOC2012/Annotations/000001.xml" in found and not any("Segmentation" in name or ".tmp" in name for name in found)
    source = tmp_path / "source"
    for name in found:
        if not name.endswith(".unpacked"):
            assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert unpack(archive, tmp_path / "out") == 0, "known to be unpacked"


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_archives(tmp_path, mode):
    make(tmp_path / "source")
    assert unpack(pack(tmp_path / "source", tmp_path / "a.tar.x", mode), tmp_path / "out") == 14


def evil(path, name, kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w") as file:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, data = kind, link, b"evil"
        entry.size = len(data) if kind == tarfile.REGTYPE else 0
        file.addfile(entry, io.BytesIO(data) if entry.size else None)
    return path


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/evil.txt", "VOCdevkit/VOC2012/JPEGImages/../../../../evil.jpg", "VOCdevkit\\..\\evil"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="leads out"):
        unpack(evil(tmp_path / "e.tar", name), tmp_path / "out")
    assert files(tmp_path) == ["e.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with pytest.raises(UserError, match="link or device"):
        unpack(evil(tmp_path / "e.tar", "VOCdevkit/VOC2012/JPEGImages/a.jpg", kind, "/etc/passwd"), tmp_path / "out")
    assert files(tmp_path) == ["e.tar"]


def test_a_link_that_lies_there_already_is_not_followed(archive, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    (tmp_path / "out" / "VOCdevkit" / "VOC2012" / "JPEGImages").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out"):
        unpack(archive, tmp_path / "out")
    assert files(tmp_path / "elsewhere") == []


def cut(data):
    return data[: len(data) // 2]


def cut_at_an_entry(data):
    return data[: len(data) // 2 // 512 * 512]


@pytest.mark.parametrize("damage", [cut, cut_at_an_entry, lambda data: b"", lambda data: b"no archive at all" * 100], ids=["cut", "cut at a block", "empty", "text"])
@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
def test_a_broken_archive_is_one_sentence_and_loses_nothing(archive, tmp_path, damage, packed):
    good = pack(tmp_path / "source", tmp_path / "b.tar", "w:gz") if packed else archive
    whole = good.read_bytes()
    good.write_bytes(damage(whole))
    with pytest.raises(UserError, match="damaged or cut short.*repeat the command"):
        unpack(good, tmp_path / "out")
    good.write_bytes(whole)
    unpack(good, tmp_path / "out")
    assert len(files(tmp_path / "out")) == 15


def test_a_full_disk_goes_on_where_it_stopped(archive, tmp_path, monkeypatch):
    copied = []

    def copy(source, target, length):
        copied.append(1)
        if len(copied) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        target.write(source.read())

    monkeypatch.setattr(archives.shutil, "copyfileobj", copy)
    with pytest.raises(UserError, match="disk is full after 4 files.*goes on from there"):
        unpack(archive, tmp_path / "out")
    assert len(files(tmp_path / "out")) == 4
    assert unpack(archive, tmp_path / "out") == 10 and len(files(tmp_path / "out")) == 15


def test_another_archive_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no VOCdevkit"):
        unpack(evil(tmp_path / "e.tar", "other/file.txt"), tmp_path / "out")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(evil(tmp_path / "e.tar", "VOCdevkit/VOC2012/JPEGImages/a.jpg"), tmp_path / "e.tar")


def test_the_official_archives_are_known_whole():
    assert sorted(ARCHIVES) == ["2007-test", "2007-trainval", "2012-trainval"]
    for asset in ARCHIVES.values():
        assert asset.urls[0].endswith(asset.name) and len(asset.sha256) == 64 and asset.size % 512 == 0

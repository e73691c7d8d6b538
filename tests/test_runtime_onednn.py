"""Where oneDNN's files come from and how they are put in place."""

from __future__ import annotations

import importlib.metadata
import os
import threading
from pathlib import Path

import pytest

from jt_nanodet import runtime_onednn
from jt_nanodet.errors import UserError


def make_folder(folder: Path, version: tuple[int, int, int], library: str = "code") -> Path:
    """A folder that looks as Jittor wants oneDNN, with headers of ``version``."""
    header = folder / "include" / "oneapi" / "dnnl" / "dnnl_version.h"
    header.parent.mkdir(parents=True)
    header.write_text("".join(f"#define DNNL_VERSION_{n} {v}\n" for n, v in zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)))
    (folder / "lib").mkdir()
    for name in ("libmkldnn.so", "libdnnl.so.2"):
        (folder / "lib" / name).write_text(library)
    return folder


def test_package_files_are_the_packages_own() -> None:
    headers, library = runtime_onednn.package_files()
    assert {"dnnl.h", "oneapi/dnnl/dnnl.hpp", "oneapi/dnnl/dnnl_version.h"} <= {below for _, below in headers}
    # torch has headers of the same names, of another version
    assert not any("torch" in path.parts for path, _ in headers)
    assert library.name.startswith("libdnnl.so") and library.stat().st_size > 1_000_000


def test_place_makes_what_jittor_looks_for(tmp_path: Path) -> None:
    folder = runtime_onednn.place(tmp_path)
    assert folder == tmp_path / ".cache" / "jittor" / "mkl" / "dnnl_lnx_2.2.0_cpu_gomp"
    assert runtime_onednn.usable(folder) and runtime_onednn.interface_version(folder) == "2.6.0"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "no temporary folder is left"
    before = (folder / "lib" / "libdnnl.so.2").stat().st_mtime_ns
    assert runtime_onednn.place(tmp_path) == folder
    assert (folder / "lib" / "libdnnl.so.2").stat().st_mtime_ns == before


def test_a_working_version_2_is_left_alone(tmp_path: Path) -> None:
    folder = make_folder(runtime_onednn.home_folder(tmp_path), (2, 2, 0), "someone else's")
    runtime_onednn.place(tmp_path)
    assert (folder / "lib" / "libmkldnn.so").read_text() == "someone else's"


@pytest.mark.parametrize("damage", ["version 3", "empty library", "dangling link", "no headers", "a file"])
def test_what_jittor_cannot_use_is_replaced(tmp_path: Path, damage: str) -> None:
    folder = runtime_onednn.home_folder(tmp_path)
    if damage == "a file":
        folder.parent.mkdir(parents=True)
        folder.write_text("")
    else:
        make_folder(folder, (3, 7, 0) if damage == "version 3" else (2, 6, 0), "" if damage == "empty library" else "code")
    if damage == "dangling link":
        (folder / "lib" / "libdnnl.so.2").unlink()
        (folder / "lib" / "libdnnl.so.2").symlink_to(tmp_path / "gone")
    if damage == "no headers":
        (folder / "include" / "oneapi" / "dnnl" / "dnnl_version.h").unlink()
    assert not runtime_onednn.usable(folder)
    runtime_onednn.place(tmp_path)
    assert runtime_onednn.usable(folder) and runtime_onednn.interface_version(folder) == "2.6.0"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_many_at_once(tmp_path: Path) -> None:
    make_folder(runtime_onednn.home_folder(tmp_path), (3, 0, 0))
    errors: list[BaseException] = []

    def place() -> None:
        try:
            assert runtime_onednn.usable(runtime_onednn.place(tmp_path))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=place) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_second_folder_would_confuse_jittor(tmp_path: Path) -> None:
    make_folder(runtime_onednn.home_folder(tmp_path).with_name("dnnl_lnx_9"), (2, 0, 0))
    with pytest.raises(UserError, match='type "rm -r .*dnnl_lnx_9"$'):
        runtime_onednn.place(tmp_path)


@pytest.mark.parametrize("missing", [runtime_onednn.PACKAGE, runtime_onednn.LIBRARY_PACKAGE])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(UserError, match=r'type "python -m pip install .*onednn-devel-cpu-gomp==2022\.2\.1'):
        runtime_onednn.place(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="JITTOR_HOME to a folder you can write to$"):
        runtime_onednn.place(tmp_path)


def test_without_a_second_name_the_library_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    assert runtime_onednn.usable(runtime_onednn.place(tmp_path))


@pytest.mark.parametrize("machine", ["aarch64", "ppc64le"])
def test_other_processors_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(UserError, match=f"not for Linux on {machine}: run this on"):
        runtime_onednn.home_folder(tmp_path)

"""The CUDA home and its refusals, on machines without a GPU: toolkits here are made of empty files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from jt_nanodet import runtime_cuda
from jt_nanodet.errors import UserError


def make_toolkit(root: Path, release: str = "13.0", without: str = "") -> Path:
    """A toolkit folder with an nvcc that answers as the real one does; returns the nvcc."""
    for name in ("bin", "include", "lib64"):
        (root / name).mkdir(parents=True)
    nvcc = root / "bin" / "nvcc"
    nvcc.write_text(
        f'#!/bin/sh\ncase "$1" in\n--version) echo "Cuda compilation tools, release {release}, V{release}.1";;\n'
        f'--dryrun) echo "#\\$ _HERE_={root}/bin" >&2;;\n*) echo "args: $@";;\nesac\n'
    )
    nvcc.chmod(0o755)
    for library, header in runtime_cuda._NEEDED.items():
        if library != without:
            (root / "include" / header).write_text("")
            (root / "lib64" / f"lib{library}.so.13").write_text("")
    for name in ("libcudnn_ops.so.9", "libcudnn_cnn.so.9"):
        (root / "lib64" / name).write_text("")
    return nvcc


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nvcc_path", raising=False)
    monkeypatch.setattr(runtime_cuda, "wheel_folders", list)


def test_a_toolkit_is_found_behind_a_wrapper_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = make_toolkit(tmp_path / "cuda")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {nvcc} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    toolkit = runtime_cuda.find_toolkit()
    assert toolkit.nvcc == wrapper and toolkit.includes == (tmp_path / "cuda" / "include",)


def test_an_old_nvcc_is_passed_over_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_toolkit(tmp_path / "old", "12.4")
    monkeypatch.setenv("PATH", str(old.parent))
    monkeypatch.setattr(runtime_cuda, "nvcc_version", lambda nvcc: "12.4" if nvcc == old else None)
    with pytest.raises(UserError, match="only nvcc 12.4 at .*old/bin/nvcc was found: type"):
        runtime_cuda.find_toolkit()
    monkeypatch.setattr(runtime_cuda, "nvcc_version", lambda nvcc: None)
    with pytest.raises(UserError, match="no nvcc was found: type"):
        runtime_cuda.find_toolkit()


@pytest.mark.parametrize("library", sorted(runtime_cuda._NEEDED))
def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path, without=library)))
    with pytest.raises(UserError, match=rf"CUDA's {library} \(library or header\) is not installed: type"):
        runtime_cuda.find_toolkit()


def test_the_home_looks_as_jittor_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path / "with space")))
    toolkit = runtime_cuda.find_toolkit()
    home = runtime_cuda.build_home(toolkit, tmp_path)
    # Jittor looks for "-dc" anywhere in nvcc's command line; on an H200 a digest that began with dc stopped every kernel
    assert re.fullmatch(r"jt_nanodet-cuda[\d.]+_[0-9a-f]{12}", home.name)
    # a script, not a link, which reaches the real compiler with its arguments
    nvcc = home / "bin" / "nvcc"
    assert not nvcc.is_symlink()
    assert subprocess.run([nvcc, "-c", "a b.cu"], capture_output=True, text=True, check=True).stdout == "args: -c a b.cu\n"
    for name in ("libcublas.so", "libcudnn.so", "libcudnn_ops_infer.so", "libcudnn_cnn_train.so"):
        assert (home / "lib64" / name).is_file(), name
    for name in ("jittor_cuda13.h", "npp.h", "cub/cub.cuh", "cudnn.h"):
        assert (home / "include" / name).is_file(), name
    assert runtime_cuda.build_home(toolkit, tmp_path) == home
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("new-")) == []


def test_a_home_whose_toolkit_went_is_put_together_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path / "cuda")))
    toolkit = runtime_cuda.find_toolkit()
    home = runtime_cuda.build_home(toolkit, tmp_path)
    (tmp_path / "cuda" / "lib64" / "libcufft.so.13").unlink()
    runtime_cuda.build_home(toolkit, tmp_path)
    assert not (home / "lib64" / "libcufft.so.13").is_symlink()


def test_another_shim_makes_another_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path / "cuda")))
    toolkit = runtime_cuda.find_toolkit()
    one = runtime_cuda.build_home(toolkit, tmp_path)
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "jittor_cuda13.h").write_text("// changed")
    monkeypatch.setattr(runtime_cuda, "SHIM", shim)
    assert runtime_cuda.build_home(toolkit, tmp_path) != one


def test_settings_for_jittor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nvcc_path", str(make_toolkit(tmp_path / "cuda")))
    monkeypatch.setattr(runtime_cuda, "find_gpu", lambda: runtime_cuda.Gpu("made up", 90, 13000, 1))
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-lineinfo")
    (tmp_path / ".cache" / "jittor").mkdir(parents=True)
    settings = runtime_cuda.environment(tmp_path)
    assert settings["NVCC_APPEND_FLAGS"] == "-lineinfo -std=c++17" and settings["cuda_archs"] == "90"
    assert Path(settings["nvcc_path"]).is_file() and settings["cache_name"] != "default"
    assert Path(settings["cc_flags"].split('"')[1]).is_file()


def test_a_child_process_finds_the_same_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = make_toolkit(tmp_path / "cuda")
    monkeypatch.setenv("PATH", f"{nvcc.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(runtime_cuda, "find_gpu", lambda: runtime_cuda.Gpu("made up", 90, 13000, 1))
    (tmp_path / ".cache" / "jittor").mkdir(parents=True)
    settings = runtime_cuda.environment(tmp_path)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert runtime_cuda.environment(tmp_path) == settings
    runtime_cuda.forget(os.environ)
    assert "cc_flags" not in os.environ
    kept = {"cc_flags": "-g"}
    runtime_cuda.forget(kept)
    assert kept == {"cc_flags": "-g"}


def test_without_a_driver_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", refuse)
    with pytest.raises(UserError, match='no NVIDIA driver here.*: type "python -m jt_nanodet doctor"$'):
        runtime_cuda.find_gpu()


class Driver:
    """Stands in for libcuda: answers with ``count`` GPUs and ``version``."""

    def __init__(self, count: int, version: int, status: int = 0) -> None:
        self.count, self.version, self.status = count, version, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, version) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGet(self, device, index: int) -> int:
        return 0

    def cuDeviceGetName(self, name, size: int, device) -> int:
        name.value = b"Made Up"
        return 0

    def cuDeviceGetAttribute(self, value, attribute: int, device) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0


@pytest.mark.parametrize(
    ("driver", "message"),
    [(Driver(0, 13000), "reports no GPU"), (Driver(1, 13000, 100), "reports no GPU"), (Driver(1, 12080), "update the driver to 580")],
)
def test_a_driver_that_will_not_do(monkeypatch: pytest.MonkeyPatch, driver: Driver, message: str) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver)
    with pytest.raises(UserError, match=message):
        runtime_cuda.find_gpu()


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: Driver(2, 13000))
    assert str(runtime_cuda.find_gpu()) == "2 x Made Up (sm_90), driver for CUDA 13.0"

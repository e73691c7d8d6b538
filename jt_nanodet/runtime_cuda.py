"""Gives Jittor 1.3.11 a CUDA 13 it can build with: one folder of links, and headers that bridge.

Jittor expects a CUDA toolkit in the layout of an installer (``bin include lib64``) and the libraries
of cuDNN 8. NVIDIA's PyPI packages, and a toolkit without the mathematical libraries, look different.
``environment`` puts a home together from whichever is there and returns the settings Jittor needs.
The headers in ``cuda_shim/`` are this project's own.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from jt_nanodet.errors import UserError

SHIM = Path(__file__).resolve().parent / "cuda_shim"
DOCTOR = 'type "python -m jt_nanodet doctor"'
#: Begins the name of every CUDA home made here.
HOME_PREFIX = "jt_nanodet-cuda"
INSTALL = 'type "make doctor DEVICE=cuda" or "python -m pip install -e .[cuda]"'

#: The oldest driver interface that runs CUDA 13 programs, as cuDriverGetVersion gives it.
_DRIVER = 13000
#: Libraries Jittor links, and a header of each.
_NEEDED = {
    "cudart": "cuda_runtime_api.h",
    "cublas": "cublas.h",
    "cudnn": "cudnn.h",
    "curand": "curand.h",
    "cufft": "cufft.h",
    "cusparse": "cusparse.h",
}
#: Jittor loads cuDNN 8's four libraries by name; cuDNN 9 has these two for them.
_CUDNN_ALIASES = {
    "libcudnn_ops_infer.so": "libcudnn_ops.so",
    "libcudnn_ops_train.so": "libcudnn_ops.so",
    "libcudnn_cnn_infer.so": "libcudnn_cnn.so",
    "libcudnn_cnn_train.so": "libcudnn_cnn.so",
}


@dataclass(frozen=True)
class Gpu:
    """The first GPU the driver reports. ``capability`` is 90 for 9.0."""

    name: str
    capability: int
    driver: int
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.name} (sm_{self.capability}), driver for CUDA {self.driver // 1000}.{self.driver % 1000 // 10}"


@dataclass(frozen=True)
class Toolkit:
    """A compiler and the folders its headers and libraries come from, most important first."""

    nvcc: Path
    version: str
    includes: tuple[Path, ...]
    libraries: tuple[Path, ...]

    def __str__(self) -> str:
        return f"nvcc {self.version} at {self.nvcc}"


def find_gpu() -> Gpu:
    """Ask the driver, without CUDA's runtime library. UserError without a GPU or with an old driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise UserError(f"there is no NVIDIA driver here, so --device cuda cannot be used: {DOCTOR}") from None
    version, count = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        raise UserError(f"the NVIDIA driver reports no GPU, so --device cuda cannot be used: {DOCTOR}")
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < _DRIVER:
        raise UserError(f"the NVIDIA driver is for CUDA {version.value // 1000}, and CUDA 13 is needed: update the driver to 580 or newer")
    device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, 100, device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    return Gpu(name.value.decode(), major.value * 10 + minor.value, version.value, count.value)


def find_toolkit() -> Toolkit:
    """The nvcc to use (``nvcc_path``, the PyPI package, the PATH, /usr/local/cuda) and where the rest lies.

    Raises UserError that names what is missing.
    """
    wheels = wheel_folders()
    seen: list[str] = []
    for nvcc in compilers():
        version = nvcc_version(nvcc)
        if version is None:
            continue
        seen.append(f"{version} at {nvcc}")
        if not version.startswith("13."):
            continue
        root = nvcc_root(nvcc)
        roots = [root, *(folder for folder in wheels if folder != root)]
        includes = tuple(folder / "include" for folder in roots if (folder / "include").is_dir())
        libraries = tuple(folder / sub for folder in roots for sub in ("lib64", "lib") if (folder / sub).is_dir())
        missing = _missing(includes, libraries)
        if missing:
            raise UserError(f"CUDA's {', '.join(missing)} (library or header) is not installed: {INSTALL}")
        return Toolkit(nvcc, version, includes, libraries)
    found = f"only nvcc {seen[0]}" if seen else "no nvcc"
    raise UserError(f"CUDA 13's compiler is needed and {found} was found: {INSTALL}")


def compilers() -> list[Path]:
    """Where an nvcc may be: ``nvcc_path``, the PyPI package, the PATH, /usr/local/cuda. Not all of them are there."""
    wanted = os.environ.get("nvcc_path")
    # A parent process that used CUDA left its own home's nvcc there: look where that one came from.
    candidates = [Path(wanted)] if wanted and HOME_PREFIX not in wanted else []
    candidates += [folder / "bin" / "nvcc" for folder in wheel_folders()]
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path)] if on_path else []
    return [*candidates, Path("/usr/local/cuda/bin/nvcc")]


def wheel_folders() -> list[Path]:
    """Folders of NVIDIA's PyPI packages: ``nvidia/cu13`` and, of its own, ``nvidia/cudnn``."""
    spec = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return [folder for place in places for folder in (place / "cu13", place / "cudnn") if folder.is_dir()]


def nvcc_version(nvcc: Path) -> str | None:
    """``"13.0"``, or None when this is no nvcc that runs."""
    done = _run([str(nvcc), "--version"])
    found = re.search(r"release (\d+\.\d+)", done or "")
    return found.group(1) if found else None


def nvcc_root(nvcc: Path) -> Path:
    """The toolkit an nvcc belongs to. Asked of nvcc itself: what lies on the PATH may be a wrapper script."""
    text = _run([str(nvcc), "--dryrun", "-x", "cu", "/dev/null"], errors=True) or ""
    found = re.search(r"^#\$ _HERE_=(.+)$", text, re.MULTILINE)
    return (Path(found.group(1).strip()) if found else nvcc.resolve().parent).parent


def environment(jittor_home: Path) -> dict[str, str]:
    """Settings for a CUDA build of Jittor; puts the CUDA home below ``jittor_home`` together if need be.

    Raises UserError as ``find_gpu`` and ``find_toolkit`` do, and when the folder cannot be written.
    """
    gpu = find_gpu()
    toolkit = find_toolkit()
    home = build_home(toolkit, jittor_home / ".cache" / "jittor")
    append = os.environ.get("NVCC_APPEND_FLAGS", "")
    if "-std=" not in append:
        # Jittor asks for C++14 on its command line; CUB and Thrust of CUDA 13 need 17, and the last one counts.
        append = f"{append} -std=c++17".strip()
    return {
        "nvcc_path": str(home / "bin" / "nvcc"),
        "NVCC_APPEND_FLAGS": append,
        "cc_flags": f'-include "{home / "include" / "jittor_cuda13.h"}"',
        "cuda_archs": os.environ.get("cuda_archs", str(gpu.capability)),
        "cache_name": "jt_nanodet_cuda",  # its own: with other flags the CPU build would be thrown away
        "use_cutt": "0",
        "use_nccl": "0",
        "use_cutlass": "0",
    }


def forget(variables: MutableMapping[str, str]) -> None:
    """Remove what ``environment`` gave a parent process that a CPU build must not inherit."""
    if HOME_PREFIX in variables.get("cc_flags", ""):
        del variables["cc_flags"]


def build_home(toolkit: Toolkit, folder: Path) -> Path:
    """One CUDA home of links for ``toolkit`` below ``folder``; its name changes with what it holds."""
    shim_files = sorted(path for path in SHIM.rglob("*") if path.suffix in (".h", ".cuh"))
    digest = hashlib.sha256(repr(toolkit).encode())
    for path in shim_files:
        digest.update(path.read_bytes())
    # No "-" before the digest: Jittor takes "-dc" anywhere in a command for the flag, and links wrongly.
    home = folder / f"{HOME_PREFIX}{toolkit.version}_{digest.hexdigest()[:12]}"
    if (home / "complete").is_file() and not any(link.is_symlink() and not link.exists() for link in (home / "lib64").iterdir()):
        return home
    fresh = folder / f"new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        for name in ("bin", "include", "lib64"):
            (fresh / name).mkdir(parents=True)
        # A script, not a link: Jittor resolves links before it derives the home from nvcc's place.
        nvcc = fresh / "bin" / "nvcc"
        nvcc.write_text(f'#!/bin/sh\nexec {shlex.quote(str(toolkit.nvcc.absolute()))} "$@"\n', encoding="utf-8")
        nvcc.chmod(0o755)
        for path in shim_files:
            destination = fresh / "include" / path.relative_to(SHIM)
            destination.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, destination)
        for source in toolkit.includes:
            _link_all(source, fresh / "include", "*")
        for source in toolkit.libraries:
            _link_all(source, fresh / "lib64", "lib*.so*")
            _link_all(source, fresh / "lib64", "libcudadevrt.a")
        _name_libraries(fresh / "lib64")
        (fresh / "complete").write_text(f"{toolkit}\n", encoding="utf-8")
        if home.exists():
            shutil.rmtree(home)
        os.rename(fresh, home)
    except OSError as error:
        if not (home / "complete").is_file():  # else another process was faster
            raise UserError(f"cannot write {home} ({error.strerror}): set JITTOR_HOME to a folder you can write to") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return home


def check_loaded(jt: object) -> None:
    """After the import: raise UserError unless Jittor sees the GPU and loaded its libraries.

    With the log silenced Jittor goes on without one it could not load.
    """
    extern = sys.modules["jittor.compile_extern"]
    missing = [name for name in ("cublas", "cudnn", "curand") if getattr(extern, name, None) is None]
    if not getattr(jt, "has_cuda", False):
        raise UserError(f"Jittor was built for CUDA and sees no GPU: {DOCTOR}")
    if missing:
        raise UserError(f"Jittor could not load {', '.join(missing)}: {INSTALL}")


def _missing(includes: tuple[Path, ...], libraries: tuple[Path, ...]) -> list[str]:
    def held(library: str, header: str) -> bool:
        return any((folder / header).is_file() for folder in includes) and any(
            next(folder.glob(f"lib{library}.so*"), None) is not None for folder in libraries
        )

    return [library for library, header in _NEEDED.items() if not held(library, header)]


def _link_all(source: Path, destination: Path, pattern: str) -> None:
    for path in sorted(source.glob(pattern)):
        link = destination / path.name
        if not link.exists() and not link.is_symlink():
            link.symlink_to(path.absolute())


def _name_libraries(folder: Path) -> None:
    """Packages hold ``libcublas.so.13`` only; add ``libcublas.so``, and cuDNN 8's names for cuDNN 9's."""
    for path in sorted(folder.glob("lib*.so.*")):
        plain = folder / f"{path.name.split('.so')[0]}.so"
        if not plain.is_symlink():
            plain.symlink_to(path.name)
    for alias, library in _CUDNN_ALIASES.items():
        if (folder / library).exists() and not (folder / alias).is_symlink():
            (folder / alias).symlink_to(library)


def _run(command: list[str], errors: bool = False) -> str | None:
    if platform.system() != "Linux":
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout + done.stderr if errors else (done.stdout if done.returncode == 0 else None)

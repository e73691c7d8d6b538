"""What Jittor needs from the machine: packages, compiler, Python's headers, a place to write, cores.

Nothing here imports a framework or changes the environment for good; ``runtime`` and ``doctor`` both ask.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jt_nanodet.errors import UserError

JITTOR_VERSION = "1.3.11.0"

#: How often an idle thread of GNU OpenMP looks for work before it sleeps. Its own number is 300,000: 9 ms of spinning after every kernel at 30 ns a
#: look, which other processes on the same cores pay for (docs/performance.md).
IDLE_LOOKS = "1000"


@contextlib.contextmanager
def idle_threads_sleep() -> Iterator[None]:
    """An OpenMP library that is loaded within lets its idle threads sleep soon; OMP_WAIT_POLICY and GOMP_SPINCOUNT of the user's count more.

    The library reads its settings once, when it is loaded. They are taken back, so that no child process inherits them.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = IDLE_LOOKS
    try:
        yield
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def check_packages() -> None:
    """Raise UserError unless this Python, NumPy 1 and the pinned Jittor are here."""
    if sys.version_info < (3, 10):
        raise UserError(f"Python {platform.python_version()} is too old: run this with Python 3.10 or newer")
    loaded = sys.modules.get("numpy")
    numpy_version = getattr(loaded, "__version__", "") or package_version("numpy")
    if numpy_version.split(".")[0] != "1":
        raise UserError(
            f"Jittor {JITTOR_VERSION} exchanges wrong numbers with NumPy {numpy_version or '(missing)'} without saying so: "
            'type "python -m pip install numpy==1.26.4"'
        )
    jittor_version = package_version("jittor")
    if jittor_version != JITTOR_VERSION:
        raise UserError(
            f"this needs Jittor {JITTOR_VERSION}, and {jittor_version or 'none'} is installed: "
            f'type "python -m pip install jittor=={JITTOR_VERSION}"'
        )


def find_compiler() -> str:
    """Path of the C++ compiler Jittor will use (``cc_path`` or g++). UserError if there is none."""
    wanted = os.environ.get("cc_path") or "g++"
    found = shutil.which(wanted)
    if found is None:
        raise UserError(
            f'Jittor compiles its kernels and there is no {wanted} here: type "apt-get install g++" (or your system\'s like)'
        )
    return found


def jittor_home() -> Path:
    """The folder below which Jittor's ``.cache/jittor`` lies: JITTOR_HOME, else the home folder.

    Raises UserError when it cannot be written.
    """
    home = Path(os.environ.get("JITTOR_HOME") or Path.home()).expanduser().absolute()
    folder = home / ".cache" / "jittor"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"Jittor cannot keep its compiled kernels in {folder} ({error.strerror}): set JITTOR_HOME to a folder you can write to"
        ) from None
    return home


def python_config(home: Path) -> Path | None:
    """A ``python3-config`` for the running Python, or None when Jittor finds a fitting one itself.

    Jittor asks it for two things only, and this interpreter knows both. UserError without Python.h.
    """
    include = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    version = f"python3.{sys.version_info.minor}"
    beside = Path(sys.executable).parent / f"{version}-config"
    system = Path("/usr/bin") / f"{version}-config"
    for found, header in ((beside, None), (system, Path("/usr/include") / version / "Python.h")):
        if found.is_file() and (header is None or header.is_file()):
            return None
    if not any((Path(folder) / "Python.h").is_file() for folder in include):
        raise UserError(
            f"Jittor needs the header files of Python 3.{sys.version_info.minor}, and Python.h is not in "
            f'{sysconfig.get_path("include")}: type "apt-get install {version}-dev" (or your system\'s like)'
        )
    script = home / ".cache" / "jittor" / f"jt_nanodet-{version}-config"
    flags = " ".join(f"-I{folder}" for folder in sorted(include))
    text = (
        "#!/bin/sh\n# stands in for python3-config, see jt_nanodet/runtime.py\n"
        f'case "$1" in\n  --includes) echo "{flags}";;\n'
        f'  --extension-suffix) echo "{sysconfig.get_config_var("EXT_SUFFIX")}";;\n  *) exit 1;;\nesac\n'
    )
    if not script.is_file() or script.read_text(encoding="utf-8") != text:
        handle, name = tempfile.mkstemp(dir=script.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o755)
        os.replace(name, script)
    return script


def cpu_count() -> int:
    """Cores this process may use: affinity and, in a container, the CPU quota."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return max(1, cores)


def compile_workers() -> int:
    """Compilers to run at once: one a core, but 1.5 GiB of memory each (Jittor: one for 3 GiB, cores ignored)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(cpu_count(), int(memory / 1.5)))


def in_mpi() -> bool:
    """Whether mpirun (OpenMPI) started this process."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def package_version(package: str) -> str:
    """The installed version of ``package``; "" when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

"""``python -m jt_nanodet doctor``: what was found on this machine, and what to type to mend it.

Each check is a small function that returns a ``Finding``; none imports Jittor or torch, so the
command answers at once and works where neither can be imported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from jt_nanodet import runtime, runtime_cuda, runtime_machine, runtime_onednn
from jt_nanodet.errors import UserError

#: Jittor's core, its kernels and oneDNN take about 0.3 GB; a full disk breaks a build half-way.
_NEEDED_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One row. ``state`` is ok, warn (works, or only CUDA does not) or fail (CPU use is impossible)."""

    name: str
    state: str
    found: str
    mend: str = ""


def check_python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Finding("Python", "fail", found, "use Python 3.10, 3.11 or 3.12: make PYTHON=python3.11 test")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    try:
        runtime_machine.python_config(runtime_machine.jittor_home())
    except UserError as error:
        # an unwritable home is the cache row's matter
        if not header.is_file():
            return Finding("Python", "fail", found, str(error))
    return Finding("Python", "ok", found)


def check_compiler() -> Finding:
    try:
        path = runtime_machine.find_compiler()
    except UserError as error:
        return Finding("C++ compiler", "fail", "none", str(error))
    line = _first_line([path, "--version"])
    if line is None:
        return Finding("C++ compiler", "fail", f"{path} does not run", 'type "apt-get install --reinstall g++"')
    return Finding("C++ compiler", "ok", f"{line} at {path}")


def check_package(name: str, package: str, pin: str, required: bool) -> Finding:
    """A package against its pin; a version other than the pin warns, NumPy 2 and a missing one fail."""
    version = runtime.versions().get(name, "")
    mend = f'type "python -m pip install {package}=={pin}"'
    if not version:
        return Finding(package, "fail" if required else "warn", "not installed", mend)
    if version.split("+")[0] == pin:
        return Finding(package, "ok", version)
    wrong = name == "jittor" or (name == "numpy" and not version.startswith("1."))
    return Finding(package, "fail" if wrong else "warn", f"{version}, tested with {pin}", mend)


def check_onednn() -> Finding:
    try:
        folder = runtime_onednn.home_folder(runtime_machine.jittor_home())
        if runtime_onednn.usable(folder):
            return Finding("oneDNN", "ok", f"{runtime_onednn.interface_version(folder)} in {folder}")
        _, library = runtime_onednn.package_files()
    except UserError as error:
        return Finding("oneDNN", "fail", "not found", str(error))
    return Finding("oneDNN", "ok", f"{library}, to be put in place at the first run")


def check_cache() -> Finding:
    try:
        home = runtime_machine.jittor_home()
    except UserError as error:
        return Finding("Jittor cache", "fail", "not writable", str(error))
    folder = home / ".cache" / "jittor"
    stamps = sorted(folder.glob("jt*/**/jt_nanodet-*.json"))
    if not stamps:
        return Finding("Jittor cache", "ok", f"{folder}, not built yet: the first run builds it in a few minutes")
    devices = ", ".join(sorted({stamp.stem.split("-")[-1] for stamp in stamps}))
    return Finding("Jittor cache", "ok", f"{folder}, built for {devices} (to build afresh: rm -r {folder})")


def check_sticky_home() -> Finding:
    """Jittor's own sticky setting: harmless here, but the user may wonder which cache is used."""
    path = Path.home() / ".cache" / "jittor" / "config.json"
    try:
        sticky = json.loads(path.read_text(encoding="utf-8")).get("JITTOR_HOME", "")
    except (OSError, ValueError, AttributeError):
        sticky = ""
    wanted = os.environ.get("JITTOR_HOME", "")
    if sticky and not wanted and Path(sticky) != Path.home():
        found = f"{path} says {sticky}, which other programs use; this one uses {Path.home()}"
        return Finding("JITTOR_HOME", "warn", found, f'to share that cache type "export JITTOR_HOME={sticky}"')
    return Finding("JITTOR_HOME", "ok", wanted or "not set")


def check_gpu() -> Finding:
    try:
        return Finding("NVIDIA GPU", "ok", str(runtime_cuda.find_gpu()))
    except UserError as error:
        reason = str(error).split(", so ")[0].split(": ")[0]
        return Finding("NVIDIA GPU", "warn", reason, "none is needed for --device cpu; for cuda: a GPU and driver 580 or newer")


def check_cuda() -> Finding:
    try:
        return Finding("CUDA", "ok", str(runtime_cuda.find_toolkit()))
    except UserError as error:
        found, _, mend = str(error).partition(": ")
        return Finding("CUDA", "warn", f"{found}; not needed for --device cpu", mend)


def check_threads() -> Finding:
    wanted = os.environ.get("OMP_NUM_THREADS", "not set")
    found = (
        f"{runtime_machine.cpu_count()} cores, OMP_NUM_THREADS {wanted}: kernels use {runtime.default_threads()} threads, "
        f"builds use {runtime_machine.compile_workers()} compilers"
    )
    if runtime.default_threads() > runtime_machine.cpu_count():
        return Finding("Threads", "warn", found, 'more threads than cores is slow: type "unset OMP_NUM_THREADS"')
    return Finding("Threads", "ok", found)


def check_disk() -> Finding:
    folder = Path(os.environ.get("JITTOR_HOME") or Path.home())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    found = f"{free:.1f} GB free at {folder}"
    if free < _NEEDED_GB:
        return Finding("Disk", "fail", found, f"free {_NEEDED_GB:.0f} GB there, or set JITTOR_HOME to another folder")
    return Finding("Disk", "ok", found)


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_compiler,
    lambda: check_package("numpy", "numpy", "1.26.4", True),
    lambda: check_package("jittor", "jittor", runtime_machine.JITTOR_VERSION, True),
    lambda: check_package("torch", "torch", "2.13.0", False),
    lambda: check_package("opencv", "opencv-python-headless", "4.11.0.86", True),
    check_onednn,
    check_cache,
    check_sticky_home,
    check_gpu,
    check_cuda,
    check_threads,
    check_disk,
)


def examine() -> list[Finding]:
    """Run every check, in the order they are shown."""
    return [check() for check in CHECKS]


def main(argv: list[str]) -> int:
    """Print the table (or ``--json``); 0 when CPU use is possible, else 2."""
    parser = argparse.ArgumentParser(
        prog="python -m jt_nanodet doctor",
        description="Show what Jittor needs and what was found here, and what to type to mend it.",
        epilog="Exit code 0: CPU use is possible. 2: it is not.",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    options = parser.parse_args(argv)
    findings = examine()
    possible = all(finding.state != "fail" for finding in findings)
    if options.json:
        print(json.dumps({"cpu_possible": possible, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        _print_table(findings)
        print("CPU use is possible." if possible else "CPU use is not possible yet: mend the rows marked fail.")
    return 0 if possible else 2


def _print_table(findings: list[Finding]) -> None:
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        # the doctor must speak on a machine where nothing is installed yet
        for f in findings:
            print(f"{f.state:5} {f.name}: {f.found}" + (f"\n      -> {f.mend}" if f.mend else ""))
        return
    table = Table(show_lines=False)
    table.add_column("")
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("to mend it", overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for f in findings:
        table.add_row(f"[{colours[f.state]}]{f.state}[/]", escape(f.name), escape(f.found), escape(f.mend))
    # into a file or a pipe there is no width to keep to
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None

"""Puts oneDNN where Jittor looks for it, from a package instead of Jittor's download host.

Jittor 1.3.11 wants ``<home>/.cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp/{include,lib}`` and fetches
it from one university server when ``lib/libmkldnn.so`` is not there. The package
``onednn-devel-cpu-gomp`` holds the same library (version 2 of its interface, built for gomp), so
its files are put there first. Torch ships oneDNN headers too, of version 3: Jittor's sources do not
compile against those, which is why files are taken only from the package's own file list.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import uuid
from pathlib import Path

from jt_nanodet.errors import UserError

PACKAGE = "onednn-devel-cpu-gomp"
#: The headers' package depends on this one, which holds the library itself.
LIBRARY_PACKAGE = "onednn-cpu-gomp"
VERSION = "2022.2.1"
INSTALL = f'"python -m pip install {PACKAGE}=={VERSION}"'

#: The folder name holds the version Jittor asks for, whatever version lies in it.
_FOLDERS = {"x86_64": "dnnl_lnx_2.2.0_cpu_gomp"}
_INTERFACE = 2


def home_folder(jittor_home: Path) -> Path:
    """The folder Jittor takes oneDNN from on this kind of machine (it need not exist).

    Raises UserError on processors for which no oneDNN package of this kind is published.
    """
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _FOLDERS:
        raise UserError(
            f"Jittor's CPU library is packaged for Linux on x86_64 only, not for {platform.system()} on {machine}: "
            "run this on a Linux x86_64 machine or container"
        )
    return jittor_home / ".cache" / "jittor" / "mkl" / _FOLDERS[machine]


def interface_version(folder: Path) -> str | None:
    """``"2.6.0"`` as written in the headers under ``folder/include``; None without them."""
    header = folder / "include" / "oneapi" / "dnnl" / "dnnl_version.h"
    if not header.is_file():
        return None
    text = header.read_text(encoding="utf-8", errors="replace")
    found = dict(re.findall(r"#define\s+DNNL_VERSION_(MAJOR|MINOR|PATCH)\s+(\d+)", text))
    return ".".join(found.get(part, "?") for part in ("MAJOR", "MINOR", "PATCH"))


def usable(folder: Path) -> bool:
    """Whether Jittor can compile and link against ``folder``: right interface, libraries that exist.

    A link into an environment that has been deleted counts as missing.
    """
    version = interface_version(folder)
    if version is None or not version.startswith(f"{_INTERFACE}."):
        return False
    # libmkldnn.so is the name Jittor links, libdnnl.so.2 the name the loader then asks for.
    return all(
        (folder / "lib" / name).is_file() and (folder / "lib" / name).stat().st_size > 0
        for name in ("libmkldnn.so", f"libdnnl.so.{_INTERFACE}")
    )


def package_files() -> tuple[list[tuple[Path, str]], Path]:
    """The package's headers as (path, path below ``include``) and its library.

    Raises UserError when the package is missing, of another version, or its files were removed.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"Jittor needs oneDNN, and the package {PACKAGE} is not installed: type {INSTALL}") from None
    entries = list(distribution.files or [])
    try:
        entries += importlib.metadata.distribution(LIBRARY_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        pass  # told below as a missing file
    headers: list[tuple[Path, str]] = []
    library: Path | None = None
    for entry in entries:
        parts = entry.parts
        if "include" in parts and entry.suffix in (".h", ".hpp"):
            below = "/".join(parts[parts.index("include") + 1 :])
            headers.append((Path(distribution.locate_file(entry)), below))
        elif entry.name == f"libdnnl.so.{_INTERFACE}":
            library = Path(distribution.locate_file(entry))
    if library is None or not headers or not library.is_file() or not all(path.is_file() for path, _ in headers):
        raise UserError(
            f"{PACKAGE} {distribution.version} is installed without the files Jittor needs: "
            f'type "python -m pip install --force-reinstall {PACKAGE}=={VERSION} {LIBRARY_PACKAGE}=={VERSION}"'
        )
    return headers, library.resolve()


def place(jittor_home: Path) -> Path:
    """Make sure Jittor finds oneDNN below ``jittor_home`` and return the folder it is in.

    A working version 2 that is there already is left alone, whoever put it there. Anything else
    is replaced in one rename, so that a process that starts at the same moment sees all or nothing.
    Raises UserError as ``package_files`` does, and when the folder cannot be written.
    """
    target = home_folder(jittor_home)
    rivals = sorted(p.name for p in target.parent.glob("dnnl*") if p.is_dir() and p.name != target.name)
    if rivals:
        # Jittor takes the first "dnnl*" folder the file system lists, which may be any of them.
        raise UserError(
            f"{target.parent} holds other oneDNN folders ({', '.join(rivals)}) that Jittor would confuse with its own: "
            f'type "rm -r {target.parent / rivals[0]}"'
        )
    if usable(target):
        return target
    headers, library = package_files()
    # Names must not begin with "dnnl", see above.
    fresh = target.parent / f"new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        (fresh / "lib").mkdir(parents=True)
        for path, below in headers:
            destination = fresh / "include" / below
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)
        _link_or_copy(library, fresh / "lib" / f"libdnnl.so.{_INTERFACE}")
        (fresh / "lib" / "libmkldnn.so").symlink_to(f"libdnnl.so.{_INTERFACE}")
        _swap_in(fresh, target)
    except OSError as error:
        raise UserError(
            f"cannot write oneDNN's files to {target} ({error.strerror or error}): "
            "free some space there, or set JITTOR_HOME to a folder you can write to"
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _link_or_copy(source: Path, destination: Path) -> None:
    """A second name for the same file costs nothing and survives the package's removal; else copy."""
    try:
        os.link(source.resolve(), destination)
    except OSError:
        shutil.copyfile(source, destination)


def _swap_in(fresh: Path, target: Path) -> None:
    """Rename ``fresh`` to ``target``; what was there goes, unless another process just made it good."""
    try:
        os.rename(fresh, target)
        return
    except OSError:
        if not target.exists() and not target.is_symlink():
            raise
    if usable(target):
        return
    broken = target.parent / f"old-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    os.rename(target, broken)
    try:
        os.rename(fresh, target)
    finally:
        if broken.is_symlink() or broken.is_file():
            broken.unlink()
        else:
            shutil.rmtree(broken, ignore_errors=True)

"""``evidence.json``: the seal of a report. It lists every file with its SHA-256 and says which code made them; `alignment.verify` reads it again.

A seal is only as good as the place where its own hash is kept, so the command prints that hash: whoever passes a report on passes the hash on too.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from alignment.result import write_json
from alignment.runners.child import ROOT

FILE = "evidence.json"
SCHEMA_VERSION = 1
#: What decides a verdict, a number or a page; documents and tests may change between making a report and verifying it.
PACKAGES = ("alignment", "configs", "jt_nanodet", "reports", "torch_ref", "weights_convert")
KINDS = (".py", ".cu", ".h", ".cuh", ".cpp", ".j2", ".css", ".js", ".yml", ".npz")
#: Recorded measurements lie among the sources and decide nothing.
BESIDE = ("reports/results/", "reports/out/")
#: Libraries that draw or write what a page shows.
DRAWING = ("matplotlib", "numpy", "opencv-python-headless", "jinja2")
CHUNK = 1 << 20


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def files_of(folder: Path) -> list[str]:
    """Every file below a report folder that is part of it, in order; not the seal, and nothing half-written or hidden."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if path.as_posix() != FILE and not any(part.startswith(".") for part in path.parts))


def _decides(name: str) -> bool:
    return name.startswith(tuple(f"{package}/" for package in PACKAGES)) and name.endswith(KINDS) and not name.startswith(BESIDE) and "__pycache__" not in name


def blob(data: bytes) -> str:
    """The name that git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def tree_sha256(blobs: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {blobs[name]}\n" for name in sorted(blobs)).encode()).hexdigest()


def code_now() -> str:
    """Hash over the files that decide what a report says, as they lie here."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return tree_sha256({name: blob(path.read_bytes()) for name, path in names.items() if _decides(name)})


def git(*words: str) -> str | None:
    """What git says in the checkout, or None where there is no git or no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit_now() -> str | None:
    """The commit of the checkout, when the checkout is this project's own."""
    top = git("rev-parse", "--show-toplevel")
    return git("rev-parse", "HEAD") if top and Path(top).resolve() == ROOT.resolve() else None


def code_at(commit: str) -> str | None:
    """The hash that `code_now` would give at `commit`; None where that commit is not known here."""
    listed = git("ls-tree", "-r", commit, "--", *PACKAGES) if commit and not commit.startswith("-") else None
    if not listed:
        return None
    entries = (line.split(None, 3) for line in listed.splitlines())
    return tree_sha256({name: object_name for _, _, object_name, name in entries if _decides(name)})


def drawing() -> dict[str, str]:
    """Versions of what draws a page, by package."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in DRAWING}


def seal(folder: Path, given: dict[str, Path | None]) -> str:
    """Write the seal over everything in `folder`, last of all; returns the seal's own SHA-256. `given`: files from outside that decided something."""
    commit, code = commit_now(), code_now()
    document = {
        "schema_version": SCHEMA_VERSION, "commit": commit, "changed_since_commit": None if commit is None else code_at(commit) != code, "code_sha256": code,
        "drawing": drawing(), "given": {name: {"path": str(path), "sha256": file_sha256(path)} for name, path in given.items() if path is not None},
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in files_of(folder)},
    }
    return file_sha256(write_json(folder / FILE, document))


def read(folder: Path) -> dict[str, Any] | None:
    """The seal, or None when there is none that can be used."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        usable = document["schema_version"] == SCHEMA_VERSION and all({"bytes", "sha256"} <= set(entry) for entry in document["files"].values())
        return document if usable and isinstance(document["code_sha256"], str) and isinstance(document["given"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None

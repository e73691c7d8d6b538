"""Start a runner in a process of its own and wait for it; framework-free."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.result import write_json
from jt_nanodet.errors import UserError

MODULES = {"pytorch": "alignment.runners.torch_runner", "jittor": "alignment.runners.jittor_runner"}
#: So many bytes of what a child printed last are looked at: a child of somebody else's code may print without end.
LAST_WORDS = 4096
ROOT = Path(__file__).resolve().parents[2]
#: Packages whose source decides what a side computes.
SOURCES = {"pytorch": ("torch_ref", "jt_nanodet", "alignment/runners"), "jittor": ("jt_nanodet", "alignment/runners")}


def run(side: str, tasks: list[Mapping[str, Any]], common: Mapping[str, Any], folder: Path, *, verbosity: int = 0, timeout: float | None = None) -> dict[str, Any]:
    """Run `tasks` one after the other in one child of `side`; return what it wrote to its report: one entry a task.

    `common` goes to every task (config, weights, device, threads, seed). The child's progress goes to our standard error.
    Raises UserError with the child's own sentence when it refuses its input, and with the end of its output when it dies,
    or when it is not done after `timeout` seconds.
    """
    job, report = prepare(side, tasks, common, folder, verbosity)
    with tempfile.TemporaryFile() as log:
        # progress lines are shown as they come; standard output and a traceback are kept for the error message
        try:
            code = subprocess.run(command(side, job), stdin=subprocess.DEVNULL, stdout=log, stderr=None if verbosity >= 0 else log,
                                  env=environment(), check=False, timeout=timeout).returncode
        except subprocess.TimeoutExpired as error:
            raise UserError(f"the {side} side was not done after {timeout:g} s and was stopped: mend what hangs, or give more with --timeout") from error
        log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
        output = log.read().decode("utf-8", errors="replace")
    if report.is_file():
        document = json.loads(report.read_text(encoding="utf-8"))
        if document.get("error"):
            raise UserError(document["error"])
        if code == 0:
            return document
    tail = " / ".join(line.strip() for line in output.splitlines()[-3:] if line.strip())
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
    raise UserError(f"the {side} side {how} before it was done{': ' + tail if tail else ''}; "
                    f"type \"python -m {MODULES[side]} {job}\" to see it alone")


def prepare(side: str, tasks: list[Mapping[str, Any]], common: Mapping[str, Any], folder: Path, verbosity: int = 0, name: str = "") -> tuple[Path, Path]:
    """Write the job file of a child; returns it and the place of the report that the child will write."""
    folder.mkdir(parents=True, exist_ok=True)
    job, report = (folder / f"{side}{name}.{what}.json" for what in ("job", "report"))
    report.unlink(missing_ok=True)
    write_json(job, {"side": side, "tasks": [{**common, **task} for task in tasks], "report": str(report), "verbosity": verbosity})
    return job, report


def command(side: str, job: Path) -> list[str]:
    return [sys.executable, "-m", MODULES[side], str(job)]


def environment() -> dict[str, str]:
    """This process's, with the checkout on the module path. Threads that wait sleep: where they spin, two of them for one free core make a step ten times as slow.

    Standard output stays buffered: unbuffered, Python loses the rest of a long answer when the process is stopped (Ctrl-Z) while it writes into a full pipe.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {"OMP_WAIT_POLICY": "passive", **kept, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}


def code_sha256(side: str) -> str:
    """Hash over the source files that decide what `side` computes, in a fixed order."""
    digest = hashlib.sha256()
    for package in SOURCES[side]:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".cu", ".h", ".cuh", ".cpp") and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()

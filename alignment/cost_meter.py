"""Seconds and memory of one command: of its largest process, and of all its processes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alignment.cli import say
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
#: Seconds between two looks at the processes.
EVERY = 0.05
#: A shell in between keeps the largest process apart: RUSAGE_CHILDREN of this process would mix all commands.
SHELL = "import resource,subprocess,sys;r=subprocess.call(sys.argv[1:]);print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,r)"


def measure(name: str, command: list[str], *, cwd: Path = ROOT, env: dict[str, str] | None = None, accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run one command; seconds, largest resident memory of one of its processes and of all together, exit status. UserError when that is none of `accept`."""
    say(f"{name}: {' '.join(command)}")
    together = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", SHELL, *command], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        while process.poll() is None:
            together = max(together, sum(resident(one) for one in below(process.pid)))
            time.sleep(EVERY)
        seconds = time.perf_counter() - started
        said, complaint = (stream.read().decode("utf-8", "replace") for stream in (out, err) if stream.seek(0) == 0)
    kilobytes, status = (int(word) for word in said.split()[-2:])
    if status not in accept:
        last = (complaint.strip() or said.strip()).splitlines()[-1]
        raise UserError(f"{name} failed ({last}): run it alone: {' '.join(command)}")
    largest = kilobytes / 1024
    return {"name": name, "command": " ".join(shown(word) for word in command), "seconds": seconds, "peak_memory_mb": largest,
            "together_mb": max(largest, together / 2**20)}


def below(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they started; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.isdigit():
            try:
                # the name in brackets may hold anything, spaces and brackets too
                children.setdefault(int(Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()[1]), []).append(int(entry))
            except (OSError, ValueError, IndexError):
                continue  # it has just ended
    found, open_ends = [], [pid]
    while open_ends:
        more = children.get(open_ends.pop(), [])
        found += more
        open_ends += more
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now. What several share counts for each, so a sum is never too low."""
    try:
        return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def outcome(file: Path) -> dict[str, Any]:
    """What the measured command found: verdict, counts, what was not decided, and the rows that say whether recording changed something."""
    document = json.loads(file.read_text(encoding="utf-8"))
    found = {key: document[key] for key in ("verdict", "compared", "failed", "skipped")}
    if "tensors" in document:
        found["undecided"] = [row["name_ref"] for row in document["tensors"] if row["verdict"] == "inconclusive"]
        found["observers"] = {row["name_ref"]: row["verdict"] for row in document["tensors"] if row["stage"] == "observer"}
    return found


def shown(word: str) -> str:
    """Without the places of this machine."""
    return "python" if word == sys.executable else word.replace(tempfile.gettempdir() + os.sep, "TMP/").replace(str(ROOT), ".")

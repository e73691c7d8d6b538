"""Builds Jittor's core once, in a child process, with progress; remembers that it is built.

Jittor compiles about 150 C++ files at its first import. Left to itself it does so silently or
loudly, may end with exit code 0 and "please rerun", and may leave a half-written library behind
when it is killed. Here the first import happens in a child process; this process imports Jittor
only when a stamp says that the core it would load is the one that was seen to work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jt_nanodet.errors import EXIT_USAGE, UserError

#: Set in the child: import, do not look at stamps, do not start another child.
CHILD_MARK = "JT_NANODET_BUILDING"
READY = "jt_nanodet: jittor core ready"

_PROGRESS = re.compile(r"Compiling (\S+?)\((\d+)/(\d+)\)")
#: Work that Jittor does not count, in units of one compiled core file (measured: 35 s before the
#: first file and 25 s after the last, at 1.3 s a file on two cores).
_BEFORE, _AFTER = 26, 18
_USUAL_FILES = 150


def core_files(cache: Path) -> dict[str, list[int]]:
    """Size and modification time of every shared library the core consists of, by relative path."""
    found = {}
    for pattern in ("jit_utils_core*.so", "jittor_core*.so", "*/jittor_core*.so", "custom_ops/*.so", "*/custom_ops/*.so"):
        for path in cache.glob(pattern):
            status = path.stat()
            found[str(path.relative_to(cache))] = [status.st_size, status.st_mtime_ns]
    return found


def is_built(cache: Path, stamp: Path, key: dict[str, str]) -> bool:
    """Whether ``stamp`` records a core built for ``key`` whose libraries are untouched since.

    Other custom operators may have been added later; a recorded one that changed means rebuild.
    """
    try:
        recorded = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(recorded, dict) or recorded.get("key") != key or not recorded.get("files"):
        return False
    present = core_files(cache)
    return all(present.get(name) == facts for name, facts in recorded["files"].items())


def write_stamp(cache: Path, stamp: Path, key: dict[str, str]) -> None:
    """Record the core that was just seen to import; written whole or not at all."""
    handle, name = tempfile.mkstemp(dir=cache, prefix=".stamp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"key": key, "files": core_files(cache)}, file, indent=1)
    os.replace(name, stamp)


def remove_torn(cache: Path, now: float | None = None) -> list[str]:
    """Delete compiled kernels that are shorter than their own header says; return their names.

    Jittor hangs while it loads one (the bus error of the loader ends in its signal handler). A full
    disk or a power cut leaves such files. Files of the last minute are left alone: another process
    may be writing them.
    """
    limit = (time.time() if now is None else now) - 60
    removed = []
    for folder in ("jit", "custom_ops"):
        for path in [*cache.glob(f"{folder}/*.so"), *cache.glob(f"*/{folder}/*.so")]:
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit and _torn(path):
                    # without its library the key beside it counts for nothing: Jittor compiles again
                    path.unlink()
                    removed.append(path.name)
    return removed


def _torn(path: Path) -> bool:
    """Whether an ELF file ends before its table of sections, which linkers write last."""
    with open(path, "rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return True
    (table,) = struct.unpack_from("<Q", header, 0x28)
    size, count = struct.unpack_from("<HH", header, 0x3A)
    return path.stat().st_size < table + size * count


@contextlib.contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an advisory lock on ``path``; say ``waiting`` once on stderr if another process has it."""
    with open(path, "a", encoding="utf-8") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    print(waiting, file=sys.stderr, flush=True)
                    told = True
                time.sleep(0.2)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


class Progress:
    """One line on stderr: share done, seconds gone, seconds left. Rewritten in place on a terminal."""

    def __init__(self, title: str, stream: TextIO | None = None, every: float = 15.0) -> None:
        self.title, self.stream = title, stream or sys.stderr
        self.start, self.every = time.monotonic(), 0.5 if self.stream.isatty() else every
        self.done, self.total = 0.0, float(_BEFORE + _USUAL_FILES + _AFTER)
        self.count, self.files, self.core_seen = 0, _USUAL_FILES, False
        self.last, self.shown = self.start, False

    def read(self, text: str) -> None:
        """Take in one piece of Jittor's own output."""
        for name, done, total in _PROGRESS.findall(text):
            if name == "jittor_core":
                self.core_seen = True
                self.count, self.files = int(done), int(total)
                self.total = float(_BEFORE + self.files + _AFTER)
                self.done = _BEFORE + self.count
            elif self.core_seen:
                # the oneDNN operators come last and count as the second half of what follows
                self.done = self.total - _AFTER / 2 * (1 - int(done) / int(total))

    def line(self, now: float) -> str:
        """The line to show at time ``now`` (of ``time.monotonic``)."""
        gone = now - self.start
        # before the first file nothing is counted: move with the clock, but never past the mark
        done = self.done if self.done else min(_BEFORE - 1.0, gone / 1.35)
        share = min(done / self.total, 0.99)
        left_text = f"about {gone * (1 - share) / share:.0f} s left" if share > 0.02 else "estimating the time left"
        return f"{self.title}: {self.count}/{self.files} files, {100 * share:.0f} %, {gone:.0f} s gone, {left_text}"

    def show(self) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last, self.shown = now, True
        end = "" if self.stream.isatty() else "\n"
        start = "\r\033[K" if self.stream.isatty() else ""
        self.stream.write(f"{start}{self.line(now)}{end}")
        self.stream.flush()

    def finish(self) -> None:
        if self.shown and self.stream.isatty():
            self.stream.write("\r\033[K")
        if self.shown:
            self.stream.write(f"{self.title}: done in {time.monotonic() - self.start:.0f} s\n")
            self.stream.flush()


def build(cache: Path, home: Path, device: str, log: Path, title: str) -> float:
    """Import Jittor in child processes until one says it is ready; return the seconds it took.

    Two clean runs may be needed ("jit_utils updated, please rerun" exits with 0). A run that fails
    is repeated once after the linked libraries were removed: a build that was killed while linking
    leaves one that loads badly. Raises UserError that names the log after that; a failure that the
    child explained itself (exit code 2) is passed on as it is.
    """
    start = time.monotonic()
    progress = Progress(title)
    failures = 0
    for _ in range(4):
        code, ready = _run_child(home, device, log, progress)
        if ready:
            progress.finish()
            return time.monotonic() - start
        if code == EXIT_USAGE and last_error(log):
            raise UserError(last_error(log))
        if code != 0:
            failures += 1
            if failures == 2:
                break
            remove_linked(cache)
    reason = last_error(log)
    raise UserError(
        f"Jittor's core could not be built{': ' + reason if reason else ''} (all output is in {log}): "
        'type "python -m jt_nanodet doctor"'
    )


def remove_linked(cache: Path) -> None:
    """Delete the core's shared libraries and their keys; object files stay, so relinking is quick."""
    for pattern in ("jit_utils_core*", "jittor_core*", "*/jittor_core*", "custom_ops/*.so*", "*/custom_ops/*.so*"):
        for path in cache.glob(pattern):
            with contextlib.suppress(OSError):
                path.unlink()


def last_error(log: Path) -> str:
    """The last line of ``log`` that looks like a reason, without colour codes; "" if none does."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    text = re.sub(r"\x1b\[[0-9;]*[mK]", "", text.replace("\r", "\n"))
    for pattern in (r"^error: (.+)", r"error: (.+)", r"(\w*Error: .+)", r"(No space left.*)"):
        found = re.findall(pattern, text, re.MULTILINE)
        if found:
            return found[-1].strip().rstrip(".")[:400]
    return ""


def _run_child(home: Path, device: str, log: Path, progress: Progress) -> tuple[int, bool]:
    package_root = str(Path(__file__).resolve().parents[1])
    code = (
        "import ctypes, signal, sys\n"
        # PR_SET_PDEATHSIG: do not go on compiling when the parent was killed
        "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
        f"sys.path.insert(0, {package_root!r})\n"
        "from jt_nanodet import errors, runtime\n"
        "def main(argv):\n"
        f"    runtime.setup(device={device!r}, quiet=False)\n"
        f"    print({READY!r}, flush=True)\n"
        "    return 0\n"
        "sys.exit(errors.run_cli(main, []))\n"
    )
    environment = {**os.environ, CHILD_MARK: "1", "JITTOR_HOME": str(home)}
    ready = False
    with open(log, "w", encoding="utf-8") as file:
        child = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        assert child.stdout is not None
        # Jittor's worker processes keep the pipe open while nothing is printed, so the clock needs its own thread.
        stop = threading.Event()
        ticker = threading.Thread(target=_tick, args=(progress, stop), daemon=True)
        ticker.start()
        try:
            while chunk := os.read(child.stdout.fileno(), 65536):
                text = chunk.decode("utf-8", errors="replace")
                file.write(text)
                file.flush()
                progress.read(text)
                ready = ready or READY in text
            returned = child.wait()
        except BaseException:
            # Ctrl-C: the compilers run in the child's own session and would go on without us.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            raise
        finally:
            stop.set()
            ticker.join()
    return returned, ready


def _tick(progress: Progress, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        progress.show()

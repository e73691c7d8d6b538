"""The two processes of ``alignment.train``: commands to them, and answers."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from alignment.runners import child
from jt_nanodet.errors import UserError


class Partner:
    """One side's process: a line of JSON in, a line of JSON out."""

    def __init__(self, side: str, task: dict[str, Any], common: dict[str, Any], folder: Path, verbosity: int, timeout: float | None = None):
        self.timeout, self.hung = timeout, False
        self.side, (job, self.report) = side, child.prepare(side, [task], common, folder, verbosity, ".train")
        self.log = open(folder / f"{side}.train.log", "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(child.command(side, job), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        env=child.environment(), text=True)
        self.tail: list[str] = []
        self.owed, self.early = 0, []

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Put in what is asked now; answers to earlier commands that were not fetched yet are kept for `answer`."""
        while self.owed:
            self.early.append(self.read())
            self.owed -= 1
        self.send(command)
        self.owed -= 1
        return self.read()

    def send(self, command: dict[str, Any]) -> None:
        """Ask without waiting; `answer` fetches."""
        self.owed += 1
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `read` finds out why

    def answer(self) -> dict[str, Any]:
        """The answer to the oldest command that was sent and not answered."""
        if self.early:
            return self.early.pop(0)
        self.owed -= 1
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next line of JSON; anything else (a library talking, a traceback) is kept for the error message."""
        watchdog = threading.Timer(self.timeout, self.stop) if self.timeout else None
        if watchdog:
            watchdog.start()
        try:
            for line in self.process.stdout:
                if line.startswith("{"):
                    try:
                        return json.loads(line)
                    except ValueError as error:  # something else wrote into it, or the process was cut off
                        raise UserError(f"an answer of the {self.side} side broke off or was written into after {len(line)} characters, so its step is lost; "
                                        f"what that side said is in {self.log.name}; type the command again") from error
                self.tail = [*self.tail[-3:], line.strip()]
        finally:
            if watchdog:
                watchdog.cancel()
        self.process.wait()
        if self.hung:
            raise UserError(f"the {self.side} side did not answer for {self.timeout:g} s and was stopped: mend what hangs, or give more with --timeout")
        error = json.loads(self.report.read_text(encoding="utf-8")).get("error") if self.report.is_file() else None
        raise UserError(error or f"the {self.side} side ended with exit status {self.process.returncode}: {' / '.join(filter(None, self.tail))}; "
                        "type \"python -m jt_nanodet doctor\"")

    def stop(self) -> None:
        self.hung = True
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()

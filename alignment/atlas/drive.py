"""Runs one side's cases in child processes: a crash or a hang costs its own case alone, and a stopped run goes on where it was."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alignment.atlas import answers
from alignment.atlas.entry import Entry
from alignment.cli import say
from alignment.result import write_json
from alignment.runners.child import environment
from jt_nanodet.errors import UserError

MODULES = {"torch": "alignment.runners.torch_ops", "jittor": "alignment.runners.jittor_ops"}
#: Exit status of a child that asks to be started anew (see `alignment.runners.ops_tasks`).
UNWELL = 75
#: How often a child's progress is looked at, in seconds.
TICK = 0.2
#: A child that ends so often in a row without a new answer will not get further.
FRUITLESS = 3

Case = tuple[str, str]
Found = dict[Case, dict[str, Any]]


class Worker:
    """One child after the other over a list of cases; answers go to ``folder/SIDE.NAME.jsonl``."""

    def __init__(self, side: str, name: str, folder: Path, known: dict[str, Entry], timeout: float, verbosity: int):
        self.side, self.folder, self.known, self.timeout, self.verbosity = side, folder, known, timeout, verbosity
        self.path = folder / f"{side}.{name}.jsonl"
        self.job, self.log = folder / f"{side}.{name}.job.json", folder / f"{side}.{name}.log"

    def run(self, cases: list[Case]) -> None:
        fruitless, pending = 0, self._without_answer(cases)
        while pending:
            code, hung = self._child(pending)
            begun = started(self.path)
            if begun is not None and code != UNWELL:
                self._lost(begun, "hang" if hung else "crash", f"not done after {self.timeout:g} s" if hung else f"the process ended {ending(code)}")
            before, pending = len(pending), self._without_answer(cases)
            fruitless = fruitless + 1 if len(pending) == before else 0
            if fruitless == FRUITLESS:
                tail = " / ".join(line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:] if line.strip())
                raise UserError(f'the {self.side} side does not start{f": {tail}" if tail else ""}; type "python -m {MODULES[self.side]} {self.job}" to see it alone')

    def _without_answer(self, cases: list[Case]) -> list[Case]:
        known = done(self.path, self.known)
        return [case for case in cases if case not in known]

    def _child(self, pending: list[Case]) -> tuple[int, bool]:
        """Exit status, and whether the child was stopped because a case took too long."""
        entries = {key: dataclasses.asdict(self.known[key]) for key, _ in pending}
        write_json(self.job, {"entries": entries, "cases": [list(case) for case in pending], "answers": str(self.path)})
        with self.log.open("w", encoding="utf-8") as log:
            child = subprocess.Popen([sys.executable, "-m", MODULES[self.side], str(self.job)], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=None if self.verbosity > 0 else log, env=environment())
            size, since = -1, time.monotonic()
            while child.poll() is None:
                time.sleep(TICK)
                now = self.path.stat().st_size if self.path.exists() else 0
                if now != size:
                    size, since = now, time.monotonic()
                elif time.monotonic() - since > self.timeout:
                    child.kill()
                    return child.wait(), True
            return child.returncode, False

    def _lost(self, case: Case, how: str, message: str) -> None:
        answers.append(self.path, {"case": list(case), "digest": self.known[case[0]].digest(case[1]), "error": {"where": "process", "type": how, "message": message}})


def ending(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit status {code}"


def done(path: Path, known: dict[str, Entry]) -> Found:
    """Answered cases that still are what they were when they ran."""
    found: Found = {}
    for line in answers.read(path):
        name, case = line.get("case", (None, None))
        if name in known and line.get("digest") == known[name].digest(case):
            found[name, case] = line
    return found


def started(path: Path) -> Case | None:
    """The case that was begun last, when it has no answer."""
    lines = answers.read(path)
    last = next((line for line in reversed(lines) if "start" in line or "case" in line), {})
    return tuple(last["start"]) if "start" in last else None


def run(side: str, known: dict[str, Entry], folder: Path, *, timeout: float = 180, workers: int = 1, verbosity: int = 0) -> Found:
    """The answer of `side` to every case of the entries.

    What an earlier run left in `folder` is kept. A case that raised or crashed is looked at once more, in another process:
    what was wrong once only may be what an earlier error left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases = [(entry.key, case) for entry in known.values() for case in entry.cases]
    teams = [Worker(side, str(number), folder, known, timeout, verbosity) for number in range(workers)]
    had = {case for path in folder.glob(f"{side}.[0-9].jsonl") for case in done(path, known)}
    rest = [case for case in cases if case not in had]
    say(f"{side}: {len(cases)} cases, {len(cases) - len(rest)} known already", verbosity)
    names = list(dict.fromkeys(name for name, _ in rest))
    # all cases of an entry go to one worker: they share their kernels
    shares = [[case for case in rest if names.index(case[0]) % workers == number] for number in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(team.run, share) for team, share in zip(teams, shares) if share]
        _progress(waiting, folder, side, known, len(cases), verbosity)
        for one in waiting:
            one.result()
    found: Found = {}
    for path in sorted(folder.glob(f"{side}.[0-9].jsonl")):
        found.update(done(path, known))
    found = {case: found[case] for case in cases}
    bad = [case for case in cases if "error" in found[case] and found[case]["error"]["type"] != "hang"]
    again = Worker(side, "again", folder, known, timeout, verbosity)
    if bad:
        say(f"{side}: {len(bad)} cases raised or died and are run once more", verbosity)
        again.run(bad)
        for case, answer in done(again.path, known).items():
            if case in found and "error" in found[case]:
                found[case] = {**answer, "first": found[case]["error"]}
    return found


def _progress(waiting: list, folder: Path, side: str, known: dict[str, Entry], total: int, verbosity: int) -> None:
    last = time.monotonic()
    while not all(one.done() for one in waiting):
        time.sleep(TICK)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"{side}: {sum(len(done(path, known)) for path in folder.glob(f'{side}.[0-9].jsonl'))} of {total} cases", verbosity)

"""What all tests share: the optional folder beside the repository, one Jittor a session, and the
list of what was not run, printed at the end of every run."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NO_SHARED = "not run: no ../shared"

_not_run: Counter[str] = Counter()
_ran = 0


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images, real weights and recorded arrays: SHARED_DIR, else ``../shared``."""
    folder = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(NO_SHARED)
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with upstream's recorded arrays: GOLDEN_DIR, else ``../shared/golden``."""
    folder = Path(os.environ.get("GOLDEN_DIR") or ROOT.parent / "shared" / "golden")
    if not folder.is_dir():
        pytest.skip(NO_SHARED if "GOLDEN_DIR" not in os.environ else f"not run: no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def jittor():
    """Jittor on the CPU, prepared by the project's own runtime; built at most once a machine."""
    from jt_nanodet import runtime

    runtime.setup()
    import jittor as jt

    return jt


@pytest.fixture(scope="module", autouse=True)
def gradients():
    """The runners switch gradients off for their process. Here many tests share one: each file begins with them on."""

    def on() -> None:
        if "torch" in sys.modules:
            sys.modules["torch"].set_grad_enabled(True)
        if hasattr(sys.modules.get("jittor"), "flags"):
            sys.modules["jittor"].flags.no_grad = 0

    on()
    yield
    on()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _ran
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _not_run[reason.removeprefix("Skipped: ")] += 1
    elif report.when == "call":
        _ran += 1


def pytest_collectreport(report: pytest.CollectReport) -> None:
    # a whole module skipped with importorskip or a module-level pytest.skip
    if report.skipped and isinstance(report.longrepr, tuple):
        _not_run[f"{report.nodeid}: {report.longrepr[2].removeprefix('Skipped: ')}"] += 1


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        kinds = sorted({mark.name for mark in item.iter_markers()} & {"cuda", "mpi", "slow"})
        _not_run[f"deselected: {', '.join(kinds) or 'by -k or -m'}"] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """"Not run" is a result too: say how many and why, whatever -r was given."""
    terminalreporter.section("not run")
    if not _not_run:
        terminalreporter.write_line("nothing: every collected test ran")
    for reason, count in sorted(_not_run.items()):
        terminalreporter.write_line(f"{count:5}  {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that tested nothing is a failure, even where pytest itself would let it pass."""
    if exitstatus == pytest.ExitCode.OK and _ran == 0 and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

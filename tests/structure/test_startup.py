"""Starting a command costs no framework and little time: what is heavy is imported where it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Seconds of processor time that importing a command may take in its thread (Python's own start and the threads that OpenBLAS keeps
#: spinning are not counted), and on a machine in a slow moment this many times what NumPy and OpenCV take alone, which no command can do without.
LIMIT, TIMES = 0.3, 2
HEAVY = ("jittor", "torch", "torch_ref", "matplotlib", "pandas", "scipy.optimize", "scipy.stats", "pycocotools.cocoeval")
COMMANDS = ("jt_nanodet.__main__", "jt_nanodet.config", "alignment.report", "alignment.layers", "alignment.train", "alignment.logs", "alignment.simulate",
            "weights_convert", "reports")
CODE = """
import sys, time
began = time.thread_time()
import {name}
print(time.thread_time() - began, *(m for m in {heavy} if m in sys.modules))
"""


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python keeps what it compiled, as it does for a user: without it every start compiles every module anew."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}


def processor_time(name: str, environment: dict[str, str]) -> tuple[float, list[str]]:
    """Seconds to import a module in a process of its own, and which heavy ones came with it."""
    done = subprocess.run([sys.executable, "-c", CODE.format(name=name, heavy=HEAVY)], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    first, *heavy = done.stdout.split()
    return float(first), heavy


@pytest.mark.parametrize("name", COMMANDS)
def test_import_is_light(name: str, bytecode: dict[str, str]) -> None:
    tries = []
    processor_time(name, bytecode)  # compiles
    for _ in range(3):  # another process on the same core makes a try slower, never faster
        seconds, heavy = processor_time(name, bytecode)
        assert not heavy, f"{name} imports {', '.join(heavy)} at its start"
        if seconds < LIMIT:
            return
        tries.append((seconds, processor_time("numpy, cv2", bytecode)[0]))
    assert any(own < TIMES * libraries for own, libraries in tries), f"importing {name} takes {min(tries)[0]:.2f} s of processor time, limit {LIMIT}"

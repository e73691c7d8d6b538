"""Starting a command costs no framework and little time: what is heavy is imported where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Seconds of processor time that importing a command may take (Python's own start is not counted).
LIMIT = 0.3
HEAVY = ("jittor", "torch", "torch_ref", "matplotlib", "pandas", "scipy.optimize", "scipy.stats", "pycocotools.cocoeval")
COMMANDS = ("jt_nanodet.__main__", "jt_nanodet.config", "alignment.report", "alignment.layers", "alignment.train", "alignment.logs", "alignment.simulate",
            "weights_convert", "reports")
CODE = """
import sys, time
began = time.process_time()
import {name}
print(time.process_time() - began, *(m for m in {heavy} if m in sys.modules))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_import_is_light(name: str) -> None:
    seconds = []
    for _ in range(3):  # another process on the same core makes a try slower, never faster
        done = subprocess.run([sys.executable, "-c", CODE.format(name=name, heavy=HEAVY)], cwd=ROOT, capture_output=True, text=True, check=True)
        first, *heavy = done.stdout.split()
        assert not heavy, f"{name} imports {', '.join(heavy)} at its start"
        seconds.append(float(first))
        if seconds[-1] < LIMIT:
            return
    raise AssertionError(f"importing {name} takes {min(seconds):.2f} s of processor time, and should take less than {LIMIT}")

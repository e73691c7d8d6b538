"""The peak of a process is its own, whatever started it."""

import subprocess
import sys

import numpy as np

from jt_nanodet.run.memory import peak_memory_bytes

CODE = "from jt_nanodet.run.memory import peak_memory_bytes\nprint(peak_memory_bytes())\n"


def test_what_is_held_counts() -> None:
    before = peak_memory_bytes()
    held = np.ones(before // 4 * 2 // 8)  # half of what there is already, so that the peak must grow whatever was freed
    more = np.ones(len(held))
    more2 = np.ones(len(held))
    assert peak_memory_bytes() > before and held.size + more.size + more2.size


def test_a_childs_peak_is_not_its_parents() -> None:
    held = np.ones(30_000_000)  # 240 MB in the parent
    child = int(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)
    assert held.nbytes < peak_memory_bytes() and 1_000_000 < child < 100_000_000

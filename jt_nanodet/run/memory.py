"""The largest memory this process has held: what benchmarks and training logs print."""

from __future__ import annotations

import resource
import sys


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, in bytes.

    Linux keeps it for the program itself as VmHWM. `ru_maxrss`, the usual source, also counts what the parent held when it started
    this program (it survives `exec`), so a small child of a large test process would seem large.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

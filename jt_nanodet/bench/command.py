"""``python -m jt_nanodet bench WHAT``: hands on to the measurement of that name.

A measurement is a module with ``main(argv) -> int``. It starts one process a contestant, so that this one imports no framework.
"""

from __future__ import annotations

import importlib
import sys

from jt_nanodet.errors import UserError, nearest

#: name -> (module, one line for the help)
BENCHES: dict[str, tuple[str, str]] = {
    "gpu": ("jt_nanodet.bench.gpu", "training step and inference of both sides, whole, with their memory"),
    "kernels": ("jt_nanodet.bench.kernels", "assigner and suppression as kernels, against what else does the same"),
    "inference": ("jt_nanodet.bench.inference", "one image or a batch by every engine a user could pick on the CPU"),
    "limits": ("jt_nanodet.bench.limits", "what this CPU can do, and each step of the CPU engine against it"),
    "scaling": ("jt_nanodet.bench.scaling", "time and memory of the CPU engine against batch, size, boxes, threads; two processes at once"),
    "startup": ("jt_nanodet.bench.startup", "imports, Jittor's own start, first training step and its kernels"),
    "training": ("jt_nanodet.bench.training", "a training step of both sides, whole and in parts, and the data pipeline"),
    "data": ("jt_nanodet.data.bench", "images per second of the data pipeline alone"),
}


def usage() -> str:
    """The text of ``--help``."""
    width = max(map(len, BENCHES))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in BENCHES.items())
    return f"usage: python -m jt_nanodet bench WHAT ...\n\nMeasurements, verified before anything is timed.\n\nwhat:\n{rows}\n"


def main(argv: list[str]) -> int:
    """Hand ``argv[1:]`` to the measurement named by ``argv[0]`` and return its exit code. Raises UserError for an unknown name."""
    if not argv:
        print(usage(), end="", file=sys.stderr)
        return 2
    if argv[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if argv[0] not in BENCHES:
        close = nearest(argv[0], BENCHES)
        hint = f"did you mean {close}? " if close else ""
        raise UserError(f'there is no measurement "{argv[0]}": {hint}type "python -m jt_nanodet bench --help"')
    return importlib.import_module(BENCHES[argv[0]][0]).main(argv[1:])

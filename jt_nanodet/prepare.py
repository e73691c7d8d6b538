"""``python -m jt_nanodet prepare``: build Jittor's core now, not at the first use."""

from __future__ import annotations

import argparse

from jt_nanodet import runtime


def main(argv: list[str]) -> int:
    """Set Jittor up for ``--device`` and say where its core lies; UserError as ``runtime.setup`` raises it."""
    parser = argparse.ArgumentParser(
        prog="python -m jt_nanodet prepare",
        description="Build Jittor's core now (minutes, needed once for each environment), so that later commands start at once.",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    options = parser.parse_args(argv)
    info = runtime.setup(options.device)
    took = f"built in {info.built_seconds:.0f} s" if info.built_seconds else "built before"
    print(f"Jittor is ready for {info.device} ({took}): {info.cache}")
    return 0

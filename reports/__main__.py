"""`python -m reports DIR`: make the report of a folder of results again, without running anything.

The exit code is that of the verdict shown: 0 passed, 1 failed, 3 inconclusive or not comparable, 2 when
there is nothing to report on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jt_nanodet.errors import run_cli


def main(argv: list[str]) -> int:
    """Write the three files, print their paths and, last, the verdict line."""
    from reports import write_report
    from reports.rows import EXIT_CODES

    parser = argparse.ArgumentParser(
        prog="python -m reports", description="Make report.html, report.md and junit.xml from the result files in DIR.",
        epilog="example: python -m reports out/parity",
    )  # fmt: skip
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder given to `python -m alignment.report --output`")
    paths, summary = write_report(parser.parse_args(argv).folder)
    for path in paths.values():
        print(path)
    print(summary.line)
    return EXIT_CODES[summary.verdict]


if __name__ == "__main__":
    sys.exit(run_cli(main))

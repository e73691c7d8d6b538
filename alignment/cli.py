"""What every ``python -m alignment.X`` shares."""

from __future__ import annotations

import argparse
from pathlib import Path

from alignment.result import Result


def parent_parser() -> argparse.ArgumentParser:
    """Parent for argparse: --config --output --device --seed -q -v."""
    raise NotImplementedError


def prepare_output(directory: str | Path) -> Path:
    """Create the folder and try writing in it; UserError when that fails."""
    raise NotImplementedError


def finish(result: Result, output: str | Path) -> int:
    """Write ``output/result.json``, print the last line, return the exit code."""
    raise NotImplementedError

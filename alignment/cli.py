"""What every ``python -m alignment.X`` shares: its flags, its output folder, its last line and its exit code.

A command reads::

    def main(argv: list[str]) -> int:
        parser = argparse.ArgumentParser(prog="python -m alignment.layers", parents=[parent_parser()])
        arguments = parser.parse_args(argv)
        folder = prepare_output(arguments.output)
        ...
        return finish(result, folder)

    if __name__ == "__main__":
        sys.exit(run_cli(main))
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from alignment.result import Result
from jt_nanodet.errors import UserError, printable, run_cli

__all__ = ["finish", "parent_parser", "prepare_output", "run_cli", "say", "summary"]
#: How many failing rows the text summary prints; all of them are in result.json.
SHOWN = 20


def parent_parser(*, config_required: bool = True) -> argparse.ArgumentParser:
    """Parent for argparse with --config, --output, --device, --seed, -v and -q (`verbosity`: -1, 0, 1 ...). Usage errors exit with 2."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", metavar="YAML", required=config_required, type=Path, help="configuration file (upstream's YAML schema)")
    parser.add_argument("--output", "-o", metavar="DIR", required=True, type=Path, help="folder for result.json and everything else")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides run (default: cpu)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of everything random (default: 0)")
    parser.add_argument("-v", "--verbose", dest="verbosity", action="count", default=0, help="say more")
    parser.add_argument("-q", "--quiet", dest="verbosity", action="store_const", const=-1, help="say only the last line")
    return parser


def prepare_output(directory: str | Path) -> Path:
    """Create the folder and write and remove a file in it, before any time is spent. UserError when that fails."""
    folder = Path(directory)
    probe = folder / f".writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
        # An old verdict must not survive a run that dies half-way.
        (folder / "result.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); give a folder you can write to with --output.") from error
    return folder


def say(text: str, verbosity: int = 0, *, level: int = 0) -> None:
    """Print progress to standard error unless `verbosity` is below `level`."""
    if verbosity >= level:
        print(text, file=sys.stderr, flush=True)


def summary(result: Result) -> str:
    """Objections, failing rows, what was skipped and what was not run, as text; empty when there is nothing to tell."""
    lines = [f"not comparable: {objection['text']}" for objection in result.objections]
    bad = [row for row in result.rows() if str(row.verdict) not in ("pass", "warn", "skip")]
    for row in bad[:SHOWN]:
        at = f" at {list(row.index)}" if row.index is not None else ""
        size = f": {row.max_abs:.3g}{at}, bound {row.tolerance:.3g}" if row.max_abs is not None and row.tolerance is not None else ""
        lines.append(f"{row.verdict} [{row.reason}] {row.name_ref}{size}" + (f"; {row.hint}" if row.hint else ""))
    if len(bad) > SHOWN:
        lines.append(f"... and {len(bad) - SHOWN} more in result.json")
    lines += [f"skipped: {row.name_ref}: {row.hint}" for row in result.rows() if str(row.verdict) == "skip"]
    lines += [f"not run: {entry['name']}: {entry['reason']}" for entry in result.not_run]
    return "\n".join(map(printable, lines))


def finish(result: Result, output: str | Path, *, verbosity: int = 0) -> int:
    """Write ``output/result.json``, print the summary and, last, the verdict line; return the exit code."""
    result.write(output)
    text = summary(result)
    if text and verbosity >= 0:
        print(text)
    print(result.last_line, flush=True)
    return result.exit_code

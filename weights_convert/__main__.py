"""``python -m weights_convert SRC DST``: convert a file of weights and account for every key.

Exit code 0 when DST was written, 2 with one sentence on stderr otherwise.
"""

from __future__ import annotations

import argparse
import sys

from jt_nanodet.errors import run_cli
from weights_convert import account, convert
from weights_convert.layouts import CHOICES


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    made = argparse.ArgumentParser(
        prog="python -m weights_convert",
        description="Convert weights between .pth/.pt, Lightning .ckpt, .npz and .pkl, and import ncnn's .param with its .bin; the suffixes name the formats. "
        "Sources are read without running any code in them.",
    )
    made.add_argument("src", metavar="SRC", help="file to read: .pth, .pt, .ckpt, .npz, .pkl, or .param (its .bin lies beside it)")
    made.add_argument("dst", metavar="DST", help="file to write; an existing one is replaced once the new one is whole")
    made.add_argument("--config", metavar="YAML", help="refuse weights that do not fit the model of this configuration")
    made.add_argument(
        "--weights",
        choices=CHOICES,
        default="auto",
        help="of a Lightning checkpoint take the raw or the EMA weights (auto: EMA where there are any)",
    )
    made.add_argument("--json", metavar="FILE", help="write the account of all keys to this file")
    made.add_argument("--allow-nonfinite", action="store_true", help="convert NaN and infinite values too")
    made.add_argument("--overwrite", action="store_true", help="DST is meant to be replaced: do not remark on it")
    talk = made.add_mutually_exclusive_group()
    talk.add_argument("--quiet", action="store_true", help="print nothing when all goes well")
    talk.add_argument("--verbose", action="store_true", help="list every key, the identical ones too")
    return made


def main(argv: list[str]) -> int:
    """Convert as ``argv`` says and print the account; UserError is left to ``run_cli``."""
    options = parser().parse_args(argv)
    done = convert(
        options.src,
        options.dst,
        config=options.config,
        which=options.weights,
        allow_nonfinite=options.allow_nonfinite,
        table=options.json,
    )
    if not options.quiet:
        about = {
            "source": f"{options.src} ({done.source['format']}, {done.source['layout']} names)",
            "taken": done.source["selected_name"],
        }
        notes = [note for note in done.notes if not (options.overwrite and note.endswith("was replaced"))]
        account.show(done.account, about, notes, options.verbose)
        print(f"wrote {options.dst}: {len(done.weights)} weights, SHA-256 {done.sha256}, read back bit-equal")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))

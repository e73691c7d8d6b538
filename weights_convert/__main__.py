"""``python -m weights_convert SRC DST``: convert a file of weights and account for every key; ``--pretrained NAME DST`` fetches released ones first.

Exit code 0 when DST was written, 2 with one sentence on stderr otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jt_nanodet.data.download import TIMEOUT
from jt_nanodet.errors import UserError, run_cli
from weights_convert import account, convert, pretrained
from weights_convert.layouts import CHOICES

EXAMPLES = """examples:
  python -m weights_convert A.pth B.pkl --config configs/nanodet-plus-m_320.yml
  python -m weights_convert nanodet-plus-m_320.param C.npz --config configs/nanodet-plus-m_320.yml
  python -m weights_convert --pretrained nanodet-plus-m_320 B.pkl
  python -m weights_convert --pretrained list
  python -m weights_convert B.pkl small.npz --fp16
"""


def parser() -> argparse.ArgumentParser:
    """The command line's options."""
    made = argparse.ArgumentParser(
        prog="python -m weights_convert",
        description="Convert weights between .pth/.pt, Lightning .ckpt, .npz and .pkl, and import ncnn's .param with its .bin; the suffixes name the formats. "
        "Sources are read without running any code in them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("src", metavar="SRC", nargs="?", help="file to read: .pth, .pt, .ckpt, .npz, .pkl, or .param (its .bin lies beside it)")
    made.add_argument("dst", metavar="DST", nargs="?", help="file to write; an existing one is replaced once the new one is whole")
    made.add_argument("--pretrained", metavar="NAME", help="fetch released weights in place of SRC; 'list' shows their names and addresses")
    made.add_argument("--cache", metavar="DIR", help="where fetched files are kept (default: NANODET_CACHE, else the user's cache folder)")
    made.add_argument("--mirror", metavar="ADDRESS", help="fetch from this folder instead: http://, file:// or a path")
    made.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help=f"seconds without a byte until a connection counts as dead (default {TIMEOUT:g})")
    made.add_argument("--config", metavar="YAML", help="refuse weights that do not fit the model of this configuration")
    made.add_argument("--fp16", action="store_true", help="store every float as float16: half the bytes")
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
    made = parser()
    options = made.parse_args(argv)
    if options.pretrained == "list":
        print(pretrained.listing())
        return 0
    about = {}
    if options.pretrained:
        about = released(options)
    elif options.dst is None:
        made.error("SRC and DST are needed: the file to read and the file to write")
    done = convert(
        options.src,
        options.dst,
        config=options.config,
        which=options.weights,
        allow_nonfinite=options.allow_nonfinite,
        table=options.json,
        fp16=options.fp16,
    )
    if not options.quiet:
        about |= {
            "source": f"{options.src} ({done.source['format']}, {done.source['layout']} names)",
            "taken": done.source["selected_name"],
        }
        notes = [note for note in done.notes if not (options.overwrite and note.endswith("was replaced"))]
        account.show(done.account, about, notes, options.verbose)
        size = os.path.getsize(options.dst)
        print(f"wrote {options.dst}: {len(done.weights)} weights, SHA-256 {done.sha256}, read back bit-equal, {size:,} bytes")
    return 0


def released(options: argparse.Namespace) -> dict[str, str]:
    """Fetch what ``--pretrained`` names and put it in place of SRC; returns what to say about it."""
    if options.dst is not None:
        raise UserError("--pretrained stands in place of SRC: give one path, the file to write")
    name = options.pretrained
    entry = pretrained.find(name)
    options.dst = options.src or f"{name}.pkl"
    # the weights must fit, so that a wrong file under the right name is found out
    options.config = options.config or str(pretrained.config_path(name))
    folder = Path(options.cache) if options.cache else pretrained.cache_folder()
    say = (lambda text: None) if options.quiet else (lambda text: print(text, file=sys.stderr))
    path, checksum = pretrained.obtain(name, folder, mirror=options.mirror, timeout=options.timeout, say=say)
    options.src = str(path)
    return {"released": f"{name}, a {entry.kind} for configs/{entry.config}", "checksum": checksum}


if __name__ == "__main__":
    sys.exit(run_cli(main))

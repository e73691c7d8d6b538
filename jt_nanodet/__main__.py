"""``python -m jt_nanodet COMMAND``: the Jittor side's command line.

Every command lives in its own module and is imported only when it is asked for, so that ``--help``
and ``doctor`` answer at once and work where Jittor does not.
"""

from __future__ import annotations

import importlib
import sys

from jt_nanodet.errors import UserError, nearest, run_cli

#: command -> (module, one line for the help)
COMMANDS: dict[str, tuple[str, str]] = {
    "test": ("jt_nanodet.tester", "run weights on a folder of images and write COCO-format detections"),
    "train": ("jt_nanodet.trainer", "train a configuration"),
    "demo": ("jt_nanodet.demo.command", "draw the detections on pictures, a video or a camera"),
    "voc": ("jt_nanodet.voc.command", "fetch, convert, verify and cut down Pascal VOC"),
    "bench": ("jt_nanodet.bench.command", "measure speed, verified first"),
    "prepare": ("jt_nanodet.prepare", "build Jittor's core now instead of at the first use"),
    "doctor": ("jt_nanodet.doctor", "show what was found on this machine and what to type to mend it"),
}

EXAMPLES = """examples:
  python -m jt_nanodet doctor
  python -m jt_nanodet test configs/nanodet-plus-m_320.yml --checkpoint weights.pkl \\
      --images photos --save-results detections.json
  python -m jt_nanodet test --help
"""


def usage() -> str:
    """The text of ``--help``."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: python -m jt_nanodet COMMAND ...\n\nNanoDet-Plus in Jittor.\n\ncommands:\n{rows}\n\n{EXAMPLES}"


def main(argv: list[str]) -> int:
    """Hand ``argv[1:]`` to the command named by ``argv[0]`` and return its exit code.

    Raises UserError for an unknown command.
    """
    if not argv:
        print(usage(), end="", file=sys.stderr)
        return 2
    if argv[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if argv[0] not in COMMANDS:
        close = nearest(argv[0], COMMANDS)
        hint = f"did you mean {close}? " if close else ""
        raise UserError(f'there is no command "{argv[0]}": {hint}type "python -m jt_nanodet --help"')
    return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:])


if __name__ == "__main__":
    sys.exit(run_cli(main))

"""``python -m torch_ref COMMAND``: the PyTorch reference's command line; mirrors ``python -m jt_nanodet``."""
import importlib
import sys

from jt_nanodet.errors import UserError, nearest, run_cli

COMMANDS = {
    "test": ("torch_ref.tester", "run weights on a folder of images and write COCO-format detections"),
    "train": ("torch_ref.trainer", "train a configuration"),
    "state": ("torch_ref.state", "names and shapes of a configuration's weights, as JSON"),
}


def main(argv):
    """Hand ``argv[1:]`` to the command named by ``argv[0]``; raises UserError for an unknown one."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        rows = "\n".join(f"  {name:7s} {text}" for name, (_, text) in COMMANDS.items())
        print(f"usage: python -m torch_ref COMMAND ...\n\nThe PyTorch reference of NanoDet-Plus.\n\ncommands:\n{rows}", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        close = nearest(argv[0], list(COMMANDS))
        raise UserError(f'there is no command "{argv[0]}": {f"did you mean {close}? " if close else ""}type "python -m torch_ref --help"')
    return importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:])


if __name__ == "__main__":
    sys.exit(run_cli(main))

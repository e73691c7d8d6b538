"""``nanodet-parity MODULE ...``: one command whose sub-commands are the project's modules, as ``python -m MODULE`` starts them.

    nanodet-parity jt_nanodet doctor
    nanodet-parity alignment.report --output out/report
    nanodet-parity completion bash

It imports nothing of a module until that module is asked for, and hands it the rest of the line.
"""

from __future__ import annotations

import ast
import importlib.metadata
import runpy
import sys
from pathlib import Path

from jt_nanodet.errors import UserError, nearest, run_cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jt_nanodet", "torch_ref", "weights_convert", "alignment", "reports")
#: Packages whose ``__main__`` has commands of its own, in a dictionary of this name.
COMMANDS = "COMMANDS"
SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """examples:
  nanodet-parity jt_nanodet doctor
  nanodet-parity alignment.report --output out/report
  nanodet-parity weights_convert A.pth B.pkl --config configs/nanodet-plus-m_320.yml
  nanodet-parity jt_nanodet demo image --config configs/nanodet-plus-m_320.yml --model B.pkl --path photos --save
  eval "$(nanodet-parity completion bash)"
"""


def modules() -> dict[str, str]:
    """Module name -> first line of its docstring, of everything that ``python -m`` starts: ``X/__main__.py`` and files with a main guard."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "runners" in parts or parts[-1] == "worker":  # started by other modules with a job, not by people
                continue
            text = path.read_text(encoding="utf-8")
            if parts[-1] == "__main__":
                found[".".join(parts[:-1])] = summary(text)
            elif '\nif __name__ == "__main__":' in text:
                found[".".join(parts)] = summary(text)
    return found


def summary(text: str) -> str:
    """What a file's docstring says first, without the command's name."""
    first = (ast.get_docstring(ast.parse(text)) or "").split("\n", 1)[0]
    return first.split("``: ", 1)[-1].rstrip(".")


def inner_commands(module: str) -> list[str]:
    """Names of the commands that a package's ``__main__`` lists, without importing it."""
    path = ROOT.joinpath(*module.split(".")) / "__main__.py"
    if not path.is_file():
        return []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(t, ast.Name) and t.id == COMMANDS for t in targets) and isinstance(node.value, ast.Dict):
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def version() -> str:
    """The installed version, or the checkout's."""
    try:
        return importlib.metadata.version("jt-nanodet")
    except importlib.metadata.PackageNotFoundError:
        lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
        return next(line.split('"')[1] for line in lines if line.startswith("version"))


def usage() -> str:
    """The text of ``--help``."""
    known = modules()
    width = max(map(len, known))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, text in known.items())
    return (f"usage: nanodet-parity MODULE ...\n\nThe same as python -m MODULE ...; --help after a module shows its options.\n\nmodules:\n{rows}\n"
            f"  {'completion':{width}}  a completion script for {', '.join(SHELLS)}\n\n{EXAMPLES}")


def completion(shell: str) -> str:
    """A script that completes modules, their commands and then files. UserError for another shell."""
    words = {name: inner_commands(name) for name in modules()}
    names = " ".join([*words, "completion"])
    inner = {name: " ".join(commands) for name, commands in words.items() if commands} | {"completion": " ".join(SHELLS)}
    if shell == "bash":
        cases = "\n".join(f'    {name}) COMPREPLY=($(compgen -W "{commands}" -- "$word"));;' for name, commands in inner.items())
        return f"""_nanodet_parity() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "{names} --help --version" -- "$word")); return; fi
  if [ "$COMP_CWORD" -eq 2 ]; then case "${{COMP_WORDS[1]}}" in
{cases}
  esac; fi
}}
complete -o default -F _nanodet_parity nanodet-parity
"""
    if shell == "zsh":
        cases = "\n".join(f"    {name}) compadd {commands};;" for name, commands in inner.items())
        return f"""#compdef nanodet-parity
_nanodet_parity() {{
  if (( CURRENT == 2 )); then compadd -- {names} --help --version; return; fi
  if (( CURRENT == 3 )); then case "$words[2]" in
{cases}
    *) _files;;
  esac; else _files; fi
}}
compdef _nanodet_parity nanodet-parity
"""
    if shell == "fish":
        lines = [f'complete -c nanodet-parity -n __fish_use_subcommand -f -a "{names}"']
        lines += [f'complete -c nanodet-parity -n "__fish_seen_subcommand_from {name}" -a "{commands}"' for name, commands in inner.items()]
        return "\n".join(lines) + "\n"
    raise UserError(f'there is no completion for "{shell}": type "nanodet-parity completion bash", or zsh, or fish')


def main(argv: list[str]) -> int:
    """Start the module that ``argv[0]`` names with the rest of ``argv``; its exit code. UserError for an unknown one."""
    if not argv:
        print(usage(), end="", file=sys.stderr)
        return 2
    first, rest = argv[0], argv[1:]
    if first in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if first == "--version":
        print(f"nanodet-parity {version()}")
        return 0
    if first == "completion":
        print(completion(rest[0] if rest else ""), end="")
        return 0
    known = modules()
    if first not in known:
        close = nearest(first, known) or next((name for name in known if name.endswith(f".{first}")), None)
        hint = f"did you mean {close}? " if close else ""
        raise UserError(f'there is no module "{first}": {hint}type "nanodet-parity --help"')
    sys.argv = [first, *rest]
    try:
        runpy.run_module(first, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def console() -> None:
    """The installed command."""
    sys.exit(run_cli(main))

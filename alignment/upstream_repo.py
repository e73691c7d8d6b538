"""Whether a folder is upstream's repository as it is pinned; framework-free, and nothing of it is imported here."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from jt_nanodet.errors import UserError

#: The commit of RangiLyu/nanodet that `torch_ref` repeats.
COMMIT = "be9b4a9001d7f9b6fc89c2df31ae8d428e35b4f0"
URL = "https://github.com/RangiLyu/nanodet"


def arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """--torch-repo and --any-commit."""
    parser.add_argument("--torch-repo", metavar="DIR", type=Path, required=required, help=f"your own clone of {URL} at {COMMIT[:7]}: the reference is built from it")
    parser.add_argument("--any-commit", action="store_true", help="take --torch-repo at another commit, or with changes in it")


def git(folder: Path, *words: str) -> str:
    """Output of a git command in `folder`; UserError when git is missing or refuses."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError("git was not found, and without it nobody can say which commit --torch-repo is at: install git") from error
    if done.returncode:
        raise UserError(f"{folder} is no git repository with a commit checked out: give the folder that `git clone {URL}` made with --torch-repo")
    return done.stdout


def check(folder: Path, any_commit: bool = False) -> dict[str, str]:
    """``{"commit", "state"}`` of the clone; UserError where it is not upstream's, at another commit, or changed and `any_commit` is not given."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that `git clone {URL}` made with --torch-repo")
    commit = git(folder, "rev-parse", "--verify", "HEAD").strip()
    if not (folder / "nanodet" / "model" / "arch").is_dir():
        raise UserError(f"{folder} holds no nanodet/model/arch: give the top folder of a clone of {URL} with --torch-repo")
    changed = [line[3:] for line in git(folder, "status", "--porcelain", "--", ".").splitlines()]
    if not any_commit:
        if commit != COMMIT:
            raise UserError(f"{folder} is at commit {commit[:12]} and not at {COMMIT[:12]}, which torch_ref repeats: "
                            f"type `git -C {folder} checkout {COMMIT}`, or add --any-commit")
        if changed:
            raise UserError(f"{folder} differs from its commit in {len(changed)} file{'s' if len(changed) > 1 else ''} (first {changed[0]}): "
                            f"take the changes back, for example with `git -C {folder} stash -u`, or add --any-commit")
    return {"commit": commit, "state": "changed" if changed else "clean"}


def for_reference(args: argparse.Namespace) -> dict[str, str]:
    """What the reference's tasks carry: empty without --torch-repo. UserError where --any-commit stands alone or the clone is refused."""
    if args.torch_repo is None:
        if args.any_commit:
            raise UserError("--any-commit says something about a clone: give the clone with --torch-repo DIR")
        return {}
    found = check(args.torch_repo, args.any_commit)
    return {"torch_repo": str(args.torch_repo.resolve()), "torch_repo_commit": found["commit"], "torch_repo_state": found["state"]}

"""The project's one user-facing exception and the wrapper that gives it an exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jt_nanodet import errors


def raises(error: BaseException):
    def main(argv: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_exit_code_of_main_is_kept(code: int) -> None:
    assert errors.run_cli(lambda argv: code, []) == code


def test_arguments_reach_main_and_default_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[list[str]] = []
    errors.run_cli(lambda argv: got.append(argv) or 0, ["a"])
    monkeypatch.setattr(sys, "argv", ["program", "b", "c"])
    errors.run_cli(lambda argv: got.append(argv) or 0)
    assert got == [["a"], ["b", "c"]]


def test_user_error_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.run_cli(raises(errors.UserError('no such file: type "ls"')), []) == 2
    printed = capsys.readouterr()
    assert printed.err == 'error: no such file: type "ls"\n' and printed.out == ""


def test_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.run_cli(raises(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        errors.run_cli(raises(ZeroDivisionError()), [])


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "from jt_nanodet.errors import run_cli; import sys; sys.exit(run_cli(lambda a: [print(i) for i in range(10**6)] and 0, []))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 0


@pytest.mark.parametrize(
    ("word", "expected"),
    [("in_chanels", "in_channels"), ("NORM_CFG", "norm_cfg"), ("xyz", None), ("", None), (3, None)],
)
def test_nearest(word: object, expected: str | None) -> None:
    assert errors.nearest(word, ["in_channels", "norm_cfg", "kernel_size"]) == expected


def test_nearest_returns_the_spelling_of_the_list() -> None:
    assert errors.nearest("nanodetplus", ["NanoDetPlus"]) == "NanoDetPlus"
    assert errors.nearest("anything", []) is None

"""``python -m jt_nanodet``: help, unknown commands, and hand-over to the command's module."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types

import pytest

from jt_nanodet import __main__ as command_line
from jt_nanodet.errors import UserError, run_cli


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h", "help"):
        assert command_line.main([word]) == 0
        text = capsys.readouterr().out
        assert "examples:" in text and all(name in text for name in command_line.COMMANDS)


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([]) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_slip_is_answered_with_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="did you mean doctor"):
        command_line.main(["docter"])
    assert run_cli(command_line.main, ["docter"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", sorted(command_line.COMMANDS))
def test_every_command_has_its_module(name: str) -> None:
    assert importlib.util.find_spec(command_line.COMMANDS[name][0]) is not None


def test_arguments_and_exit_code_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("fake")
    fake.main = lambda argv: 40 + len(argv)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake", fake)
    monkeypatch.setitem(command_line.COMMANDS, "test", ("fake", ""))
    assert command_line.main(["test", "a", "b"]) == 42


def test_from_the_shell() -> None:
    done = subprocess.run([sys.executable, "-m", "jt_nanodet", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""

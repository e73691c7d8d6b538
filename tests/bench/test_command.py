"""``python -m jt_nanodet bench``: help, unknown measurements, and hand-over to the measurement's module."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from jt_nanodet.bench import command
from jt_nanodet.errors import UserError


def test_help_names_every_measurement(capsys):
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in command.BENCHES)
    assert command.main([]) == 2


def test_a_slip_is_answered_with_the_nearest_measurement():
    with pytest.raises(UserError, match="did you mean data"):
        command.main(["dota"])


@pytest.mark.parametrize("name", sorted(command.BENCHES))
def test_every_measurement_has_its_module(name):
    assert importlib.util.find_spec(command.BENCHES[name][0]) is not None


def test_arguments_and_exit_code_pass_through(monkeypatch):
    fake = types.ModuleType("fake")
    fake.main = lambda argv: 40 + len(argv)
    monkeypatch.setitem(sys.modules, "fake", fake)
    monkeypatch.setitem(command.BENCHES, "data", ("fake", ""))
    assert command.main(["data", "a", "b"]) == 42

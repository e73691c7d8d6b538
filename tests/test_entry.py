"""``nanodet-parity``: every module is a sub-command, and the other way round; help, version, completion, unknown names."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from jt_nanodet import entry
from jt_nanodet.__main__ import COMMANDS
from jt_nanodet.errors import run_cli


def test_every_module_that_python_starts_is_there(repository):
    known = entry.modules()
    assert {"jt_nanodet", "torch_ref", "weights_convert", "alignment.report", "alignment.infer", "alignment.logs", "reports", "reports.record"} <= set(known)
    for path in repository.glob("alignment/*.py"):
        guarded = '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
        assert (f"alignment.{path.stem}" in known) == guarded
    assert all(known.values()), "each says in a line what it does"
    assert entry.inner_commands("jt_nanodet") == list(COMMANDS)


def test_help_version_and_unknown_names(capsys):
    assert run_cli(entry.main, ["--help"]) == 0
    said = capsys.readouterr().out
    assert "examples:" in said and all(name in said for name in entry.modules())
    assert run_cli(entry.main, ["--version"]) == 0 and capsys.readouterr().out.startswith("nanodet-parity 0.")
    assert run_cli(entry.main, []) == 2
    capsys.readouterr()
    for word, hint in (("alignment.infr", "alignment.infer"), ("infer", "alignment.infer"), ("completion", "")):
        assert run_cli(entry.main, [word]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and hint in said


def test_it_is_the_module(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.delitem(sys.modules, "weights_convert.__main__", raising=False)
    assert entry.main(["weights_convert", "--pretrained", "list"]) == 0
    assert "nanodet-plus-m_320" in capsys.readouterr().out
    assert entry.main(["weights_convert", "absent.pth", "b.pkl"]) == 2
    assert "error: cannot read 'absent.pth'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", entry.SHELLS)
def test_completion_is_a_script_the_shell_takes(tmp_path, shell):
    script = tmp_path / "completion"
    script.write_text(entry.completion(shell))
    assert "alignment.report" in script.read_text() and "demo" in script.read_text()
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", script], check=False).returncode == 0


def test_bash_completes(tmp_path):
    (tmp_path / "c").write_text(entry.completion("bash"))
    ask = 'source "$1"; COMP_WORDS=(nanodet-parity {words}); COMP_CWORD={at}; _nanodet_parity; echo "${{COMPREPLY[@]}}"'
    for words, at, want in (("alignment.inf", 1, "alignment.infer"), ("jt_nanodet d", 2, "demo doctor"), ("torch_ref t", 2, "test train")):
        done = subprocess.run(["bash", "-c", ask.format(words=words, at=at), "bash", tmp_path / "c"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == want.split()

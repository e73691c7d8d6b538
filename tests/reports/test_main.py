"""reports.write and `python -m reports`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from jt_nanodet.errors import UserError, run_cli
from reports import write
from reports.__main__ import main


def test_write_returns_the_three_files(passing):
    paths = write(passing)
    assert {kind: path.name for kind, path in paths.items()} == {"html": "report.html", "markdown": "report.md", "junit": "junit.xml"}
    assert all(path.stat().st_size for path in paths.values())
    assert not list(passing.glob(".*partial"))


@pytest.mark.parametrize(("colour", "code", "line"), [("passing", 0, "PASSED | 4480"), ("failing", 1, "FAILED | 4481")])
def test_exit_code_and_last_line(colour, code, line, request, capsys):
    assert main([str(request.getfixturevalue(colour))]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(line)


def test_undecided_exits_with_three(passing):
    (passing / "layers" / "result.json").write_text("")
    assert main([str(passing)]) == 3


def test_usage_errors_are_one_sentence(tmp_path, capsys):
    assert run_cli(main, [str(tmp_path / "none")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and "Traceback" not in message


def test_an_unwritable_folder(passing, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("reports.os.replace", refuse)
    with pytest.raises(UserError, match=r"report.html cannot be written \(Permission denied\); give a folder"):
        write(passing)
    assert not list(passing.glob(".*partial"))


def test_a_folder_in_the_way(passing):
    (passing / "report.html").mkdir()
    with pytest.raises(UserError, match="report.html cannot be written"):
        write(passing)
    assert not list(passing.glob(".*partial"))


def test_writing_again_gives_the_same_files(passing):
    first = {kind: path.read_bytes() for kind, path in write(passing).items()}
    assert first == {kind: path.read_bytes() for kind, path in write(passing).items()}


def test_runs_from_anywhere_without_a_framework(passing, tmp_path, repository):
    shutil.copytree(passing, tmp_path / "with space ü")
    code = "import sys, reports; reports.write(sys.argv[1]); print(sorted(set(sys.modules) & {'torch', 'jittor', 'torch_ref', 'alignment'}))"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "with space ü")], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0 and run.stdout.strip() == "[]", run.stderr

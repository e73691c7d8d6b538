"""The last line, the exit code and the file agree; what cannot be written is said in one sentence with exit 2."""

from __future__ import annotations

import argparse
import json

import pytest

from alignment.cli import finish, parent_parser, prepare_output, run_cli, say
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult
from jt_nanodet.errors import UserError


def parse(*words):
    return argparse.ArgumentParser(parents=[parent_parser()]).parse_args(list(words))


def test_flags():
    given = parse("--config", "a.yml", "--output", "out", "--device", "cuda", "--seed", "5", "-vv")
    assert (str(given.config), str(given.output), given.device, given.seed, given.verbosity) == ("a.yml", "out", "cuda", 5, 2)
    given = parse("--config", "a.yml", "-o", "out", "-q")
    assert (given.device, given.seed, given.verbosity) == ("cpu", 0, -1)


@pytest.mark.parametrize("words", [(), ("--config", "a"), ("--output", "b"), ("--config", "a", "--output", "b", "--device", "tpu"), ("--seed", "x")])
def test_usage_errors_exit_with_two(words, capsys):
    with pytest.raises(SystemExit) as error:
        parse(*words)
    assert error.value.code == 2 and "usage" in capsys.readouterr().err


@pytest.mark.parametrize("verdict, reason, code", [
    (Verdict.PASS, Reason.OK, 0), (Verdict.FAIL, Reason.MISSING, 1), (Verdict.INCONCLUSIVE, Reason.FLOOR_TOO_WIDE, 3),
    (Verdict.NOT_COMPARABLE, Reason.NOTHING_COMPARED, 3),
])
def test_file_line_and_code_agree(tmp_path, capsys, verdict, reason, code):
    result = Result("layers", tensors=[TensorResult("backbone.x", None, verdict, reason, Gate.KEYS, hint="why")])
    assert finish(result, tmp_path) == code
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == result.last_line and json.loads((tmp_path / "result.json").read_text())["verdict"] == str(verdict)
    assert (len(out) > 1 and "backbone.x" in out[0] and str(reason) in out[0]) == (verdict is not Verdict.PASS)


def test_many_failures_are_cut_short_on_screen(tmp_path, capsys):
    rows = [TensorResult(f"t{k}", None, Verdict.FAIL, Reason.MISSING, Gate.KEYS) for k in range(50)]
    finish(Result("layers", tensors=rows), tmp_path)
    assert len(capsys.readouterr().out.splitlines()) == 22
    assert len(json.loads((tmp_path / "result.json").read_text())["tensors"]) == 50


def test_quiet_prints_one_line(tmp_path, capsys):
    finish(Result("layers"), tmp_path, verbosity=-1)
    assert capsys.readouterr().out == "NOT COMPARABLE | 0 compared, 0 failed, 0 skipped\n"


def test_an_old_verdict_does_not_survive(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    prepare_output(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_exits_with_two(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError):
        prepare_output(tmp_path / "file" / "deeper")

    def main(argv):
        prepare_output(tmp_path / "file" / "deeper")
        return 0

    assert run_cli(main, []) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "--output" in message and message.count("\n") == 1


def test_progress_goes_to_standard_error(capsys):
    say("working")
    say("detail", 0, level=1)
    say("hidden", -1)
    assert capsys.readouterr() == ("", "working\n")

"""The talk with the two processes: an answer that arrives broken is one sentence, what a library prints is not an answer."""

import sys

import pytest

from alignment import train_sides
from jt_nanodet.errors import UserError

TALK = "import sys; sys.stdin.readline(); print('a library says hello'); print({answer!r}, flush=True)"


def partner(monkeypatch, tmp_path, answer):
    monkeypatch.setattr(train_sides.child, "prepare", lambda *_: (tmp_path / "job.json", tmp_path / "report.json"))
    monkeypatch.setattr(train_sides.child, "command", lambda *_: [sys.executable, "-c", TALK.format(answer=answer)])
    return train_sides.Partner("jittor", {}, {}, tmp_path, 0)


@pytest.mark.parametrize("answer", ['{"loss": [1.0, 2.', '{"loss": [1.0, [jt] compiling 2.0]}'])
def test_a_broken_answer_is_one_sentence(monkeypatch, tmp_path, answer):
    side = partner(monkeypatch, tmp_path, answer)
    with pytest.raises(UserError, match=r"an answer of the jittor side broke off or was written into .*jittor\.train\.log; type the command again"):
        side.ask({"do": "step"})
    side.close()


def test_what_a_library_prints_is_no_answer(monkeypatch, tmp_path):
    side = partner(monkeypatch, tmp_path, '{"loss": 1.5}')
    assert side.ask({"do": "step"}) == {"loss": 1.5}
    side.close()


def test_a_process_that_ends_is_quoted(monkeypatch, tmp_path):
    side = partner(monkeypatch, tmp_path, "no answer")
    with pytest.raises(UserError, match="the jittor side ended with exit status 0: a library says hello / no answer"):
        side.ask({"do": "step"})
    side.close()

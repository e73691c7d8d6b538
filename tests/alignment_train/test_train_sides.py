"""The talk with the two processes: an answer that arrives broken is one sentence, what a library prints is not an answer."""

import array
import fcntl
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

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


def wait_for(ready):
    until = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="not run: asks Linux how full a pipe is")
@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_survives_a_pause(kept, monkeypatch):
    """A child that is stopped and goes on while it writes into a full pipe. `kept`: with our environment; else as it was given, where the answer is cut."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    child = subprocess.Popen([sys.executable, "-c", "print('x' * 1000000, flush=True)"], stdout=subprocess.PIPE, text=True,
                             env=train_sides.child.environment() if kept else None)
    waiting = array.array("i", [0])

    def full():
        fcntl.ioctl(child.stdout, termios.FIONREAD, waiting)
        return waiting[0] == fcntl.fcntl(child.stdout, fcntl.F_GETPIPE_SZ)

    wait_for(full)
    child.send_signal(signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    child.send_signal(signal.SIGCONT)
    answer = child.stdout.readline()
    child.wait()
    assert (len(answer) == 1000001) is kept

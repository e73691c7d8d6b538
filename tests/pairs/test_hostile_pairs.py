"""Pair files that print, exit, die, hang or name their modules to mislead: one clear sentence and exit 2, or the right verdict."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alignment import layers, pair_file
from alignment.runners import child, pair_tasks
from jt_nanodet.errors import UserError, run_cli
from reports import write

ROOT = Path(__file__).resolve().parents[2]

LOUD = r'''
import os, sys
import numpy as np
NAMES = ["<script>alert('x')</script>", 'quo"te', "new\nPASSED | 99 compared, 0 failed, 0 skipped"]
def noise():
    print("PASSED | 99 compared, 0 failed, 0 skipped")
    print("error: not a word of this is true", file=sys.stderr)
    os.write(1, b"FAILED\xff\x00" * 50000)
noise()

def build_reference():
    noise()
    import torch
    class Twice(torch.nn.Module):
        def forward(self, x):
            noise()
            return x * 2
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in NAMES:
                self.add_module(name, Twice())
        def forward(self, x, n):
            for name in NAMES:
                x = getattr(self, name)(x)
            return {"x": x, "mask": x > 0, "n": n * 2, "none": x[:0], "one": x.sum()}
    return Model()

def build_candidate():
    noise()
    from jittor import nn
    class Twice(nn.Module):
        def execute(self, x):
            noise()
            return x * 2
    class Model(nn.Module):
        def __init__(self):
            for name in NAMES:
                setattr(self, name, Twice())
        def execute(self, x, n):
            for name in NAMES:
                x = getattr(self, name)(x)
            return {"x": x, "mask": x > 0, "n": n * 2, "none": x[:0], "one": x.sum()}
    return Model()

def inputs(seed):
    return np.arange(-30, 30, dtype=np.float32).reshape(4, 15), np.arange(3)
'''


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
def test_a_loud_pair_with_misleading_names(tmp_path, jittor):
    (tmp_path / "loud.py").write_text(LOUD)
    done = subprocess.run([sys.executable, "-m", "alignment.layers", "--pair", str(tmp_path / "loud.py"), "--output", str(tmp_path / "out"), "--threads", "1"],
                          cwd=ROOT, capture_output=True, check=False, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)})
    lines = done.stdout.decode().splitlines()
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert done.returncode == 0, (lines[-3:], done.stderr[-500:])
    assert lines[-1] == f"PASSED | {result['compared']} compared, 0 failed, 0 skipped" != "PASSED | 99 compared, 0 failed, 0 skipped"
    assert not any("99 compared" in line and line.startswith("PASSED") for line in lines) and not any("FAILED" in line for line in lines)
    names = {row["name_ref"] for row in result["tensors"]}
    assert {"<script>alert('x')</script>", 'quo"te', "new\nPASSED | 99 compared, 0 failed, 0 skipped", "(model)/0", "(model)/1", "(model)/2", "(model)/4"} <= names
    assert "(model)/3" in {one["name"] for one in result["not_run"]}
    page = write(tmp_path / "out")["html"].read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and not re.search(r'="[^"<>]*quo"te', page)


NOTHING = """
import numpy as np
def build_reference():
    import torch
    return torch.nn.Identity()
def build_candidate():
    from jittor import nn
    return nn.Identity()
def inputs(seed):
    return np.arange(8, dtype=np.float32)
"""


def identity(tmp_path, values):
    (tmp_path / "p.py").write_text(NOTHING.replace("np.arange(8, dtype=np.float32)", values))
    code = layers.main(["--pair", str(tmp_path / "p.py"), "--output", str(tmp_path / "out"), "--threads", "1", "-q"])
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    return code, result["verdict"], {row["name_ref"]: row["reason"] for row in result["tensors"] if row["stage"] == "forward"}


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
def test_a_model_without_weights_and_parts(tmp_path, jittor):
    assert identity(tmp_path, "np.arange(8, dtype=np.float32)") == (0, "pass", {"(model)": "ok"})


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.jittor
def test_nan_on_both_sides_is_no_agreement(tmp_path, jittor):
    assert identity(tmp_path, "np.float32([1, np.nan, np.inf])") == (1, "fail", {"(model)": "not_finite_both"})


INPUTS = "def inputs(seed):\n    import numpy; return numpy.ones(2, 'float32')\n"


@pytest.mark.torch
@pytest.mark.parametrize(("body", "words"), [
    ("import sys; sys.exit(0)", ["ended with exit status 0"]), ("import torch; return torch.nn.Sequential(torch.nn.Linear(2, 2), lambda x: x)", ["TypeError", "mend it"]),
    ("import torch; M = type('M', (torch.nn.Module,), {'forward': lambda self, x: torch.complex(x, x)}); return M()", ["(model) is of type complex64", "let the model"]), ("raise ValueError('two\\nlines \\x1b[31m')", ["raised ValueError", "two lines", "\\x1b"]),
])
def test_a_build_that_exits_or_raises(tmp_path, body, words):
    (tmp_path / "p.py").write_text(f"def build_reference():\n    {body}\ndef build_candidate(): pass\n" + INPUTS)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_cli(layers.main, ["--pair", str(tmp_path / "p.py"), "--output", str(tmp_path / "out"), "-q"])
    assert (code, out.getvalue()) == (2, "") and err.getvalue().count("\n") == 1 and "Traceback" not in err.getvalue()
    assert all(word in err.getvalue() for word in words), err.getvalue()
    assert not (tmp_path / "out" / "result.json").exists() and not (tmp_path / "out" / "bundles").exists()


# -- the child itself, with a program of our own in the runner's place


def child_of(code, tmp_path, monkeypatch, **more):
    monkeypatch.setattr(child, "command", lambda side, job: [sys.executable, "-c", code, str(job)])
    return child.run("pytorch", [{"kind": "pair"}], {}, tmp_path / "out", verbosity=-1, **more)


REPORT = "import json, sys; job = json.load(open(sys.argv[1])); json.dump({'error': None, 'tasks': [1]}, open(job['report'], 'w'))\n"


def test_what_a_child_prints_is_never_its_answer(tmp_path, monkeypatch):
    loud = "import sys\nfor k in range(3000): print('x' * 1000)\nprint('{\"error\": \"forged\"}')\n"
    assert child_of(loud + REPORT, tmp_path, monkeypatch)["tasks"] == [1]


@pytest.mark.parametrize(("code", "words"), [
    ("import os; os._exit(0)", "ended with exit status 0 before it was done"), ("import sys; sys.exit('last words')", "exit status 1 before it was done: last words"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"), (REPORT + "sys.exit(4)", "exit status 4"),
    ("print('a'); print('b'); print('c'); print('d'); raise SystemExit(1)", ": b / c / d;"), ("import sys; sys.stdout.buffer.write(b'\\xff' * 10); sys.exit(1)", "\ufffd"),
])
def test_a_child_that_ends_too_early(tmp_path, monkeypatch, code, words):
    with pytest.raises(UserError, match="to see it alone") as error:
        child_of(code, tmp_path, monkeypatch)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_last_words_without_end_are_cut(tmp_path, monkeypatch):
    with pytest.raises(UserError) as error:
        child_of("import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.flush(); sys.exit(1)", tmp_path, monkeypatch)
    assert len(str(error.value)) < child.LAST_WORDS + 500


def test_a_child_that_hangs_is_stopped(tmp_path, monkeypatch):
    started = time.perf_counter()
    with pytest.raises(UserError, match="was not done after 0.5 s.*--timeout"):
        child_of("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)", tmp_path, monkeypatch, timeout=0.5)
    assert time.perf_counter() - started < 20


def test_an_old_report_is_no_answer(tmp_path, monkeypatch):
    child_of(REPORT, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="exit status 0 before"):
        child_of("pass", tmp_path, monkeypatch)


# -- the pair file


def test_a_file_that_cannot_be_loaded_says_so_in_one_line(tmp_path):
    (tmp_path / "p.py").write_text("raise RuntimeError('one\\ntwo')\n")
    with pytest.raises(UserError, match="RuntimeError: one two.*mend it"):
        pair_file.load(str(tmp_path / "p.py"))
    (tmp_path / "p.py").write_bytes(b"\x00\xff")
    with pytest.raises(UserError, match="cannot be read.*mend it"):
        pair_file.check(str(tmp_path / "p.py"))


def test_a_check_never_runs_the_file(tmp_path):
    (tmp_path / "p.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build_reference(): pass\ndef build_candidate(): pass\ndef inputs(seed): pass\n")
    pair_file.check(str(tmp_path / "p.py"))
    assert not (tmp_path / "ran").exists()


class Given:
    spec = "p.py"

    def __init__(self, value):
        self.inputs = lambda seed: value


@pytest.mark.parametrize(("value", "word"), [(None, "NumPy arrays"), ([], "NumPy arrays"), ("text", "NumPy arrays"), (np.array([{}]), "type object"), (np.array(["a"]), "type <U1"),
                                             (np.complex64([1]), "type complex64"), (np.zeros(1, "M8[s]"), "type datetime64")])
def test_inputs_that_no_file_can_hold(value, word):
    with pytest.raises(UserError, match=f"inputs.*{word}.*mend it"):
        pair_tasks.plain_inputs(Given(value), 0)


def test_inputs_of_every_kind_that_can_be_stored():
    found = pair_tasks.plain_inputs(Given({"a": (np.float32(1), [np.zeros((0, 2)), np.zeros(3, bool)])}), 0)
    assert found["a"][0].shape == () and found["a"][1][0].shape == (0, 2) and found["a"][1][1].dtype == bool

"""When the core counts as built, what progress says, and what happens when the build fails.

The child that would compile for minutes is replaced by a small script through ``sys.executable``.
"""

from __future__ import annotations

import _ctypes
import io
import json
import math
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from jt_nanodet import runtime_build
from jt_nanodet.errors import UserError

KEY = {"jittor": "1", "python": "3"}


def make_core(cache: Path) -> Path:
    (cache / "custom_ops").mkdir(parents=True)
    for name in ("jit_utils_core.x.so", "jittor_core.x.so", "custom_ops/ops.so"):
        (cache / name).write_text("code")
    return cache / "stamp.json"


def test_a_stamp_holds_until_a_library_or_the_key_changes(tmp_path: Path) -> None:
    stamp = make_core(tmp_path)
    assert not runtime_build.is_built(tmp_path, stamp, KEY)
    runtime_build.write_stamp(tmp_path, stamp, KEY)
    assert runtime_build.is_built(tmp_path, stamp, KEY)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    (tmp_path / "custom_ops" / "later.so").write_text("a custom operator compiled afterwards")
    assert runtime_build.is_built(tmp_path, stamp, KEY)
    assert not runtime_build.is_built(tmp_path, stamp, {**KEY, "python": "3.1"})


@pytest.mark.parametrize("name", ["jit_utils_core.x.so", "jittor_core.x.so", "custom_ops/ops.so"])
@pytest.mark.parametrize("damage", ["cut", "removed", "rewritten"])
def test_a_changed_library_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    stamp = make_core(tmp_path)
    runtime_build.write_stamp(tmp_path, stamp, KEY)
    path = tmp_path / name
    if damage == "cut":
        os.truncate(path, 2)
    elif damage == "removed":
        path.unlink()
    else:
        status = path.stat()
        path.write_text("edoc")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not runtime_build.is_built(tmp_path, stamp, KEY)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": {}, "files": {}}'])
def test_a_broken_stamp_is_no_stamp(tmp_path: Path, text: str) -> None:
    stamp = make_core(tmp_path)
    stamp.write_text(text)
    assert not runtime_build.is_built(tmp_path, stamp, KEY)
    assert not runtime_build.is_built(tmp_path, stamp, {})


def test_a_stamp_over_nothing_does_not_count(tmp_path: Path) -> None:
    runtime_build.write_stamp(tmp_path, tmp_path / "stamp.json", KEY)
    assert json.loads((tmp_path / "stamp.json").read_text())["files"] == {}
    assert not runtime_build.is_built(tmp_path, tmp_path / "stamp.json", KEY)


def test_a_kernel_cut_short_is_removed(tmp_path: Path) -> None:
    whole = Path(math.__file__)
    if whole.suffix != ".so":
        whole = Path(_ctypes.__file__)
    for folder in ("jit", "custom_ops", "cu13/jit"):
        (tmp_path / folder).mkdir(parents=True)
    content = whole.read_bytes()
    for name, data in {
        "jit/whole.so": content,
        "jit/cut.so": content[:-1],
        "jit/empty.so": b"",
        "jit/noise.so": b"x" * 500,
        "custom_ops/half.so": content[: len(content) // 2],
        "cu13/jit/half.so": content[: len(content) // 2],
        "jit/source.cc": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    assert runtime_build.remove_torn(tmp_path) == [], "another process may just be writing them"
    removed = runtime_build.remove_torn(tmp_path, time.time() + 120)
    assert sorted(removed) == ["cut.so", "empty.so", "half.so", "half.so", "noise.so"]
    assert sorted(path.name for path in tmp_path.glob("**/*.*")) == ["source.cc", "whole.so"]


def test_progress_counts_and_never_claims_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    progress = runtime_build.Progress("Building", stream, every=0.0)
    shares = []
    pieces = [
        "",
        "Compiling jittor_core(1/150) used: 1s\rCompiling jittor_core(2/150) used",
        "Compiling jittor_core(75/150) ",
        "Compiling jittor_core(150/150) ",
        "Compiling gen_ops_mkl(1/7) ",
        "Compiling gen_ops_mkl(7/7) ",
    ]
    for seconds, text in enumerate(pieces, start=10):
        progress.read(text)
        line = progress.line(progress.start + seconds)
        shares.append(int(line.split(" %")[0].split()[-1]))
        assert f"{seconds} s gone" in line and "left" in line
    assert shares == sorted(shares) and shares[-1] <= 99
    assert "75/150" not in line and "150/150" in line
    progress.show()
    progress.finish()
    assert stream.getvalue().count("\n") == 2 and "done in" in stream.getvalue()


def test_a_terminal_gets_one_line_rewritten_in_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = runtime_build.Progress("Building", stream)
    progress.every = 0.0
    progress.show()
    progress.show()
    assert "\n" not in stream.getvalue() and stream.getvalue().count("\r") == 2


def test_a_second_process_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = []

    def second() -> None:
        with runtime_build.locked(tmp_path / "lock", "waiting"):
            order.append("second")

    with runtime_build.locked(tmp_path / "lock", "never shown"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and capsys.readouterr().err == "waiting\n"


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let the building child be a shell script; the script sees how often it ran in the file ``runs``."""

    def use(script: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f'#!/bin/sh\necho x >> {tmp_path}/runs\nn=$(wc -l < {tmp_path}/runs)\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return tmp_path / "runs"

    return use


def build(tmp_path: Path) -> float:
    return runtime_build.build(tmp_path, tmp_path, "cpu", tmp_path / "log", "Building")


def test_please_rerun_is_obeyed(tmp_path: Path, child) -> None:
    runs = child(f'if [ $n = 1 ]; then echo "jit_utils updated, please rerun"; exit 0; fi; echo "{runtime_build.READY}"')
    build(tmp_path)
    assert runs.read_text().count("x") == 2


def test_a_core_that_does_not_load_is_linked_again(tmp_path: Path, child) -> None:
    make_core(tmp_path)
    (tmp_path / "obj_files").mkdir()
    (tmp_path / "obj_files" / "a.o").write_text("kept")
    runs = child(f'if ls {tmp_path}/jittor_core* >/dev/null 2>&1; then kill -BUS $$; fi; echo "{runtime_build.READY}"')
    build(tmp_path)
    assert runs.read_text().count("x") == 2
    assert not list(tmp_path.glob("*core*.so")) and (tmp_path / "obj_files" / "a.o").exists()


def test_a_failure_gives_the_compilers_reason_and_the_log(tmp_path: Path, child) -> None:
    runs = child('printf "file.cc:1: \\033[01mfatal error: \\033[0mPython.h: No such file\\n"; exit 1')
    with pytest.raises(UserError) as caught:
        build(tmp_path)
    message = str(caught.value)
    assert "Python.h: No such file" in message and str(tmp_path / "log") in message
    assert message.endswith('type "python -m jt_nanodet doctor"') and runs.read_text().count("x") == 2


def test_what_the_child_explains_is_passed_on(tmp_path: Path, child) -> None:
    make_core(tmp_path)
    runs = child("echo 'error: no oneDNN: type \"pip\"'; exit 2")
    with pytest.raises(UserError, match='^no oneDNN: type "pip"$'):
        build(tmp_path)
    assert runs.read_text().count("x") == 1 and list(tmp_path.glob("jittor_core*.so")), "a working core is not touched"


def test_it_does_not_try_for_ever(tmp_path: Path, child) -> None:
    runs = child("exit 0")
    with pytest.raises(UserError, match="could not be built"):
        build(tmp_path)
    assert runs.read_text().count("x") == 4

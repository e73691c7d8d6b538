"""The runtime under the conditions that break a plain ``import jittor``.

Everything that changes a process for good runs in a process of its own, with the machine's one
built core (JITTOR_HOME points at it while HOME is somewhere else).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from jt_nanodet import runtime, runtime_machine
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
REAL_HOME = str(Path(os.environ.get("JITTOR_HOME") or Path.home()))


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a bare process with the built core; variables given as "" are removed."""
    values = {**os.environ, "JITTOR_HOME": REAL_HOME, "PYTHONPATH": str(ROOT), **environment}
    values = {name: value for name, value in values.items() if value != ""}
    return subprocess.run([sys.executable, "-c", code], env=values, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def built(jittor) -> None:
    """The core is there, so that the processes below start in a second or two."""


def test_import_is_fast_and_brings_no_framework() -> None:
    code = (
        "import sys, time; start = time.process_time()\n"  # CPU time: the machine may be busy with other things
        "import jt_nanodet.runtime, jt_nanodet.errors, jt_nanodet.__main__\n"
        "print(time.process_time() - start, sorted({'jittor', 'jittor_utils', 'torch', 'numpy'} & set(sys.modules)))"
    )
    seconds, names = min((run(code).stdout.split(" ", 1) for _ in range(3)), key=lambda pair: float(pair[0]))
    assert names.strip() == "[]"
    assert float(seconds) < 0.3


@pytest.mark.jittor
def test_quiet_and_right_on_normal_use(built: None) -> None:
    code = "from jt_nanodet import runtime; i = runtime.setup(); import jittor as jt; print((jt.array([1.5, 2.0]) * 2).numpy(), i.built_seconds)"
    done = run(code)
    assert done.stdout == "[3. 4.] 0.0\n", done.stderr
    # Jittor's own count of kernels being compiled may show the very first time
    assert [line for line in done.stderr.splitlines() if line.strip() and "Compiling Operators" not in line] == []


BURNED = """
import ctypes, os, time
from jt_nanodet import runtime
runtime.setup(threads=2)
gomp, work = ctypes.CDLL("libgomp.so.1"), ctypes.CDLL(None).getpid
spent = 0.0
for _ in range(20):
    gomp.GOMP_parallel(ctypes.cast(work, ctypes.c_void_p), None, 2, 0)
    before = time.process_time()
    time.sleep(0.02)
    spent += time.process_time() - before
print(spent, "GOMP_SPINCOUNT" in os.environ)
"""


@pytest.mark.jittor
@pytest.mark.skipif(sys.platform != "linux", reason="not run: GNU OpenMP is looked at on Linux only")
@pytest.mark.parametrize(("looks", "least", "most"), [("", 0.0, 0.04), ("100000000", 0.08, 1.0)])
def test_idle_threads_sleep_between_kernels(built: None, looks: str, least: float, most: float) -> None:
    """Processor time while nothing is computed, 20 times 20 ms; the second case is the twin that must burn it, and shows that the user's setting counts."""
    done = run(BURNED, GOMP_SPINCOUNT=looks, OMP_WAIT_POLICY="")
    spent, left = done.stdout.split()
    assert least <= float(spent) < most, done.stderr
    assert left == str(bool(looks))  # what other processes inherit is the user's setting alone


@pytest.mark.jittor
def test_sticky_home_is_neither_used_nor_changed(built: None, tmp_path: Path) -> None:
    config = tmp_path / ".cache" / "jittor" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"JITTOR_HOME": "/proc/nowhere"}))
    code = "from jt_nanodet import runtime; import os; print(runtime.setup().cache, os.environ['HOME'], os.environ['JITTOR_HOME'])"
    done = run(code, HOME=str(tmp_path))
    cache, home, jittor_home = done.stdout.split()
    assert cache.startswith(REAL_HOME) and home == str(tmp_path) and jittor_home == REAL_HOME, done.stderr
    assert json.loads(config.read_text()) == {"JITTOR_HOME": "/proc/nowhere"}


@pytest.mark.jittor
def test_our_home_does_not_become_sticky(built: None, tmp_path: Path) -> None:
    done = run("from jt_nanodet import runtime; runtime.setup()", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / ".cache").exists()


@pytest.mark.jittor
def test_any_nvcc_on_the_path_is_ignored_on_the_cpu(built: None, tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 99.9, V99.9.9'\n")
    nvcc.chmod(0o755)
    code = "from jt_nanodet import runtime; runtime.setup(); import jittor as jt; print(jt.has_cuda, repr(jt.flags.nvcc_path))"
    done = run(code, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout.split() == ["False", "''"], done.stderr


@pytest.mark.jittor
def test_the_cache_does_not_depend_on_a_git_branch_or_on_hostile_settings(built: None) -> None:
    code = "from jt_nanodet import runtime; i = runtime.setup(); print(i.cache.name, i.built_seconds)"
    done = run(code, cache_name="some/branch", FIX_TORCH_ERROR="1", nvcc_path="/nowhere/nvcc", gdb_path="/nowhere/gdb")
    assert done.stdout.split() == ["default", "0.0"], done.stderr


@pytest.mark.jittor
def test_what_jittor_takes_over_is_put_back(built: None) -> None:
    code = """
from jt_nanodet import runtime
import os, signal, ssl, subprocess, sys, time
before = ssl._create_default_https_context
runtime.setup()
import jittor as jt
assert ssl._create_default_https_context is before
child = subprocess.Popen(["sleep", "60"]); child.kill(); child.wait()
time.sleep(0.2)
try:
    os.kill(os.getpid(), signal.SIGINT); time.sleep(5)
except KeyboardInterrupt:
    print("still here", "torch" in sys.modules)
"""
    done = run(code)
    assert done.stdout.strip() == "still here False", done.stderr


@pytest.mark.jittor
@pytest.mark.parametrize("fast", [False, True])
def test_kernels_follow_ieee_754_unless_told_otherwise(built: None, fast: bool) -> None:
    # a size no other test uses, so that both settings compile a kernel of their own
    code = """
from jt_nanodet import runtime
import numpy as np
info = runtime.setup()
import jittor as jt
tiny = np.full(3, 1e-40, "float32")
a = jt.array(np.array([np.nan, np.inf, 1.0], "float32"))
b = jt.array(np.array([np.nan, np.inf, 1.0], "float32"))
print(info.fast_math, (a != b).numpy().tolist(), np.isnan((a - b).numpy()).tolist(), bool((tiny * np.float32(1) != 0).all()))
"""
    done = run(code, JT_NANODET_FAST_MATH="1" if fast else "0")
    exact = "False [True, False, False] [True, True, False] True"
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == exact) is not fast
    assert done.stdout.startswith(str(fast))


@pytest.mark.jittor
def test_two_processes_at_once(built: None) -> None:
    code = "from jt_nanodet import runtime; runtime.setup(); import jittor as jt; print(float((jt.ones(7) * 3).sum().item()))"
    values = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen([sys.executable, "-c", code], env=values, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [child.communicate(timeout=600)[0].strip() for child in children] == ["21.0"] * 3


@pytest.mark.jittor
def test_setup_again_seed_threads_versions(jittor, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runtime.setup()
    assert runtime.setup() == first == runtime.info()
    with pytest.raises(UserError, match="already uses Jittor on cpu: start another process"):
        runtime.setup("cuda")
    runtime.seed(5)
    one = jittor.rand(4).numpy().tolist()
    runtime.seed(5)
    assert jittor.rand(4).numpy().tolist() == one
    runtime.setup(threads=1)
    assert runtime.info().threads == 1
    runtime.set_threads(first.threads)
    versions = runtime.versions()
    assert versions["jittor"] == runtime_machine.JITTOR_VERSION and versions["onednn_interface"].startswith("2.")


def test_jittor_imported_first_is_a_programming_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_info", None)
    monkeypatch.setitem(sys.modules, "jittor", types.ModuleType("jittor"))
    with pytest.raises(RuntimeError, match="before the first 'import jittor'"):
        runtime.setup()


@pytest.mark.parametrize("arguments", [{"device": "gpu"}, {"threads": 0}, {"threads": 5000}])
def test_wrong_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match="give "):
        runtime.setup(**arguments)  # type: ignore[arg-type]


def test_default_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = runtime_machine.cpu_count()
    monkeypatch.delenv("OMPI_COMM_WORLD_LOCAL_SIZE", raising=False)
    for text, expected in (("3", 3), ("4,2", 4), ("", cores), ("many", cores), ("0", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert runtime.default_threads() == expected
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "1000")
    assert runtime.default_threads() == 1


def test_downloads_are_refused() -> None:
    with pytest.raises(UserError, match="never does"):
        runtime._refuse_download("somewhere", "name", "folder", "sum")

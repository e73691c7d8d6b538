"""What Jittor needs from the machine: each thing missing gives one sentence that ends with what to type."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from jt_nanodet import runtime_machine
from jt_nanodet.errors import UserError


def test_this_machine_will_do() -> None:
    runtime_machine.check_packages()
    assert Path(runtime_machine.find_compiler()).is_file()
    assert 1 <= runtime_machine.compile_workers() <= runtime_machine.cpu_count()


def test_numpy_2_is_refused_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("numpy")
    fake.__version__ = "2.1.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "numpy", fake)
    with pytest.raises(UserError) as caught:
        runtime_machine.check_packages()
    assert "NumPy 2.1.0" in str(caught.value) and str(caught.value).endswith('type "python -m pip install numpy==1.26.4"')


@pytest.mark.parametrize("version", ["", "1.3.9.14"])
def test_another_jittor_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(runtime_machine, "package_version", lambda package: version if package == "jittor" else "1.26.4")
    with pytest.raises(UserError, match=r'type "python -m pip install jittor==1\.3\.11\.0"'):
        runtime_machine.check_packages()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("cc_path", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no g\\+\\+ here"):
        runtime_machine.find_compiler()


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for home in (file, Path("/proc/nowhere")):
        monkeypatch.setenv("JITTOR_HOME", str(home))
        with pytest.raises(UserError, match="set JITTOR_HOME to a folder you can write to$"):
            runtime_machine.jittor_home()


def test_a_python_config_is_made_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".cache" / "jittor").mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    real = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: False if str(self).startswith("/usr/bin/python3") else real(self))
    script = runtime_machine.python_config(tmp_path)
    assert script is not None and runtime_machine.python_config(tmp_path) == script
    suffix = subprocess.run([str(script), "--extension-suffix"], capture_output=True, text=True).stdout.strip()
    includes = subprocess.run([str(script), "--includes"], capture_output=True, text=True).stdout
    assert suffix == sysconfig.get_config_var("EXT_SUFFIX") and f"-I{sysconfig.get_path('include')}" in includes
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="apt-get install python3"):
        runtime_machine.python_config(tmp_path)


@pytest.mark.parametrize(("started", "expected"), [("", False), ("2", True)])
def test_mpirun_is_seen(monkeypatch: pytest.MonkeyPatch, started: str, expected: bool) -> None:
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE", raising=False)
    if started:
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", started)
    assert runtime_machine.in_mpi() is expected

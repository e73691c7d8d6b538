"""The doctor: finds what is wrong, says what to type, and answers without Jittor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jt_nanodet import doctor, runtime, runtime_machine
from jt_nanodet.errors import UserError


def found(name: str) -> doctor.Finding:
    return next(f for f in doctor.examine() if f.name == name)


def test_this_machine_can_use_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert "CPU use is possible." in text
    for word in ("Python", "g++", "numpy", "jittor", "torch", "oneDNN", "cache", "GPU", "Threads", "Disk"):
        assert word in text


def test_json_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cpu_possible"] is True and len(told["findings"]) == len(doctor.CHECKS)
    assert all(row["state"] in ("ok", "warn", "fail") and row["found"] for row in told["findings"])
    assert all(row["mend"] for row in told["findings"] if row["state"] != "ok")


def test_no_compiler_fails_and_says_what_to_type(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def none() -> str:
        raise UserError('there is no g++ here: type "apt-get install g++"')

    monkeypatch.setattr(runtime_machine, "find_compiler", none)
    assert doctor.main([]) == 2
    text = capsys.readouterr().out
    assert "apt-get install g++" in text and "not possible yet" in text


@pytest.mark.parametrize(
    ("package", "version", "state"),
    [("numpy", "2.1.0", "fail"), ("numpy", "1.25.0", "warn"), ("jittor", "", "fail"), ("jittor", "1.3.9.0", "fail"), ("torch", "", "warn")],
)
def test_package_states(monkeypatch: pytest.MonkeyPatch, package: str, version: str, state: str) -> None:
    monkeypatch.setattr(runtime, "versions", lambda: {package: version})
    finding = found(package)
    assert finding.state == state and f"pip install {package}==" in finding.mend


def test_an_unwritable_cache_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JITTOR_HOME", "/proc/nowhere")
    assert found("Jittor cache").state == "fail" and "JITTOR_HOME" in found("Jittor cache").mend


def test_a_sticky_home_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    assert found("JITTOR_HOME").state == "ok"
    config = tmp_path / ".cache" / "jittor" / "config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('{"JITTOR_HOME": "/data"}')
    assert found("JITTOR_HOME").state == "warn" and "export JITTOR_HOME=/data" in found("JITTOR_HOME").mend
    config.write_text("not json")
    assert found("JITTOR_HOME").state == "ok"


def test_too_many_threads_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert found("Threads").state == "warn"


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_NEEDED_GB", 1e9)
    assert found("Disk").state == "fail"


def test_it_speaks_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    assert doctor.main([]) == 0
    assert "ok    Python: " in capsys.readouterr().out

"""The wheel: built from the tree, installed into an environment without the checkout, it finds its configurations and templates and starts.

The environment is new; what the project depends on it takes from the one that runs the tests, by a path file, so that nothing is fetched.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """``installed(*words)``: what a command of the new environment says, started outside the checkout."""
    pytest.importorskip("setuptools", reason="not run: setuptools, which builds the wheel, is not installed")
    base = tmp_path_factory.mktemp("wheel")
    for name in ("jt_nanodet", "torch_ref", "alignment", "weights_convert", "reports", "configs"):
        shutil.copytree(ROOT / name, base / "tree" / name, ignore=shutil.ignore_patterns("__pycache__", "out", ".tmp-*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, base / "tree")
    bare = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(base), str(base / "tree")]
    done = subprocess.run(build, capture_output=True, text=True, env=bare, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    venv.create(base / "env", with_pip=False)
    python = base / "env" / "bin" / "python"
    places = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True).stdout.strip()
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(next(base.glob("*.whl")))]
    done = subprocess.run(install, capture_output=True, text=True, env=bare, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (Path(places) / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    (base / "elsewhere").mkdir()

    def run(*words):
        command = [str(base / "env" / "bin" / words[0]), *map(str, words[1:])]
        return subprocess.run(command, cwd=base / "elsewhere", capture_output=True, text=True, env=bare, check=False)

    return run


def test_it_is_the_installed_one(installed):
    done = installed("python", "-c", "import jt_nanodet, alignment, configs; print(jt_nanodet.__file__, alignment.__file__)")
    assert done.returncode == 0 and done.stdout.count("/env/") == 2 and str(ROOT) not in done.stdout, done.stdout + done.stderr


def test_the_command_starts(installed):
    assert installed("nanodet-parity", "--version").stdout.startswith("nanodet-parity ")
    done = installed("nanodet-parity", "--help")
    assert done.returncode == 0 and "alignment.report" in done.stdout


@pytest.mark.torch
def test_packaged_files_are_found(installed, tmp_path):
    done = installed("nanodet-parity", "torch_ref", "state", "configs/nanodet-plus-m_320.yml", "--json")
    assert done.returncode == 0 and '"keys"' in done.stdout, done.stderr
    code = ("from pathlib import Path; import alignment.report as r, reports.page as p; assert r.DEFAULT_CONFIG.is_file(), r.DEFAULT_CONFIG;"
            "root = Path(p.__file__).parent / 'templates'; assert {f.name for f in root.iterdir()} >= {'report.html.j2', 'style.css', 'script.js'}")
    assert installed("python", "-c", code).returncode == 0


@pytest.mark.torch
@pytest.mark.jittor
def test_the_main_job_runs_there(installed, jittor, tmp_path):
    done = installed("nanodet-parity", "alignment.report", "--output", tmp_path / "out", "--rounds", "1", "--limit", "2")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert done.stdout.strip().splitlines()[-1].startswith("PASSED | ") and (tmp_path / "out" / "report.html").stat().st_size > 10_000

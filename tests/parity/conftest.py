"""One whole report a session, on the drawn pictures of the embedded default; every test of this folder reads it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "shapes.yml"
WEIGHTS = ROOT / "configs" / "shapes_weights.npz"
#: The validation set of the embedded default has more; so many are enough for every number of the metric to exist.
PICTURES = 16
PARTS = ("structure", "weights", "layers", "infer")


@dataclasses.dataclass(frozen=True)
class Ran:
    """What one command left: exit code, its last line, the folder it wrote."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]

    def result(self, part: str = "") -> dict:
        return json.loads((self.folder / part / "result.json").read_text(encoding="utf-8"))


def command(folder: Path, *words: object) -> Ran:
    """``python -m`` WORDS ``--output`` folder."""
    done = subprocess.run([sys.executable, "-m", *map(str, words), "--output", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    return Ran(done.returncode, done.stdout, done.stderr, folder)


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Ran:
    """``python -m alignment.report`` on a few of the embedded default's pictures, with its weights where they are."""
    folder = tmp_path_factory.mktemp("parity")
    text = CONFIG.read_text(encoding="utf-8")
    few = text.replace("    count: 128\n", f"    count: {PICTURES}\n")
    assert few != text, "the embedded default has another number of pictures: change this line too"
    (folder / "few.yml").write_text(few, encoding="utf-8")
    weights = ["--pytorch-model", WEIGHTS] if WEIGHTS.is_file() else []
    ran = command(folder / "out", "alignment.report", "--config", folder / "few.yml", *weights, "--rounds", "1")
    assert ran.out, ran.err
    return ran

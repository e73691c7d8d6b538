"""One text for both frameworks: the Jittor file, translated, is the PyTorch file, but for lines with a written reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from alignment import mirror

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", mirror.names())
def test_pair(name):
    bad = [str(block) for block in mirror.blocks(name, *mirror.sources(name)) if not block.explained]
    assert not bad, "\n".join(bad)


def test_the_pairs_are_there():
    """What is listed by nobody is looked at by nobody."""
    model = {"layers", "backbone", "neck", "head", "aux_head", "detector", "boxes", "decode", "postprocess", "tester"}
    assert model <= set(mirror.names())


def test_every_file_of_the_reference_has_a_twin():
    alone = {path.stem for path in (ROOT / "torch_ref").glob("*.py")} - set(mirror.names()) - mirror.APART
    # `state` prints names and shapes of the weights as JSON; only the converter asks for it, and one answer is enough
    assert alone <= {"state"}


TORCH = '''"""Text."""
import torch
from torch import nn
from torch.nn import functional as F

LIMIT = 3


class Head(nn.Module):
    """A head."""

    def forward(self, x):
        x = torch.cat((x, x), dim=1)
        return F.softmax(x.to(x.device), dim=1)


def last(x):
    """The end."""
    return x + 1
'''
JITTOR = '''"""Text."""
import jittor as jt
from jittor import nn

LIMIT = 3


class Head(nn.Module):
    """A head."""

    def execute(self, x):
        x = jt.concat((x, x), dim=1)
        return nn.softmax(x, dim=1)


def last(x):
    """The end."""
    return x + 1
'''


def found(jittor, torch=TORCH):
    return [block for block in mirror.blocks("head", jittor, torch) if not block.explained]


def test_the_substitutions_leave_nothing():
    assert mirror.blocks("head", JITTOR, TORCH) == []


@pytest.mark.parametrize(("old", "new", "line"), [
    ("LIMIT = 3", "LIMIT = 4", 5),
    ("dim=1)\n        return", "dim=2)\n        return", 12),
    ("return x + 1", "return x - 1", 18),
    ("    return x + 1\n", "", 19),
    ("LIMIT = 3\n", "LIMIT = 3\nMORE = 1\n", 6),
])
def test_a_planted_difference_is_named_with_file_and_line(old, new, line):
    (block,) = found(JITTOR.replace(old, new))
    side = "torch_ref" if not block.jittor else "jt_nanodet"
    assert str(block).startswith(f"{side}/head.py:{line}: differs")


def test_a_missing_line_is_a_difference():
    (block,) = found(JITTOR.replace("        x = jt.concat((x, x), dim=1)\n", ""))
    assert block.place == "torch_ref/head.py:13"


@pytest.mark.parametrize("new", [
    "return x - 1  # differs: counts downwards",
    "# differs: counts downwards\n    return x - 1",
])
def test_a_reason_in_the_block_is_enough(new):
    assert found(JITTOR.replace("return x + 1", new)) == []


def test_a_reason_in_the_docstring_around_is_enough():
    assert found(JITTOR.replace("return x + 1", "return x - 1").replace('"""The end."""', '"""The end.\n\n    # differs: counts downwards\n    """')) == []


def test_a_reason_elsewhere_is_not():
    spoilt = JITTOR.replace("return x + 1", "return x - 1")
    assert len(found(spoilt.replace('"""A head."""', '"""A head.\n\n    # differs: another end\n    """'))) == 1
    assert len(found(spoilt.replace("LIMIT = 3", "LIMIT = 3  # differs: another end"))) == 1


def test_a_reason_in_the_other_file_is_enough():
    assert found(JITTOR.replace("return x + 1", "return x - 1"), TORCH.replace("return x + 1", "return x + 1  # differs: counts upwards")) == []


def test_one_reason_does_not_excuse_the_definition_beside_it():
    first = "\n\ndef one(x):\n    # differs: only here\n    return x\n"
    second = "\n\ndef two(x):\n    return -x\n"
    (block,) = found(JITTOR + first + second)
    assert block.place == "jt_nanodet/head.py:26"


def test_the_two_columns():
    done = subprocess.run([sys.executable, "-m", "alignment.mirror", "backbone"], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [one for one in done.stdout.splitlines() if "import torch" in one]
    assert line.startswith("import torch ") and line.endswith("import jittor as jt")


def test_an_unknown_pair_is_refused_with_the_nearest_name():
    done = subprocess.run([sys.executable, "-m", "alignment.mirror", "hed"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "did you mean 'head'" in done.stderr and len(done.stderr.splitlines()) == 1

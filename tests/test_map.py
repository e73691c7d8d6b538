"""docs/map.md: every line of the first README's usage is there, and every command it leads to exists and takes the options shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.test_readme import help_of

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "map.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TEXT.splitlines() if line.startswith("| ")][1:]
#: What the first README promised, line by line.
PROMISED = (
    "python -m jittor.test.test_cuda", "tools/download_voc_dataset.py", "tools/create_mini_voc_dataset.py", "tools/train.py", "tools/test.py", "demo/demo.py image",
    "demo/demo.py video", "tools/compare_model_structure.py", "tools/compare_training_logs.py --pytorch-log --jittor-log",
    "tools/compare_inference_results.py --pytorch-model --jittor-model --test-images", "FP32/FP16 training table", "320/416 inference table", "log format", "Best mAP",
    "the three pictures",
)  # fmt: skip
COMMANDS = [shlex.split(text.removeprefix("python -m ")) for row in ROWS for text in re.findall(r"`(python -m [^`]+)`", row[1])]


@pytest.mark.parametrize("line", PROMISED)
def test_every_promise_has_a_row(line):
    assert any(line in row[0] for row in ROWS) and all(len(row) == 2 and "python -m" in row[1] for row in ROWS)


@pytest.mark.torch
@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words[:2])) for words in COMMANDS])
def test_every_command_takes_what_is_shown(words, capsys, repository):
    said = help_of(words, capsys)
    assert [word for word in words if word.startswith("--") and not re.search(rf"{word}\b", said)] == []
    assert [word for word in words if word.startswith("configs/") and not (repository / word).is_file()] == []

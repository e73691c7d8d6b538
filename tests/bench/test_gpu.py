"""`bench gpu`: its settings, its words for a side that ended, and the command it records."""

from __future__ import annotations

import pytest

from jt_nanodet.bench import gpu
from jt_nanodet.bench.kernels import command_line
from jt_nanodet.errors import UserError


@pytest.mark.parametrize("words", [["--settings", "8:16:320"], ["--settings", "32:16"], ["--settings", "a:b:c"], ["--sides", "mxnet"]])
def test_settings_that_cannot_be_read_are_one_sentence(words):
    with pytest.raises(UserError, match="--settings 32:16:320"):
        gpu.main(words)


def test_the_reason_of_an_end_is_its_last_words_without_colours():
    assert gpu.reason("one\n\x1b[38;5;1mout of memory\x1b[m\n\x1b[m\n") == "one | out of memory"
    assert gpu.reason(" \n") == "without a word"
    assert len(gpu.reason("x" * 5000)) == 800


def test_the_recorded_command_names_no_folder_of_the_machine():
    assert command_line("gpu", ["--output", "/some/where/gpu.json", "--sides", "jittor"]) == "python -m jt_nanodet bench gpu --output gpu.json --sides jittor"

"""Progress is said now and then, and is no noise in a file."""

from __future__ import annotations

from jt_nanodet.data.progress import Progress


def test_progress_is_not_noise_in_a_file(capsys):
    progress = Progress(5, "pictures")
    for n in range(5):
        progress.step(n + 1)
    assert capsys.readouterr().err == ""
    progress.shown -= 11
    progress.step(5)
    assert "5 of 5" in capsys.readouterr().err

"""Run files: state with its notes, the fingerprint, leftovers."""
import os

import numpy as np
import pytest

from jt_nanodet.config import load_config
from jt_nanodet.errors import UserError
from jt_nanodet.run import files
from tests.training.tiny import SHAPES


def test_state_round_trip(tmp_path):
    state = {"a": np.arange(6.0).reshape(2, 3), "n": np.asarray(3)}
    files.write_state(tmp_path, state, {"best": 0.25, "sums": {"loss": 1.5}})
    got, notes = files.read_state(tmp_path)
    assert notes == {"best": 0.25, "sums": {"loss": 1.5}} and list(got) == ["a", "n"] and got["n"].shape == ()
    np.testing.assert_array_equal(got["a"], state["a"])


def test_nothing_and_something_else(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        files.read_state(tmp_path)
    np.savez(tmp_path / files.STATE_FILE, w=np.zeros(2))
    with pytest.raises(UserError, match="no training state"):
        files.read_state(tmp_path)


def test_fingerprint_names_the_first_difference():
    config = load_config(SHAPES)
    one = files.fingerprint(config, 0, 16, 100)
    files.check_same_run(one, files.fingerprint(config, 0, 16, 100))
    with pytest.raises(UserError, match=r"had seed 0, and now it is 1"):
        files.check_same_run(one, files.fingerprint(config, 1, 16, 100))
    other = {**one, "schedule": {**one["schedule"], "total_epochs": 9}}
    with pytest.raises(UserError, match=r"schedule.total_epochs 30, and now it is 9"):
        files.check_same_run(one, other)


def test_leftovers_of_the_dead_go_and_of_the_living_stay(tmp_path):
    (tmp_path / ".tmp-999999999-ab.npz").write_bytes(b"x")
    (tmp_path / f".tmp-{os.getpid()}-cd.npz").write_bytes(b"x")
    files.clear_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f".tmp-{os.getpid()}-cd.npz"]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--save-dir"):
        files.make_folder(tmp_path / "file" / "below")

"""The engine's team: waiting takes little processor time, work is taken by whoever is there, and no stage begins before the last one has ended."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

ENGINE = Path(__file__).resolve().parents[2] / "jt_nanodet" / "engine"


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    made = tmp_path_factory.mktemp("team") / "team.so"
    command = ["g++", "-std=c++14", "-O1", "-pthread", "-fPIC", "-shared", "-Wall", "-Werror", f"-I{ENGINE}", str(Path(__file__).with_name("team.cc")), "-o", str(made)]
    subprocess.run(command, check=True)
    found = ctypes.CDLL(str(made))
    found.waiting.restype = found.awake_at_most.restype = ctypes.c_double
    found.waiting.argtypes = [ctypes.c_double, ctypes.c_int]
    return found


def test_a_waiting_member_sleeps(team):
    """The partner sleeps 0.2 s in the middle of its share. The second call is the twin that must fail: it spins."""
    assert 0 < team.awake_at_most() <= 100e-6
    assert team.waiting(0.2, 0) < 0.01
    assert team.waiting(0.2, 1) > 0.02


def test_one_member_does_the_work_of_an_absent_one(team):
    left = ctypes.c_int(0)
    assert team.without_partner(1000, ctypes.byref(left)) == 2000
    assert left.value == 0


@pytest.mark.parametrize(("members", "shares"), [(1, 1), (2, 2), (3, 3), (2, 5)])
def test_stages_are_in_order_and_each_share_is_done_once(team, members, shares):
    stages = 500
    cells = np.arange(shares, dtype=np.uint32)
    want = cells.copy()
    team.sums(members, shares, stages, cells.ctypes.data_as(ctypes.c_void_p))
    for _ in range(stages):
        want = (want.sum(dtype=np.uint32) + np.arange(shares, dtype=np.uint32)).astype(np.uint32)
    np.testing.assert_array_equal(cells, want)

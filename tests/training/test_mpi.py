"""Two processes under mpirun train the port as one process with the whole batch."""
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jt_nanodet.checkpoint import read_weights
from jt_nanodet.run.log import read_rows
from tests.training.tiny import ROOT, write_tiny

pytestmark = [pytest.mark.mpi, pytest.mark.jittor, pytest.mark.slow, pytest.mark.skipif(not shutil.which("mpirun"), reason="not run: no mpirun")]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def train(before, config, folder, *options):
    """The folder of a run of three steps with BatchNorm frozen."""
    command = [*before, sys.executable, "-m", "jt_nanodet", "train", str(config), "--save-dir", str(folder), "--device", "cpu", "--freeze-bn", "--max-steps", "3", *options]
    done = subprocess.run(command, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    """The floor is what Jittor's ordinary graph moves: the same mathematics, summed in another order. A hundredth of the way the weights went is the most it may be."""
    config = write_tiny(tmp_path)
    alone = train([], config, tmp_path / "alone")
    plain = train([], config, tmp_path / "plain", "--plain")
    pair = train(["mpirun", "--oversubscribe", "-np", "2"], config, tmp_path / "pair", "--batch-size", "2")
    norms = [[row["grad_norm"] for row in read_rows(folder) if row.get("type") == "train"] for folder in (alone, pair)]
    assert len(norms[0]) == len(norms[1]) == 3 and next(row for row in read_rows(pair) if row["type"] == "header")["processes"] == 2
    np.testing.assert_allclose(norms[1], norms[0], rtol=100 * np.finfo(np.float32).eps, atol=0)
    states = [{k: v for k, v in read_weights(folder / "training_state.npz").items() if k.startswith("model/") and v.dtype.kind == "f"} for folder in (alone, plain, pair)]
    names = list(states[0])
    one, other, two = (np.concatenate([state[k].reshape(-1).astype(np.float64) for k in names]) for state in states)
    floor, apart = np.linalg.norm(other - one), np.linalg.norm(two - one)
    print(f"floor {floor:.3g}, two processes {apart:.3g}, all weights {np.linalg.norm(one):.3g}")
    assert apart <= 2 * floor

"""The CUDA source compiles for every architecture of the day, wherever an nvcc is found; and the emulation refuses what a device would not forgive."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from tests.kernels import cases, library


@pytest.mark.slow
def test_compiles_for_every_architecture(tmp_path):
    nvcc = library.find_nvcc()
    if nvcc is None:
        pytest.skip("not run: no nvcc of CUDA 13, the kernels were not compiled for any GPU")
    output = tmp_path / "kernels.so"
    library.compiled(library.nvcc_command(nvcc, output, library.ARCHITECTURES))
    content = output.read_bytes()
    for number in library.ARCHITECTURES:
        assert f"sm_{number}".encode() in content, number


def test_barriers_were_real():
    emulated = library.Kernels(library.host_library(), "emulated")
    before = emulated.handle.barriers_passed()
    emulated.nms(cases.nms_edges()["one candidate"])
    assert emulated.handle.barriers_passed() - before == 3 + 2 * 2  # of the filter; of the suppression, for the one winner and for none


PROGRAM = """
#include "cuda_on_host.h"
__global__ void k(int which, int* out) {
    __shared__ int x;
    if (which == 0 || threadIdx.x % 2) __syncthreads();
    else if (which == 1) __syncthreads();
    if (threadIdx.x == 3) x = 7;
    __syncthreads();
    out[threadIdx.x] = x;
}
extern "C" int run(int which) { int all[64]; int* out = all; KERNEL_LAUNCH(k, 2, 64, 0, which, out); return out[0]; }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulation")
    (folder / "program.cu").write_text(PROGRAM)
    command = [word if word != str(library.HERE / "exports.cu") else str(folder / "program.cu") for word in library.host_command(folder / "program.so")]
    library.compiled([*command[:1], "-I", str(library.HERE), *command[1:]])
    return folder / "program.so"


def test_a_barrier_waits_for_all(program):
    assert ctypes.CDLL(str(program)).run(0) == 7


@pytest.mark.parametrize("which", [1, 2])
def test_threads_at_different_barriers_stop_the_program(program, which):
    code = f"import ctypes; ctypes.CDLL({str(program)!r}).run({which})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70 and "barrier" in done.stderr

"""The kernels in each of their three forms."""

from __future__ import annotations

import pytest

from jt_nanodet import runtime_cuda
from jt_nanodet.errors import UserError
from tests.kernels import library


@pytest.fixture(scope="session", params=["emulated", "cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def kernels(request) -> library.Kernels:
    """The CUDA source on the host's emulation, the C++ kernels, and the CUDA source on a GPU."""
    if request.param != "cuda":
        return library.Kernels(library.host_library(), request.param)
    try:
        runtime_cuda.find_gpu()
    except UserError:
        pytest.skip("not run: no NVIDIA GPU")
    if library.find_nvcc() is None:
        pytest.skip("not run: no nvcc of CUDA 13")
    return library.Kernels(library.cuda_library(), "cuda")

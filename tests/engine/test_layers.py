"""Depthwise convolution and upsampling of the engine, on every vector width, with NaN around every plane: what is read beside a plane must not count."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

ENGINE = Path(__file__).resolve().parents[2] / "jt_nanodet" / "engine"
FLOATS = ctypes.POINTER(ctypes.c_float)


@pytest.fixture(scope="module", params=[16, 8, 4])
def layer(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("layers") / "layers.so"
    command = ["g++", "-std=c++14", "-O1", "-fPIC", "-shared", "-Wno-psabi", f"-DJTN_FORCE_WIDTH={request.param}", f"-I{ENGINE}",
               str(Path(__file__).with_name("layers.cc")), "-o", str(made)]
    subprocess.run(command, check=True)
    found = ctypes.CDLL(str(made))
    assert found.width() == request.param
    found.layer.restype = ctypes.c_bool
    found.layer.argtypes = [ctypes.c_int, FLOATS, FLOATS, FLOATS, *[ctypes.c_int] * 5, ctypes.c_float, ctypes.c_int, FLOATS]
    return found.layer


def call(layer, upsampling, x, w, b, kernel, stride, slope, members, shape):
    y = np.zeros(shape, np.float32)
    assert layer(upsampling, *[a.ctypes.data_as(FLOATS) for a in (x, w, b)], *x.shape, kernel, stride, slope, members, y.ctypes.data_as(FLOATS))
    return y


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise(layer, kernel, stride):
    random = np.random.RandomState(0)
    for height, width, members in [(20, 20, 2), (21, 33, 2), (40, 40, 3), (10, 10, 1), (10, 10, 2), (13, 13, 4), (5, 5, 2), (7, 3, 1), (9, 2, 2), (1, 1, 1), (32, 17, 1)]:
        x, w, b = (random.randn(*s).astype(np.float32) for s in ((3, height, width), (3, kernel, kernel), (3,)))
        padded = np.pad(x.astype(np.float64), ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
        windows = sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
        want = np.einsum("cyxij,cij->cyx", windows, w) + b[:, None, None]
        want = np.where(want > 0, want, 0.1 * want)
        np.testing.assert_allclose(call(layer, 0, x, w, b, kernel, stride, 0.1, members, want.shape), want, rtol=1e-5, atol=1e-5,
                                   err_msg=f"{height}x{width}, {members} members")


def test_upsampling(layer):
    random = np.random.RandomState(1)
    for height, width, members in [(10, 10, 2), (20, 20, 1), (13, 17, 2), (5, 3, 2), (1, 1, 1), (2, 33, 3)]:
        x = random.randn(3, height, width).astype(np.float32)
        want = x.astype(np.float64)
        for axis in (1, 2):
            n = want.shape[axis]
            before, after = want.take([0, *range(n - 1)], axis), want.take([*range(1, n), n - 1], axis)
            want = np.stack([0.75 * want + 0.25 * before, 0.75 * want + 0.25 * after], axis + 1).reshape([*want.shape[:axis], 2 * n, *want.shape[axis + 1:]])
        np.testing.assert_allclose(call(layer, 1, x, x, x, 1, 1, 1.0, members, want.shape), want, rtol=1e-6, atol=1e-6, err_msg=f"{height}x{width}")

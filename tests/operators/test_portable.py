"""The same C++ for narrower registers: 8 floats (AVX2) and 4 (any x86-64; NEON is as wide), against the same twins."""
import ctypes
import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jt_nanodet.operators import norm_reference, upsample_reference, window_reference
from tests.operators.measure import rms

OPERATORS = Path(__file__).resolve().parents[2] / "jt_nanodet" / "operators"
CODE = """
#include "vectors.h"
#include "planes.h"
#include "norm.h"
#include "depthwise.h"
#include "max_pool.h"
#include "upsample.h"
#include "update.h"
using namespace nanodet;
extern "C" {
int lanes() { return LANES; }
void norm_both(const float* x, const float* w, const float* b, const float* gy, int n, int c, int groups, int size, float slope, float* y, float* gx, float* gw, float* gb) {
    const Layout at{n, c, groups, size_t(size)};
    std::vector<float> mean(at.sets()), inverse(at.sets());
    moments(x, at, 1e-5, mean.data(), inverse.data(), nullptr);
    normalise(x, w, b, mean.data(), inverse.data(), at, slope, y);
    normalise_backward(x, gy, w, b, mean.data(), inverse.data(), at, slope, gx, gw, gb);
}
void depthwise_both(const float* x, const float* w, const float* gy, int n, int c, int k, int s, int p, int h, int v, float* y, float* gx, float* gw) {
    const Window window{k, s, p, h, v};
    depthwise(x, w, n, c, window, y);
    depthwise_backward(x, w, gy, n, c, window, gx, gw);
}
void pool_both(const float* x, const float* gy, int planes, int k, int s, int p, int h, int v, float* y, float* gx, unsigned char* chosen) {
    const Window window{k, s, p, h, v};
    max_pool(x, planes, window, y, chosen);
    max_pool_backward(gy, chosen, planes, window, gx);
}
void upsample_both(const float* x, const float* gy, int planes, int h, int v, float* y, float* gx) {
    upsample(x, planes, h, v, y);
    upsample_backward(gy, planes, h, v, gx);
}
}
"""
TARGETS = {"avx2": (["-mavx2", "-mfma"], 8), "baseline": ([], 4)}


@pytest.fixture(scope="module", params=TARGETS)
def library(request, tmp_path_factory):
    flags, lanes = TARGETS[request.param]
    if flags and (platform.machine() != "x86_64" or "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")):
        pytest.skip("not run: no AVX2 on this processor")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "all.cc").write_text(CODE, encoding="utf-8")
    subprocess.run(["g++", "-std=c++14", "-O2", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi", *flags, f"-I{OPERATORS}", "all.cc", "-o", "all.so"], cwd=folder, check=True)
    found = ctypes.CDLL(str(folder / "all.so"))
    assert found.lanes() == lanes
    return found


def call(function, *arguments):
    function(*(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_float(a) if isinstance(a, float) else a for a in arguments))


def drawn(*shapes):
    r = np.random.RandomState(1)
    return [r.randn(*s).astype(np.float32) for s in shapes]


def close(found, wanted):
    for a, b in zip(found, wanted):
        assert a.shape == b.shape and rms(a, b) < 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("groups", [0, 2])
def test_norm(library, groups):
    x, w, b, gy = drawn((2, 6, 7, 9), (6,), (6,), (2, 6, 7, 9))
    found = [np.zeros_like(a) for a in (x, x, w, b)]
    call(library.norm_both, x, w, b, gy, 2, 6, groups, 63, 0.1, *found)
    close(found, [norm_reference.forward(x, w, b, groups, 1e-5, 0.1)[0], *norm_reference.backward(x, w, b, gy, groups, 1e-5, 0.1)])


@pytest.mark.parametrize("window", [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 2)])
def test_window(library, window):
    k, s, p = window
    h, v = 11, 18
    out = (2, 3, (h + 2 * p - k) // s + 1, (v + 2 * p - k) // s + 1)
    x, w, gy = drawn((2, 3, h, v), (3, 1, k, k), out)
    found = [np.zeros_like(a) for a in (gy, x, w)]
    call(library.depthwise_both, x, w, gy, 2, 3, k, s, p, h, v, *found)
    close(found, [window_reference.depthwise(x, w, s, p), *window_reference.depthwise_backward(x, w, gy, s, p)])
    call(library.pool_both, x, gy, 6, k, s, p, h, v, *found[:2], np.zeros(out, np.uint8))
    close(found[:2], [window_reference.max_pool(x, k, s, p)[0], window_reference.max_pool_backward(x, gy, k, s, p)])


def test_upsample(library):
    x, gy = drawn((2, 3, 5, 9), (2, 3, 10, 18))
    found = [np.zeros_like(gy), np.zeros_like(x)]
    call(library.upsample_both, x, gy, 6, 5, 9, *found)
    close(found, [upsample_reference.upsample(x), upsample_reference.upsample_backward(gy)])

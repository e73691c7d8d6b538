"""The suppression's kernels against their twin: every edge case, 1,000 random images, repeats, order of threads."""

from __future__ import annotations

import pytest

from tests.kernels import cases, library
from tests.kernels.checks import check_nms

EDGES = cases.nms_edges()


@pytest.mark.parametrize("name", EDGES)
def test_edge(kernels, name):
    check_nms(kernels.nms(EDGES[name]), EDGES[name], cases.nms_truth(name), name)


@pytest.mark.parametrize("number", range(20))
def test_fifty_random_images(kernels, number):
    batch = cases.random_nms(number)
    check_nms(kernels.nms(batch), batch, cases.nms_truth(number), f"random batch {number}")


def test_two_hundred_repeats_are_bit_equal(kernels):
    batch = EDGES["images with and without candidates" if kernels.kind == "emulated" else "1025 candidates"]
    kernels.order(2)
    try:
        first = kernels.nms(batch)
        for _ in range(200):
            again = kernels.nms(batch)
            assert all(first[k].tobytes() == again[k].tobytes() for k in first)
    finally:
        kernels.order(0)


@pytest.mark.parametrize("order", [1, 2])
def test_order_of_threads_does_not_show(order):
    emulated = library.Kernels(library.host_library(), "emulated")
    emulated.order(order)
    try:
        for name in ("equal scores", "more than a hundred", "1025 candidates"):
            check_nms(emulated.nms(EDGES[name]), EDGES[name], cases.nms_truth(name), name)
    finally:
        emulated.order(0)

"""The assigner's kernels against their twin: every edge case, 1,000 random images, repeats, order of threads, planted faults."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tests.kernels import cases, library
from tests.kernels.checks import check_assign

EDGES = cases.assign_edges()


@pytest.mark.parametrize("name", EDGES)
def test_edge(kernels, name):
    check_assign(kernels.assign(EDGES[name]), cases.assign_truth(name), name)


@pytest.mark.parametrize("number", range(20))
def test_fifty_random_images(kernels, number):
    check_assign(kernels.assign(cases.random_assign(number)), cases.assign_truth(number), f"random batch {number}")


def test_two_hundred_repeats_are_bit_equal(kernels):
    batch = cases.random_assign(5)
    if kernels.kind == "emulated":  # an emulation has one order of its own; another is drawn every time
        batch = cases.assign_batch([(batch["logits"][i], batch["boxes"][i], batch["gt_boxes"][i], batch["gt_labels"][i]) for i in range(2)], batch["priors"])
        kernels.order(2)
    try:
        first = kernels.assign(batch)
        for _ in range(200):
            again = kernels.assign(batch)
            assert all(first[k].tobytes() == again[k].tobytes() for k in first)
    finally:
        kernels.order(0)


def test_both_forms_give_the_same_bits():
    """Costs too, which are held to the twin to their last bit only."""
    emulated, plain = (library.Kernels(library.host_library(), kind) for kind in ("emulated", "cpu"))
    for name, batch in EDGES.items():
        got, want = emulated.assign(batch), plain.assign(batch)
        assert all(got[k].tobytes() == want[k].tobytes() for k in got if k != "base"), name


def test_order_of_threads_does_not_show():
    emulated = library.Kernels(library.host_library(), "emulated")
    for number in (1, 2):
        emulated.order(number)
        try:
            check_assign(emulated.assign(EDGES["80 classes"]), cases.assign_truth("80 classes"), f"order {number}")
        finally:
            emulated.order(0)


def test_exp_and_log_of_the_kernels():
    """Costs of single priors over the whole range of logits, against double precision."""
    plain = library.Kernels(library.host_library(), "cpu")
    logits = np.concatenate([np.linspace(-120, 120, 2001), [0.0, -0.0, 1e-30, -1e-30]]).astype(np.float32)[:, None]
    priors = np.tile(np.float32([[8, 8, 8, 8]]), (len(logits), 1))
    boxes = np.tile(np.float32([[4, 4, 12, 12]]), (len(logits), 1)) * np.linspace(1, 1.4, len(logits), dtype=np.float32)[:, None]
    got = plain.assign(cases.assign_batch([(logits, boxes, np.float32([[4, 4, 12, 12]]), [0])], priors))
    x, t = logits[:, 0].astype(np.float64), got["overlap"][0, 0].astype(np.float64)
    p = 1 / (1 + np.exp(-x))
    want = (np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))) * (t - p) ** 2 - 3 * np.log(np.float32(t) + np.float32(1e-7), dtype=np.float64)
    np.testing.assert_array_max_ulp(got["cost"][0, 0], want.astype(np.float32), 1)


@pytest.mark.parametrize(("file", "old", "new", "red"), [
    ("assign_common.h", "sub(x, g[0]) > 0", "sub(x, g[0]) >= 0", "candidates"),
    ("assign_common.h", "const int k = (int)sum;", "const int k = (int)(sum + 0.5f);", "boxes"),
    ("assign_common.h", "if (cost < best)", "if (cost <= best)", "boxes"),
    ("assign.cu", "    __syncthreads();\n    const bool candidate", "    const bool candidate", "costs"),
    ("assign.cu", "for (int round = 0; round < k; round++)", "for (int round = 0; round < k - 1; round++)", "boxes"),
])
def test_a_planted_fault_is_found(tmp_path, file, old, new, red):
    """The same checks, in a process of their own, on a copy with one line changed."""
    copy = tmp_path / "kernels"
    copy.mkdir()
    for path in [*library.KERNELS.glob("*.h"), *library.KERNELS.glob("*.cu")]:
        text = path.read_text()
        if path.name == file:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (copy / path.name).write_text(text)
    command = [str(copy) if word == str(library.KERNELS) else word for word in library.host_command(tmp_path / "planted.so")]
    library.compiled(command)
    code = ("import sys\nfrom pathlib import Path\nfrom tests.kernels import cases, checks, library\n"
            "k = library.Kernels(Path(sys.argv[1]), 'emulated')\nk.order(1)\n"
            "for n, b in cases.assign_edges().items():\n    checks.check_assign(k.assign(b), cases.assign_truth(n), n)\n"
            "for n in range(4):\n    checks.check_assign(k.assign(cases.random_assign(n)), cases.assign_truth(n), str(n))\n")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "planted.so")], cwd=library.HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "AssertionError" in done.stderr and f": {red}" in done.stderr, done.stderr

"""The kernels as Jittor runs them: the same answers as the twins, on the CPU and on a GPU, and what the launchers refuse."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet import runtime_cuda
from jt_nanodet.errors import UserError
from tests.kernels import cases
from tests.kernels.checks import check_assign, check_nms

pytestmark = pytest.mark.jittor
F = np.float32


@pytest.fixture(scope="module")
def launch(jittor):
    """assign(batch) and nms(batch) through Jittor, as NumPy arrays by name."""
    from jt_nanodet.kernels import assign, nms

    def run_assign(batch):
        found = assign.assign_batch(jittor.array(batch["logits"]), jittor.array(batch["boxes"]), jittor.array(batch["priors"]), batch["gt_boxes"],
                                    batch["gt_labels"], batch["ignored"], **{k: batch[k] for k in ("topk", "iou_factor", "ignore_threshold", "limit")})
        return {k: v if k == "path" else v.numpy() for k, v in vars(found).items()}

    def run_nms(batch):
        found = nms.nms_batch(jittor.array(batch["boxes"]), jittor.array(batch["scores"]), batch["score"], batch["iou"], batch["most"])
        return {k: v if k == "path" else v.numpy() for k, v in vars(found).items()}

    return run_assign, run_nms


def test_assign_on_every_edge(launch):
    for name, batch in cases.assign_edges().items():
        out = launch[0](batch)
        assert out["path"] == "cpu"
        check_assign(out, cases.assign_truth(name), name)


def test_nms_on_every_edge(launch):
    for name, batch in cases.nms_edges().items():
        out = launch[1](batch)
        assert out["path"] == "cpu"
        check_nms(out, batch, cases.nms_truth(name), name)


@pytest.mark.parametrize(("change", "message"), [
    (dict(logits=np.zeros((2, 5), F)), r"logits must have shape \(any, any, any\), not \(2, 5\)"),
    (dict(logits=np.zeros((1, 5, 2), np.int32)), "logits must be float32, not int32"),
    (dict(boxes=np.zeros((1, 4, 4), F)), r"boxes must have shape \(1, 5, 4\)"),
    (dict(priors=np.zeros((5, 2), F)), r"priors must have shape \(5, 4\)"),
    (dict(gt_boxes=[]), "are of 0, 1 and 1 images"),
    (dict(gt_boxes=[np.zeros((0, 4), F)] * 2, gt_labels=[[]] * 2, ignored=[np.zeros((0, 4), F)] * 2), r"gt_boxes must have shape \(1, any, 4\)"),
    (dict(gt_labels=[np.zeros(2, int)]), "another number of gt_boxes than of gt_labels"),
    (dict(gt_boxes=[np.zeros((1001, 4), F)], gt_labels=[np.zeros(1001, int)]), "at most 1000"),
    (dict(topk=0), "nothing to assign"),
])
def test_assign_refuses(launch, change, message):
    whole = cases.assign_batch([(np.zeros((5, 2), F), np.zeros((5, 4), F), np.zeros((1, 4), F), [0])], np.ones((5, 4), F))
    with pytest.raises(ValueError, match=message):
        launch[0]({**whole, **change})


@pytest.mark.parametrize(("change", "message"), [
    (dict(scores=np.zeros((1, 5), F)), "scores must have shape"),
    (dict(boxes=np.zeros((1, 5, 4), np.int32)), "boxes must be float32, not int32"),
    (dict(boxes=np.zeros((2, 5, 4), F)), r"boxes must have shape \(1, 5, 4\)"),
    (dict(most=0), "at most 0 detections"),
])
def test_nms_refuses(launch, change, message):
    with pytest.raises(ValueError, match=message):
        launch[1]({"boxes": np.zeros((1, 5, 4), F), "scores": np.zeros((1, 5, 2), F), "score": 0.05, "iou": 0.6, "most": 100, **change})


def test_arrays_are_refused(jittor):
    from jt_nanodet.kernels import nms

    with pytest.raises(ValueError, match="scores must be a jittor.Var, not ndarray"):
        nms.nms_batch(np.zeros((1, 5, 4), F), np.zeros((1, 5, 2), F), 0.05, 0.6, 100)


CUDA = """
import numpy as np
from jt_nanodet import runtime
runtime.setup("cuda")
import jittor as jt
from jt_nanodet.kernels import assign, nms
from tests.kernels import cases
from tests.kernels.checks import check_assign, check_nms
for name, b in [*cases.assign_edges().items(), *((n, cases.random_assign(n)) for n in range(20))]:
    found = assign.assign_batch(jt.array(b["logits"]), jt.array(b["boxes"]), jt.array(b["priors"]), b["gt_boxes"], b["gt_labels"], b["ignored"],
                                **{k: b[k] for k in ("topk", "iou_factor", "ignore_threshold", "limit")})
    assert found.path == "cuda"
    check_assign({k: v if k == "path" else v.numpy() for k, v in vars(found).items()}, cases.assign_truth(name), str(name))
for name, b in [*cases.nms_edges().items(), *((n, cases.random_nms(n)) for n in range(20))]:
    found = nms.nms_batch(jt.array(b["boxes"]), jt.array(b["scores"]), b["score"], b["iou"], b["most"])
    assert found.path == "cuda"
    check_nms({k: v if k == "path" else v.numpy() for k, v in vars(found).items()}, b, cases.nms_truth(name), str(name))
print("equal on the GPU")
"""


@pytest.mark.cuda
def test_on_a_gpu():
    """In a process of its own: Jittor serves one device a process."""
    import subprocess
    import sys

    from tests.kernels import library

    try:
        runtime_cuda.find_gpu()
    except UserError:
        pytest.skip("not run: no NVIDIA GPU")
    done = subprocess.run([sys.executable, "-c", CUDA], cwd=library.HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "equal on the GPU" in done.stdout, done.stderr[-4000:]

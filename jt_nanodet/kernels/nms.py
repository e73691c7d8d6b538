"""Launches filter and suppression: a whole batch in one operation, on the GPU (`nms.cu`) or the CPU (`nms_cpu.h`)."""
from dataclasses import dataclass

import jittor as jt

from .source import exact, include, path_taken, require

CALL = """
    jt_kernels::NmsArguments a = {
        in0_p, in1_p, out0_p, out1_p, out2_p, out3_p, (uint32_t*)out4_p, (uint64_t*)out5_p, (int)in1_shape0, (int)in1_shape1, (int)in1_shape2,
        (int)out1_shape1, (float)data["score"], data["iou"]};
"""


@dataclass
class BatchDetections:
    """What the kernels wrote, as Vars; B images, M detections at most. `path`: "cuda" or "cpu".

    detections (B, M, 5): x1, y1, x2, y2, score, best first, 0 after the last; kept (B, M) int32: prior · C + class, -1 after the last;
    count (B,) int32; candidates (B,) int32: how many scores passed the threshold.
    """

    detections: jt.Var
    kept: jt.Var
    count: jt.Var
    candidates: jt.Var
    path: str


def nms_batch(boxes, scores, score_threshold, iou_threshold, max_detections):
    """BatchDetections of float32 Vars boxes (B, P, 4) and scores (B, P, C). Nothing waits for the device.

    Raises ValueError for another dtype, rank or size.
    """
    require("scores", scores, "float32", (None, None, None))
    images, count, classes = scores.shape
    require("boxes", boxes, "float32", (images, count, 4))
    if min(scores.shape) < 1 or max_detections < 1:
        raise ValueError(f"nothing to suppress: scores {tuple(scores.shape)}, at most {max_detections} detections")
    if count * classes >= 2**31:
        raise ValueError(f"{count} priors times {classes} classes do not fit into 31 bits")
    shapes = [(images, max_detections, 5), (images, max_detections), (images,), (images,), (images,), (images, count * classes)]
    kinds = ["float32", "int32", "int32", "int32", "int32", "int64"]
    numbers = {"score": float(score_threshold), "iou": float(iou_threshold)}
    with exact():
        out = jt.code(shapes, kinds, [boxes, scores], data=numbers, cpu_header=include("nms_cpu.h"), cpu_src=CALL + "jt_kernels::nms_cpu(a);",
                      cuda_header=include("nms.cu"), cuda_src=CALL + "jt_kernels::nms_cuda(a, 0);")
    return BatchDetections(*out[:4], path_taken())

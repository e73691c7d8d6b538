"""Launches the assigner's kernels: a whole padded batch in one operation, on the GPU (`assign.cu`) or the CPU (`assign_cpu.h`)."""
from dataclasses import dataclass

import jittor as jt
import numpy as np

from .source import exact, include, path_taken, require

MOST_BOXES = 1000  # what fits into the packed word of `chosen`
CALL = """
    jt_kernels::AssignArguments a = {
        in0_p, in1_p, in2_p, in3_p, in4_p, in5_p, in6_p, in7_p, out0_p, out1_p, out2_p, out3_p, out4_p, out5_p, out6_p, out7_p, out8_p,
        out9_p, out10_p, out11_p, out12_p, out13_p, (int)in0_shape0, (int)in0_shape1, (int)in3_shape1, (int)in0_shape2, (int)in6_shape1,
        (int)data["topk"], data["factor"], (float)data["ignore"], (float)data["limit"]};
"""


@dataclass
class BatchAssignment:
    """What the kernels wrote, as Vars; B images, P priors, G box places, C classes. `path`: "cuda" or "cpu".

    gt_index (B, P) int32: 1-based, 0 background, -1 not trained on; iou (B, P) with that box; label (B, P) int32, C where none; quality
    (B, P); weight (B, P); target (B, P, 4) boxes; distance (B, P, 4) in strides; candidate (B, P) int32; topk_sum (B, G); cost and
    overlap (B, G, P), written for candidates and the boxes there are; valid (B,) int32, their number.
    """

    gt_index: jt.Var
    iou: jt.Var
    label: jt.Var
    quality: jt.Var
    weight: jt.Var
    target: jt.Var
    distance: jt.Var
    candidate: jt.Var
    topk_sum: jt.Var
    cost: jt.Var
    overlap: jt.Var
    valid: jt.Var
    path: str


def padded(rows, width, dtype):
    """Arrays (n_i, width), or (n_i,) for width 0, as one (B, max n_i or 1, width) and the numbers (B,) int32; NumPy."""
    most = max([1, *map(len, rows)])
    whole = np.zeros((len(rows), most, width) if width else (len(rows), most), dtype)
    for i, row in enumerate(rows):
        whole[i, :len(row)] = row
    return whole, np.array([len(row) for row in rows], np.int32)


@dataclass
class PlacedBoxes:
    """Boxes of a batch as Vars, padded: boxes (B, G, 4) float32, labels (B, G) int32, count (B,) int32, ignored (B, I, 4), ignored_count (B,)."""

    boxes: jt.Var
    labels: jt.Var
    count: jt.Var
    ignored: jt.Var
    ignored_count: jt.Var

    def vars(self):
        """In the order the kernels take them."""
        return [self.boxes, self.labels, self.count, self.ignored, self.ignored_count]


def place_boxes(gt_boxes, gt_labels, ignored):
    """PlacedBoxes of lists of B NumPy arrays: gt_boxes (G_i, 4), gt_labels (G_i,), ignored (I_i, 4).

    Raises ValueError where the lists do not fit together, and for more than 1000 boxes in an image.
    """
    if not len(gt_boxes) == len(gt_labels) == len(ignored):
        raise ValueError(f"gt_boxes, gt_labels and ignored are of {len(gt_boxes)}, {len(gt_labels)} and {len(ignored)} images")
    if any(len(b) != len(x) for b, x in zip(gt_boxes, gt_labels)):
        raise ValueError("an image has another number of gt_boxes than of gt_labels")
    if max([0, *map(len, gt_boxes)]) > MOST_BOXES:
        raise ValueError(f"an image has {max(map(len, gt_boxes))} boxes: at most {MOST_BOXES} can be assigned")
    gts, gt_count = padded(gt_boxes, 4, np.float32)
    labels, _ = padded(gt_labels, 0, np.int32)
    held, held_count = padded(ignored, 4, np.float32)
    return PlacedBoxes(*map(jt.array, (gts, labels, gt_count, held, held_count)))


def launch(logits, boxes, priors, placed, *, topk, iou_factor, ignore_threshold, limit):
    """A BatchAssignment. float32 Vars: logits (B, P, C), boxes (B, P, 4), priors (P, 4); placed: PlacedBoxes of B images; limit: upper end of
    a distance, in strides. Nothing waits for the device.

    Raises ValueError for another dtype, rank or size.
    """
    require("logits", logits, "float32", (None, None, None))
    images, count, classes = logits.shape
    require("boxes", boxes, "float32", (images, count, 4))
    require("priors", priors, "float32", (count, 4))
    require("gt_boxes", placed.boxes, "float32", (images, None, 4))
    if topk < 1 or min(logits.shape) < 1:
        raise ValueError(f"nothing to assign: topk {topk}, logits {tuple(logits.shape)}")
    places = placed.boxes.shape[1]
    shapes = [(images, count)] * 5 + [(images, count, 4)] * 2 + [(images, count), (images, places)]
    shapes += [(images, places, count)] * 2 + [(images, count)] * 2 + [(images,)]
    kinds = ["int32", "float32", "int32"] + ["float32"] * 4 + ["int32"] + ["float32"] * 3 + ["float64", "int32", "int32"]
    numbers = {"topk": topk, "factor": float(iou_factor), "ignore": float(ignore_threshold), "limit": float(limit)}
    with exact():
        out = jt.code(shapes, kinds, [logits, boxes, priors, *placed.vars()], data=numbers,
                      cpu_header=include("assign_cpu.h"), cpu_src=CALL + "jt_kernels::assign_cpu(a);",
                      cuda_header=include("assign.cu"), cuda_src=CALL + "jt_kernels::assign_cuda(a, 0);")
    return BatchAssignment(*out[:11], out[13], path_taken())


def assign_batch(logits, boxes, priors, gt_boxes, gt_labels, ignored, **settings):
    """`launch` on boxes that are still lists of NumPy arrays, as for `place_boxes`."""
    return launch(logits, boxes, priors, place_boxes(gt_boxes, gt_labels, ignored), **settings)

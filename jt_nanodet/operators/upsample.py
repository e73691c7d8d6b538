"""Bilinear interpolation to twice the size (upsample.h; twin: upsample_reference.py)."""
import jittor as jt

from .native import call


class Upsample(jt.Function):
    def execute(self, x):
        self.shape = x.shape
        b, c, h, w = x.shape
        return call(("upsample.h",), "upsample(in0_p, in0_shape0 * in0_shape1, in0_shape2, in0_shape3, out0_p);", [x], [[b, c, 2 * h, 2 * w]])[0]

    def grad(self, gy):
        return call(("upsample.h",), "upsample_backward(in0_p, in0_shape0 * in0_shape1, in0_shape2 / 2, in0_shape3 / 2, out0_p);", [gy], [self.shape])[0]


def upsample(x):
    """(B, C, 2H, 2W) of x (B, C, H, W), corners not aligned."""
    return Upsample()(x)

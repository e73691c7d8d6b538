"""Depthwise convolution and max-pooling (planes.h, depthwise.h, max_pool.h; twin: window_reference.py)."""
import jittor as jt

from .native import call

WINDOW = 'const Window w{int(data["kernel"]), int(data["stride"]), int(data["padding"]), int(data["height"]), int(data["width"])};\n'


class Window:
    """Square kernel, one stride and one padding, over planes of height × width."""

    def __init__(self, kernel, stride, padding, shape):
        self.numbers = {"kernel": kernel, "stride": stride, "padding": padding, "height": shape[2], "width": shape[3]}
        self.output = [shape[0], shape[1], *((n + 2 * padding - kernel) // stride + 1 for n in shape[2:])]


class Depthwise(jt.Function):
    """x (B, C, H, W) with weight (C, 1, K, K)."""

    def __init__(self, stride, padding):
        self.stride, self.padding = stride, padding

    def execute(self, x, weight):
        self.saved, self.window = (x, weight), Window(weight.shape[2], self.stride, self.padding, x.shape)
        return call(("planes.h", "depthwise.h"), WINDOW + "depthwise(in0_p, in1_p, in0_shape0, in0_shape1, w, out0_p);",
                    [x, weight], [self.window.output], **self.window.numbers)[0]

    def grad(self, gy):
        x, weight = self.saved
        return call(("planes.h", "depthwise.h"), WINDOW + "depthwise_backward(in0_p, in1_p, in2_p, in0_shape0, in0_shape1, w, out0_p, out1_p);",
                    [x, weight, gy], [x.shape, weight.shape], **self.window.numbers)


class MaxPool(jt.Function):
    """x (B, C, H, W). A window of nothing but -inf hands its gradient to nobody."""

    def __init__(self, kernel, stride, padding):
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def execute(self, x):
        self.shape, self.window = x.shape, Window(self.kernel, self.stride, self.padding, x.shape)
        y, self.chosen = call(("planes.h", "max_pool.h"), WINDOW + "max_pool(in0_p, in0_shape0 * in0_shape1, w, out0_p, out1_p);",
                              [x], [self.window.output] * 2, ["float32", "uint8"], **self.window.numbers)
        return y

    def grad(self, gy):
        return call(("planes.h", "max_pool.h"), WINDOW + "max_pool_backward(in0_p, in1_p, in0_shape0 * in0_shape1, w, out0_p);",
                    [gy, self.chosen], [self.shape], **self.window.numbers)[0]


def square(*pairs):
    """Whether every one of these (height, width) settings is the same both ways."""
    return all(pair[0] == pair[1] for pair in pairs)


def depthwise(x, weight, stride, padding):
    """(B, C, H', W') of x (B, C, H, W) with weight (C, 1, K, K)."""
    return Depthwise(stride, padding)(x, weight)


def max_pool(x, kernel, stride, padding):
    """(B, C, H', W') of x (B, C, H, W)."""
    return MaxPool(kernel, stride, padding)(x)

"""Batch and group normalisation in training, with the activation that follows (norm.h; twin: norm_reference.py).

The activation is a module of its own and stays one: it asks `followed_by` whether its input is what a normalisation has just given.
If so, both are computed in one pass from the input of the normalisation, with the same bits, and the normalisation's own output is
computed only if somebody else looks at it. `join(False)` keeps the two apart, for those who want the gradient between them.
"""
import jittor as jt

from .native import call

FILES = ("norm.h",)
LAYOUT = ("const Layout at{int(in0_shape0), int(in0_shape1), int(data[\"groups\"]), size_t(in0_shape2) * in0_shape3};\n"
          "const float slope = float(data[\"slope\"]);\n")

#: (output of the last normalisation, the arguments that made it)
_last = None
_joined = True


def join(wanted):
    """Compute an activation in one pass with its normalisation, or apart; returns what it was before."""
    global _joined
    before, _joined = _joined, wanted
    return before


class Normalise(jt.Function):
    """groups: 0 for BatchNorm; slope: of the activation left of 0, 1 for none."""

    def __init__(self, groups, slope):
        self.groups, self.slope = groups, slope

    def execute(self, x, weight, bias, mean, inverse):
        self.saved = x, weight, bias, mean, inverse
        return call(FILES, LAYOUT + "normalise(in0_p, in1_p, in2_p, in3_p, in4_p, at, slope, out0_p);",
                    list(self.saved), [x.shape], groups=self.groups, slope=self.slope)[0]

    def grad(self, gy):
        x, weight, bias, mean, inverse = self.saved
        gx, gw, gb = call(FILES, LAYOUT + "normalise_backward(in0_p, in1_p, in2_p, in3_p, in4_p, in5_p, at, slope, out0_p, out1_p, out2_p);",
                          [x, gy, weight, bias, mean, inverse], [x.shape, weight.shape, bias.shape], groups=self.groups, slope=self.slope)
        return gx, gw, gb, None, None


def batch_norm(x, weight, bias, running_mean, running_var, count, eps, momentum):
    """(y, new running mean, new running variance, count + 1): x (B, C, H, W), the others (C,), count (1,) int32.

    Normalised with the biased variance; the running one takes the unbiased, as PyTorch's does.
    """
    c = weight.shape
    mean, inverse, new_mean, new_var, new_count = call(
        FILES, LAYOUT + """
        std::vector<double> variance(at.channels);
        moments(in0_p, at, data["eps"], out0_p, out1_p, variance.data());
        const double keep = 1 - data["momentum"], unbiased = at.count() / std::max(at.count() - 1, 1.0);
        for (int c = 0; c < at.channels; c++) {
            out2_p[c] = float(in1_p[c] * keep + out0_p[c] * data["momentum"]);
            out3_p[c] = float(in2_p[c] * keep + variance[c] * unbiased * data["momentum"]);
        }
        out4_p[0] = in3_p[0] + 1;
        (void)slope;
        """, [x.detach(), running_mean, running_var, count], [c, c, c, c, [1]], ["float32"] * 4 + ["int32"],
        groups=0, slope=1, eps=eps, momentum=momentum)
    return remembered(x, weight, bias, mean.stop_grad(), inverse.stop_grad(), 0), new_mean, new_var, new_count


def group_norm(x, weight, bias, groups, eps):
    """x (B, C, H, W) with weight and bias (C,): same shape."""
    sets = [x.shape[0] * groups]
    mean, inverse = call(FILES, LAYOUT + "moments(in0_p, at, data[\"eps\"], out0_p, out1_p, nullptr); (void)slope;",
                         [x.detach()], [sets, sets], groups=groups, slope=1, eps=eps)
    return remembered(x, weight, bias, mean.stop_grad(), inverse.stop_grad(), groups)


def remembered(x, weight, bias, mean, inverse, groups):
    global _last
    made_from = (x, weight, bias, mean, inverse, groups)
    y = normalised(made_from, 1.0)
    _last = (y, made_from)
    return y


def normalised(made_from, slope):
    *tensors, groups = made_from
    return Normalise(groups, slope)(*tensors)


def followed_by(y, slope):
    """The leaky activation of `y` where `y` is the very output of the last normalisation, else None."""
    global _last
    if not _joined or _last is None or _last[0] is not y:
        return None
    made_from = _last[1]
    _last = None  # nothing is kept alive longer than needed
    return normalised(made_from, slope)

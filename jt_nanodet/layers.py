"""Building blocks shared by backbone, neck and heads.

Shapes: B images, C channels, H and W cells. Attribute names are those of upstream's checkpoints
(`nanodet/model/module/{conv,activation,norm,scale}.py`, `nanodet/model/head/gfl_head.py`).
"""
import jittor as jt
from jittor import nn

from .errors import UserError, nearest

# differs: what Jittor computes slowly on the CPU, or less exactly, is done in C++ there
from .operators import norm, switch, upsample, window


class LeakyReLU(nn.Module):
    """x where positive, else x · negative_slope."""  # differs: Jittor's own hides its slope, and nobody could compare it

    def __init__(self, negative_slope):
        super().__init__()
        self.negative_slope = negative_slope

    def execute(self, x):
        y = norm.followed_by(x, self.negative_slope)
        return nn.leaky_relu(x, self.negative_slope) if y is None else y


ACTIVATIONS = {
    "ReLU": lambda: nn.ReLU(),
    "LeakyReLU": lambda: LeakyReLU(0.1),  # upstream's slope; the framework's default is 0.01  # differs: the class above
    "ReLU6": lambda: nn.ReLU6(),
    "GELU": lambda: nn.GELU(),
    "SiLU": lambda: nn.SiLU(),
}


def activation_layer(name):
    """The activation module called `name` in a configuration; raises UserError for an unknown name."""
    if name not in ACTIVATIONS:
        close = nearest(name, list(ACTIVATIONS))
        raise UserError(f"activation '{name}' is not supported: type one of {', '.join(ACTIVATIONS)}"
                        + (f" (did you mean '{close}'?)" if close else ""))
    return ACTIVATIONS[name]()


def exact_mean(x, dims):
    """Mean over `dims`, summed in float64 inside one fused loop."""
    # differs: Jittor adds float32 one after the other, which cost a GroupNorm over 1,200 values six times PyTorch's error
    return x.float64().mean(dims=dims).float32()


class BatchNorm2d(nn.Module):
    """Batch normalisation with PyTorch's statistics: (B, C, H, W), same shape out.

    # differs: Jittor's own keeps the biased variance in `running_var`, computes it as mean(x²) − mean(x)², which loses digits,
    and has no `num_batches_tracked` (two-line reproductions in docs/operators.md).
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = jt.ones(num_features)
        self.bias = jt.zeros(num_features)
        self.running_mean = jt.zeros(num_features).stop_grad()
        self.running_var = jt.ones(num_features).stop_grad()
        self.num_batches_tracked = jt.zeros(1, dtype="int32").stop_grad()

    def execute(self, x):
        mean, var = self.running_mean, self.running_var
        if self.is_training() and switch.usable(x):
            y, *new = norm.batch_norm(x, self.weight, self.bias, mean, var, self.num_batches_tracked, self.eps, self.momentum)
            for held, value in zip((mean, var, self.num_batches_tracked), new):
                held.update(value)
            return y
        if self.is_training():
            mean = exact_mean(x, [0, 2, 3])
            var = exact_mean(jt.sqr(x - mean.reshape(1, -1, 1, 1)), [0, 2, 3])
            count = x.numel() // self.num_features
            unbiased = var * (count / max(count - 1, 1))
            self.running_mean.update(self.running_mean * (1 - self.momentum) + mean.detach() * self.momentum)
            self.running_var.update(self.running_var * (1 - self.momentum) + unbiased.detach() * self.momentum)
            self.num_batches_tracked.update(self.num_batches_tracked + 1)
        scale = self.weight / jt.sqrt(var + self.eps)
        shift = self.bias - mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class GroupNorm(nn.Module):
    """Group normalisation, two-pass variance: (B, C, H, W), same shape out.

    # differs: Jittor's own computes the variance as mean(x²) − mean(x)², which loses digits.
    """

    def __init__(self, num_groups, num_channels, eps=1e-5):
        super().__init__()
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = jt.ones(num_channels)
        self.bias = jt.zeros(num_channels)

    def execute(self, x):
        if switch.usable(x):
            return norm.group_norm(x, self.weight, self.bias, self.num_groups, self.eps)
        b, c, h, w = x.shape
        groups = x.reshape(b, self.num_groups, -1)
        centred = groups - exact_mean(groups, [2]).unsqueeze(2)
        var = exact_mean(jt.sqr(centred), [2]).unsqueeze(2)
        normal = (centred / jt.sqrt(var + self.eps)).reshape(b, c, h, w)
        return normal * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


class Conv2d(nn.Conv2d):
    """Convolution; the depthwise ones have an operator of their own."""  # differs: PyTorch's is fast enough to be compared with

    def execute(self, x):
        own = self.is_depthwise_conv and switch.usable(x, self.weight) and tuple(self.dilation) == (1, 1)
        if not (own and window.square(self.kernel_size, self.stride, self.padding)):
            return super().execute(x)
        y = window.depthwise(x, self.weight, self.stride[0], self.padding[0])
        return y if self.bias is None else y + self.bias.reshape(1, -1, 1, 1)


class MaxPool2d(nn.MaxPool2d):
    """Max-pooling, padded with −∞."""  # differs: as above

    def execute(self, x):
        pool = self._layer
        if pool.ceil_mode or pool.return_indices or not (switch.usable(x) and window.square(pool.kernel_size, pool.stride, pool.padding)):
            return super().execute(x)
        return window.max_pool(x, pool.kernel_size[0], pool.stride[0], pool.padding[0])


class Upsample(nn.Upsample):
    """Interpolation; the bilinear one to twice the size has an operator of its own."""  # differs: as above

    def execute(self, x):
        own = self.mode == "bilinear" and self.scale_factor in (2, (2, 2)) and not self.align_corners and switch.usable(x)
        return upsample.upsample(x) if own else super().execute(x)


def norm_layer(norm_cfg, channels):
    """(attribute name, module) for a NormConfig: `bn` or `gn`, as upstream's `build_norm_layer` names them."""
    if norm_cfg.type == "BN":
        return "bn", BatchNorm2d(channels, eps=norm_cfg.eps)
    if norm_cfg.type == "GN":
        return "gn", GroupNorm(norm_cfg.num_groups, channels, eps=norm_cfg.eps)
    raise UserError(f"norm_cfg.type '{norm_cfg.type}' is not supported: type BN or GN")


class ConvModule(nn.Module):
    """Convolution, normalisation, activation: (B, C, H, W) to (B, out_channels, H', W')."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, norm_cfg=None, activation="ReLU"):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=norm_cfg is None)
        self.norm_name = None
        if norm_cfg is not None:
            self.norm_name, norm = norm_layer(norm_cfg, out_channels)
            setattr(self, self.norm_name, norm)
        self.act = activation_layer(activation)

    def execute(self, x):
        x = self.conv(x)
        if self.norm_name is not None:
            x = getattr(self, self.norm_name)(x)
        return self.act(x)


class DepthwiseConvModule(nn.Module):
    """Depthwise then pointwise convolution, each with normalisation and the same activation."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, norm_cfg=None, activation="ReLU"):
        super().__init__()
        bias = norm_cfg is None
        self.depthwise = Conv2d(in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=bias)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, 1, 0, bias=bias)
        self.with_norm = norm_cfg is not None
        if self.with_norm:
            self.dwnorm = norm_layer(norm_cfg, in_channels)[1]
            self.pwnorm = norm_layer(norm_cfg, out_channels)[1]
        self.act = activation_layer(activation)

    def execute(self, x):
        x = self.depthwise(x)
        if self.with_norm:
            x = self.dwnorm(x)
        x = self.act(x)
        x = self.pointwise(x)
        if self.with_norm:
            x = self.pwnorm(x)
        return self.act(x)


class ScaleFunction(jt.Function):
    """x · scale, the gradient of the factor summed in float64."""
    # differs: Jittor would sum it in float32, one after the other: 20 times PyTorch's error over 12,800 elements

    def execute(self, x, scale):
        self.saved = x, scale
        return x * scale

    def grad(self, gradient):
        x, scale = self.saved
        return gradient * scale, (gradient.float64() * x.float64()).sum().cast(scale.dtype).reshape(scale.shape)


class Scale(nn.Module):
    """One learnable factor."""  # differs: (1,) where PyTorch has a 0-d parameter

    def __init__(self):
        super().__init__()
        self.scale = jt.ones(1)  # differs: Jittor has no 0-d Var; `state_arrays` gives it shape () again

    def execute(self, x):
        return ScaleFunction.apply(x, self.scale)  # differs: as said there


class Integral(nn.Module):
    """Expected value of four discrete distributions over 0 … reg_max (Generalized Focal Loss, arXiv:2006.04388).

    (…, 4·(reg_max+1)) logits to (…, 4) distances in units of the level's stride.
    """

    def __init__(self, reg_max):
        super().__init__()
        self.reg_max = reg_max
        self.project = jt.arange(reg_max + 1).float32().stop_grad()  # differs: a Var without gradient is a buffer

    def execute(self, x):
        shape = list(x.shape[:-1])
        x = nn.softmax(x.reshape(shape + [4, self.reg_max + 1]), dim=-1)
        return (x * self.project).sum(dim=-1).reshape(shape + [4])  # differs: no matmul of one row


def channel_shuffle(x, groups):
    """Interleave `groups` blocks of channels (ShuffleNet, arXiv:1707.01083): (B, C, H, W), same shape out."""
    b, c, h, w = x.shape
    return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)

"""Building blocks shared by backbone, neck and heads.

Shapes: B images, C channels, H and W cells. Attribute names are those of upstream's checkpoints
(`nanodet/model/module/{conv,activation,norm,scale}.py`, `nanodet/model/head/gfl_head.py`).
"""
import torch
from torch import nn
from torch.nn import functional as F

from jt_nanodet.errors import UserError, nearest

ACTIVATIONS = {
    "ReLU": lambda: nn.ReLU(),
    "LeakyReLU": lambda: nn.LeakyReLU(0.1),  # upstream's slope; the framework's default is 0.01
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


BatchNorm2d = nn.BatchNorm2d
GroupNorm = nn.GroupNorm
Conv2d = nn.Conv2d
MaxPool2d = nn.MaxPool2d
Upsample = nn.Upsample


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

    def forward(self, x):
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

    def forward(self, x):
        x = self.depthwise(x)
        if self.with_norm:
            x = self.dwnorm(x)
        x = self.act(x)
        x = self.pointwise(x)
        if self.with_norm:
            x = self.pwnorm(x)
        return self.act(x)


class Scale(nn.Module):
    """One learnable factor, a 0-d parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.scale


class Integral(nn.Module):
    """Expected value of four discrete distributions over 0 … reg_max (Generalized Focal Loss, arXiv:2006.04388).

    (…, 4·(reg_max+1)) logits to (…, 4) distances in units of the level's stride.
    """

    def __init__(self, reg_max):
        super().__init__()
        self.reg_max = reg_max
        self.register_buffer("project", torch.arange(reg_max + 1).float())

    def forward(self, x):
        shape = list(x.shape[:-1])
        x = F.softmax(x.reshape(shape + [4, self.reg_max + 1]), dim=-1)
        return F.linear(x, self.project.type_as(x)).reshape(shape + [4])


def channel_shuffle(x, groups):
    """Interleave `groups` blocks of channels (ShuffleNet, arXiv:1707.01083): (B, C, H, W), same shape out."""
    b, c, h, w = x.shape
    return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)

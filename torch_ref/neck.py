"""GhostPAN, as `nanodet/model/fpn/ghost_pan.py` builds it from ghost bottlenecks (GhostNet, arXiv:1911.11907).

Feature maps of strides 8, 16, 32 in, the same and `num_extra_level` coarser ones out, each with `out_channels` channels.
"""
import math

import torch
from torch import nn

from .layers import BatchNorm2d, Conv2d, ConvModule, DepthwiseConvModule, Upsample, activation_layer


class GhostModule(nn.Module):
    """Half the channels from a 1×1 convolution, the other half from a cheap depthwise 3×3 of the first half."""

    def __init__(self, in_channels, out_channels, activation):
        super().__init__()
        primary = math.ceil(out_channels / 2)
        self.primary_conv = nn.Sequential(
            nn.Conv2d(in_channels, primary, 1, 1, 0, bias=False),
            BatchNorm2d(primary),
            activation_layer(activation) if activation else nn.Sequential(),
        )
        self.cheap_operation = nn.Sequential(
            Conv2d(primary, primary, 3, 1, 1, groups=primary, bias=False),
            BatchNorm2d(primary),
            activation_layer(activation) if activation else nn.Sequential(),
        )

    def forward(self, x):
        primary = self.primary_conv(x)
        return torch.cat((primary, self.cheap_operation(primary)), dim=1)


class GhostBottleneck(nn.Module):
    """Two ghost modules and a shortcut; stride 1 and no squeeze-and-excitation, the only form GhostPAN uses."""

    def __init__(self, in_channels, mid_channels, out_channels, kernel_size, activation):
        super().__init__()
        self.ghost1 = GhostModule(in_channels, mid_channels, activation)
        self.ghost2 = GhostModule(mid_channels, out_channels, None)
        if in_channels == out_channels:
            self.shortcut = nn.Sequential()
        else:
            self.shortcut = nn.Sequential(
                Conv2d(in_channels, in_channels, kernel_size, 1, (kernel_size - 1) // 2, groups=in_channels, bias=False),
                BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, out_channels, 1, 1, 0, bias=False),
                BatchNorm2d(out_channels),
            )

    def forward(self, x):
        return self.ghost2(self.ghost1(x)) + self.shortcut(x)


class GhostBlocks(nn.Module):
    """`num_blocks` ghost bottlenecks, with a 1×1 residual where `use_res` asks for it."""

    def __init__(self, in_channels, cfg):
        super().__init__()
        self.use_res = cfg.use_res
        if cfg.use_res:
            self.reduce_conv = ConvModule(in_channels, cfg.out_channels, 1, activation=cfg.activation)
        # every block takes `in_channels`, as upstream does: more than one block needs in_channels == out_channels
        self.blocks = nn.Sequential(*[
            GhostBottleneck(in_channels, int(cfg.out_channels * cfg.expand), cfg.out_channels, cfg.kernel_size, cfg.activation)
            for _ in range(cfg.num_blocks)
        ])

    def forward(self, x):
        out = self.blocks(x)
        return out + self.reduce_conv(x) if self.use_res else out


class GhostPAN(nn.Module):
    """cfg: FpnConfig. Top-down, then bottom-up path, then extra levels from the coarsest input and output."""

    def __init__(self, cfg):
        super().__init__()
        self.levels = len(cfg.in_channels)
        conv = DepthwiseConvModule if cfg.use_depthwise else ConvModule

        def downsample():
            return conv(cfg.out_channels, cfg.out_channels, cfg.kernel_size, 2, cfg.kernel_size // 2, cfg.norm_cfg, cfg.activation)

        self.upsample = Upsample(scale_factor=cfg.upsample_cfg.scale_factor, mode=cfg.upsample_cfg.mode)
        self.reduce_layers = nn.ModuleList([
            ConvModule(channels, cfg.out_channels, 1, norm_cfg=cfg.norm_cfg, activation=cfg.activation)
            for channels in cfg.in_channels
        ])
        steps = range(self.levels - 1)
        self.top_down_blocks = nn.ModuleList([GhostBlocks(cfg.out_channels * 2, cfg) for _ in steps])
        self.downsamples = nn.ModuleList([downsample() for _ in steps])
        self.bottom_up_blocks = nn.ModuleList([GhostBlocks(cfg.out_channels * 2, cfg) for _ in steps])
        self.extra_lvl_in_conv = nn.ModuleList([downsample() for _ in range(cfg.num_extra_level)])
        self.extra_lvl_out_conv = nn.ModuleList([downsample() for _ in range(cfg.num_extra_level)])

    def forward(self, features):
        reduced = [layer(x) for layer, x in zip(self.reduce_layers, features)]
        inner = [reduced[-1]]
        for i, block in enumerate(self.top_down_blocks):
            low = reduced[self.levels - 2 - i]
            inner.insert(0, block(torch.cat((self.upsample(inner[0]), low), dim=1)))
        outs = [inner[0]]
        for i, (down, block) in enumerate(zip(self.downsamples, self.bottom_up_blocks)):
            outs.append(block(torch.cat((down(outs[-1]), inner[i + 1]), dim=1)))
        for from_input, from_output in zip(self.extra_lvl_in_conv, self.extra_lvl_out_conv):
            outs.append(from_input(reduced[-1]) + from_output(outs[-1]))
        return tuple(outs)

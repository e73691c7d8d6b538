"""ShuffleNetV2 (arXiv:1807.11164), as `nanodet/model/backbone/shufflenetv2.py` builds it.

(B, 3, H, W) to one feature map per entry of `out_stages`, at strides 8, 16, 32 for stages 2, 3, 4.
"""
import jittor as jt
from jittor import nn

from .layers import BatchNorm2d, Conv2d, MaxPool2d, activation_layer, channel_shuffle

STAGE_CHANNELS = {
    "0.5x": (24, 48, 96, 192, 1024),
    "1.0x": (24, 116, 232, 464, 1024),
    "1.5x": (24, 176, 352, 704, 1024),
    "2.0x": (24, 244, 488, 976, 2048),
}
STAGE_REPEATS = (4, 8, 4)


def depthwise_conv(channels, stride):
    return Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)


def pointwise_conv(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 1, 1, 0, bias=False)


class ShuffleV2Block(nn.Module):
    """Stride 1: half the channels pass through; stride 2: both branches halve the resolution. Channels are shuffled after."""

    def __init__(self, in_channels, out_channels, stride, activation):
        super().__init__()
        self.stride = stride
        half = out_channels // 2
        if stride > 1:
            self.branch1 = nn.Sequential(
                depthwise_conv(in_channels, stride),
                BatchNorm2d(in_channels),
                pointwise_conv(in_channels, half),
                BatchNorm2d(half),
                activation_layer(activation),
            )
        else:
            self.branch1 = nn.Sequential()
        self.branch2 = nn.Sequential(
            pointwise_conv(in_channels if stride > 1 else half, half),
            BatchNorm2d(half),
            activation_layer(activation),
            depthwise_conv(half, stride),
            BatchNorm2d(half),
            pointwise_conv(half, half),
            BatchNorm2d(half),
            activation_layer(activation),
        )

    def execute(self, x):
        if self.stride == 1:
            half = x.shape[1] // 2
            out = jt.concat((x[:, :half], self.branch2(x[:, half:])), dim=1)
        else:
            out = jt.concat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    """cfg: BackboneConfig (model_size, out_stages, activation, with_last_conv)."""

    def __init__(self, cfg):
        super().__init__()
        self.out_stages = tuple(cfg.out_stages)
        channels = STAGE_CHANNELS[cfg.model_size]
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, channels[0], 3, 2, 1, bias=False),
            BatchNorm2d(channels[0]),
            activation_layer(cfg.activation),
        )
        self.maxpool = MaxPool2d(kernel_size=3, stride=2, padding=1)
        for i, repeats in enumerate(STAGE_REPEATS):
            blocks = [ShuffleV2Block(channels[i], channels[i + 1], 2, cfg.activation)]
            blocks += [ShuffleV2Block(channels[i + 1], channels[i + 1], 1, cfg.activation) for _ in range(repeats - 1)]
            setattr(self, f"stage{i + 2}", nn.Sequential(*blocks))
        if cfg.with_last_conv:
            self.stage4.add_module("conv5", nn.Sequential(
                pointwise_conv(channels[3], channels[4]),
                BatchNorm2d(channels[4]),
                activation_layer(cfg.activation),
            ))

    def execute(self, x):
        x = self.maxpool(self.conv1(x))
        outputs = []
        for stage in (2, 3, 4):
            x = getattr(self, f"stage{stage}")(x)
            if stage in self.out_stages:
                outputs.append(x)
        return tuple(outputs)

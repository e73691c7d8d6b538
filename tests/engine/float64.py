"""The detector in float64 by NumPy, layer by layer from Jittor's modules: the judge of both ways to compute it."""

from __future__ import annotations

import numpy as np


def convolve(x, conv):
    """(B, C, H, W) float64 through a convolution's weights, by its taps."""
    w, s, p, groups = conv.weight.numpy().astype(np.float64), conv.stride[0], conv.padding[0], conv.groups
    k = w.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    high, wide = (x.shape[2] - k) // s + 1, (x.shape[3] - k) // s + 1
    out = 0.0 if conv.bias is None else conv.bias.numpy().astype(np.float64).reshape(1, -1, 1, 1)
    for i in range(k):
        for j in range(k):
            part = x[:, :, i:i + s * (high - 1) + 1:s, j:j + s * (wide - 1) + 1:s]
            out = out + (part * w[:, 0, i, j].reshape(1, -1, 1, 1) if groups > 1 else np.einsum("bchw,oc->bohw", part, w[:, :, i, j], optimize=True))
    return out


def normalise(x, norm):
    gamma, beta, mean, var = (getattr(norm, k).numpy().astype(np.float64).reshape(1, -1, 1, 1) for k in ("weight", "bias", "running_mean", "running_var"))
    return (x - mean) / np.sqrt(var + norm.eps) * gamma + beta


def pool(x):
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    high, wide = (x.shape[2] - 3) // 2 + 1, (x.shape[3] - 3) // 2 + 1
    return np.max([x[:, :, i:i + 2 * high - 1:2, j:j + 2 * wide - 1:2] for i in range(3) for j in range(3)], axis=0)


def upsample(x):
    """Bilinear by 2, half-pixel centres."""
    for axis in (2, 3):
        n = x.shape[axis]
        at = np.arange(n)
        before, after = np.take(x, np.maximum(at - 1, 0), axis), np.take(x, np.minimum(at + 1, n - 1), axis)
        both = np.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), axis + 1)
        x = both.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1:])
    return x


def layer(x, module):
    from jittor import nn

    from jt_nanodet.layers import BatchNorm2d, LeakyReLU

    if isinstance(module, nn.Conv):
        return convolve(x, module)
    if isinstance(module, BatchNorm2d):
        return normalise(x, module)
    if isinstance(module, LeakyReLU):
        return np.where(x > 0, x, x * module.negative_slope)
    if isinstance(module, nn.Sequential):
        for one in module.layers.values():
            x = layer(x, one)
        return x
    raise AssertionError(f"no float64 twin of {type(module).__name__}")


def separable(x, m):
    """A DepthwiseConvModule, or a ConvModule."""
    if hasattr(m, "depthwise"):
        x = layer(normalise(convolve(x, m.depthwise), m.dwnorm), m.act)
        return layer(normalise(convolve(x, m.pointwise), m.pwnorm), m.act)
    return layer(normalise(convolve(x, m.conv), m.bn), m.act)


def block(x, m):
    half = x.shape[1] // 2
    parts = (x[:, :half], layer(x[:, half:], m.branch2)) if m.stride == 1 else (layer(x, m.branch1), layer(x, m.branch2))
    x = np.stack(parts, 2)  # interleaved
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def ghosts(x, m):
    for b in m.blocks.layers.values():
        out = x
        for g in (b.ghost1, b.ghost2):
            first = layer(out, g.primary_conv)
            out = np.concatenate((first, layer(first, g.cheap_operation)), 1)
        x = out + layer(x, b.shortcut)
    return x


def forward(model, images):
    """Raw predictions (B, P, outputs) float64 of images (B, 3, H, W)."""
    net, fpn, head = model.backbone, model.fpn, model.head
    x, features = pool(layer(images.astype(np.float64), net.conv1)), []
    for stage in (net.stage2, net.stage3, net.stage4):
        for b in stage.layers.values():
            x = block(x, b)
        features.append(x)
    reduced = [separable(f, m) for f, m in zip(features, fpn.reduce_layers)]
    inner = [reduced[-1]]
    for i, m in enumerate(fpn.top_down_blocks):
        inner.insert(0, ghosts(np.concatenate((upsample(inner[0]), reduced[1 - i]), 1), m))
    outs = [inner[0]]
    for i, m in enumerate(fpn.bottom_up_blocks):
        outs.append(ghosts(np.concatenate((separable(outs[-1], fpn.downsamples[i]), inner[i + 1]), 1), m))
    outs.append(separable(reduced[-1], fpn.extra_lvl_in_conv[0]) + separable(outs[-1], fpn.extra_lvl_out_conv[0]))
    rows = []
    for x, tower, last in zip(outs, head.cls_convs, head.gfl_cls):
        for m in tower:
            x = separable(x, m)
        x = convolve(x, last)
        rows.append(x.reshape(*x.shape[:2], -1))
    return np.concatenate(rows, 2).transpose(0, 2, 1)

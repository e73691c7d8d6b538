"""A NanoDetPlus, module by module, to a plan. What the engine has no kernel for raises Unsupported with a sentence."""

from __future__ import annotations

import numpy as np
from jittor import nn

from jt_nanodet.backbone import ShuffleNetV2, ShuffleV2Block
from jt_nanodet.decode import center_priors
from jt_nanodet.engine.fold import fold
from jt_nanodet.engine.plan import Activation, Plan, Plane, Step
from jt_nanodet.head import NanoDetPlusHead
from jt_nanodet.layers import BatchNorm2d, ConvModule, DepthwiseConvModule, LeakyReLU
from jt_nanodet.neck import GhostPAN

#: The first kernel computes its channels in blocks of so many.
STEM_BLOCK = 12

Planes = tuple[Plane, ...]


class Unsupported(Exception):
    """The engine has no kernel for a layer; the message names it."""


class Unit:
    """A convolution with what follows it: normalisation, activation; `path` is the convolution's."""

    def __init__(self, path: str, conv: nn.Module):
        self.path, self.conv, self.norm, self.activation = path, conv, None, None

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        norm = None
        if self.norm is not None:
            norm = {k: getattr(self.norm, k).numpy() for k in ("weight", "bias", "running_mean", "running_var")}
        bias = None if self.conv.bias is None else self.conv.bias.numpy()
        return fold(self.conv.weight.numpy(), bias, norm, getattr(self.norm, "eps", 0.0))


def units(path: str, parts: list[tuple[str, nn.Module]]) -> list[Unit]:
    """The units of layers in order; parts: (name, layer)."""
    found: list[Unit] = []
    for name, layer in parts:
        where = f"{path}.{name}"
        if isinstance(layer, nn.Conv):
            found.append(Unit(where, layer))
        elif isinstance(layer, BatchNorm2d) and found and found[-1].norm is None and found[-1].activation is None:
            found[-1].norm = layer
        elif isinstance(layer, nn.Sequential) and not layer.layers:
            continue  # "no activation" and "no shortcut" are empty sequences
        elif found and found[-1].activation is None:
            found[-1].activation = activation(where, layer)
        else:
            raise Unsupported(f"{where} is a {type(layer).__name__} where the engine expects a convolution")
    return found


def activation(path: str, layer: nn.Module) -> Activation:
    if isinstance(layer, LeakyReLU) and 0 <= layer.negative_slope <= 1:
        return Activation("LeakyReLU", layer.negative_slope)
    if isinstance(layer, nn.ReLU):
        return Activation("ReLU", 0.0)
    if isinstance(layer, nn.ReLU6):
        return Activation("ReLU6", 0.0, 6.0)
    raise Unsupported(f"{path} is a {type(layer).__name__}, which the engine does not know")


def of_sequence(path: str, sequence: nn.Module) -> list[Unit]:
    return units(path, [(str(k), v) for k, v in sequence.layers.items()])


def of_conv_module(path: str, module: nn.Module) -> list[Unit]:
    """The units of a ConvModule or DepthwiseConvModule."""
    if isinstance(module, ConvModule):
        norm = [(module.norm_name, getattr(module, module.norm_name))] if module.norm_name else []
        return units(path, [("conv", module.conv), *norm, ("act", module.act)])
    if isinstance(module, DepthwiseConvModule):
        first, second = ([("dwnorm", module.dwnorm)], [("pwnorm", module.pwnorm)]) if module.with_norm else ([], [])
        return units(path, [("depthwise", module.depthwise), *first, ("act", module.act), ("pointwise", module.pointwise), *second, ("act", module.act)])
    raise Unsupported(f"{path} is a {type(module).__name__}, which the engine does not know")


class Builder:
    """Adds steps to a plan. A value is (planes, height, width)."""

    def __init__(self, height: int, width: int):
        self.plan = Plan(height, width)

    def conv(self, x: tuple, unit: Unit, residual: Planes = ()) -> tuple:
        planes, height, width = x
        c = unit.conv
        weight, bias = unit.folded()
        kernel, stride, padding, groups = tuple(c.kernel_size), tuple(c.stride), tuple(c.padding), c.groups
        same = all(len(set(v)) == 1 for v in (kernel, stride, padding)) and set(_pair(c.dilation)) == {1}
        k, s = kernel[0], stride[0]
        if same and k == 1 and s == 1 and padding[0] == 0 and groups == 1:
            kind = "pointwise"
        elif same and k in (3, 5) and s in (1, 2) and padding[0] == k // 2 and groups == c.in_channels == c.out_channels and not residual:
            kind = "depthwise"
        else:
            raise Unsupported(f"{unit.path} is a {kernel[0]}x{kernel[1]} convolution with {groups} groups, stride {s} and padding {padding[0]}, "
                              "for which the engine has no kernel")
        if len(planes) != c.in_channels:
            raise Unsupported(f"{unit.path} takes {c.in_channels} channels and is given {len(planes)}")
        high, wide = -(-height // s), -(-width // s)
        out = self.plan.buffer(c.out_channels, high, wide)
        self.plan.steps.append(Step(kind, unit.path, height, width, planes, out, residual, unit.activation, k, s, 0, weight, bias))
        return out, high, wide

    def chain(self, x: tuple, chain: list[Unit], residual: Planes = ()) -> tuple:
        for unit in chain[:-1]:
            x = self.conv(x, unit)
        return self.conv(x, chain[-1], residual)

    def stem(self, net: ShuffleNetV2) -> tuple:
        (unit,) = of_sequence("backbone.conv1", net.conv1)
        c = unit.conv
        settings = (tuple(c.kernel_size), tuple(c.stride), tuple(c.padding), c.groups)
        if settings != ((3, 3), (2, 2), (1, 1), 1) or c.out_channels % STEM_BLOCK or unit.activation is None:
            raise Unsupported(f"{unit.path} is not the 3x3 convolution of stride 2 that the engine joins with the pool")
        height, width = self.plan.height, self.plan.width
        high, wide = (-(--(-height // 2) // 2), -(--(-width // 2) // 2))
        out = self.plan.buffer(c.out_channels, high, wide)
        weight, bias = unit.folded()
        self.plan.channels = c.in_channels
        self.plan.steps.append(Step("stem", unit.path, height, width, (), out, (), unit.activation, c.in_channels, 2, 0, weight, bias))
        return out, high, wide

    def shuffle_block(self, x: tuple, path: str, block: ShuffleV2Block) -> tuple:
        planes, height, width = x
        second = of_sequence(f"{path}.branch2", block.branch2)
        if block.stride == 1:
            half = len(planes) // 2
            left, (right, high, wide) = planes[:half], self.chain((planes[half:], height, width), second)
        else:
            left, *_ = self.chain(x, of_sequence(f"{path}.branch1", block.branch1))
            right, high, wide = self.chain(x, second)
        both, half = left + right, len(left)
        return tuple(both[i % 2 * half + i // 2] for i in range(2 * half)), high, wide  # concatenated, then shuffled in two groups

    def reduced(self, net: ShuffleNetV2, fpn: GhostPAN) -> list[tuple]:
        """The backbone's features through the neck's first layers, each as soon as it is there and still in the cache."""
        if not isinstance(net, ShuffleNetV2):
            raise Unsupported(f"backbone is a {type(net).__name__}, which the engine does not know")
        if not isinstance(fpn, GhostPAN):
            raise Unsupported(f"fpn is a {type(fpn).__name__}, which the engine does not know")
        x, found = self.stem(net), []
        for number in (2, 3, 4):
            for name, block in getattr(net, f"stage{number}").layers.items():
                path = f"backbone.stage{number}.{name}"
                x = self.shuffle_block(x, path, block) if isinstance(block, ShuffleV2Block) else self.chain(x, of_sequence(path, block))
            if number in net.out_stages:
                found.append(self.part(x, fpn, "reduce_layers", len(found)))
        return found

    def part(self, x: tuple, fpn: GhostPAN, name: str, i: int, residual: Planes = ()) -> tuple:
        return self.chain(x, of_conv_module(f"fpn.{name}.{i}", getattr(fpn, name)[i]), residual)

    def ghost_module(self, x: tuple, path: str, module: nn.Module) -> tuple:
        primary, high, wide = self.chain(x, of_sequence(f"{path}.primary_conv", module.primary_conv))
        cheap, *_ = self.chain((primary, high, wide), of_sequence(f"{path}.cheap_operation", module.cheap_operation))
        return primary + cheap, high, wide

    def ghost_blocks(self, x: tuple, path: str, blocks: nn.Module) -> tuple:
        out = x
        for name, block in blocks.blocks.layers.items():
            where = f"{path}.blocks.{name}"
            shortcut = of_sequence(f"{where}.shortcut", block.shortcut)
            if not shortcut:
                raise Unsupported(f"{where}.shortcut is the identity, for which the engine has no kernel")
            ghost = self.ghost_module(self.ghost_module(out, f"{where}.ghost1", block.ghost1), f"{where}.ghost2", block.ghost2)
            out = self.chain(out, shortcut, ghost[0])
        return self.chain(x, of_conv_module(f"{path}.reduce_conv", blocks.reduce_conv), out[0]) if blocks.use_res else out

    def upsample(self, x: tuple, layer: nn.Module) -> tuple:
        planes, height, width = x
        if getattr(layer, "mode", None) != "bilinear" or set(_pair(layer.scale_factor)) != {2}:
            raise Unsupported("fpn.upsample is not bilinear by 2, the only upsampling the engine knows")
        out = self.plan.buffer(len(planes), 2 * height, 2 * width)
        self.plan.steps.append(Step("upsample", "fpn.upsample", height, width, planes, out))
        return out, 2 * height, 2 * width

    def neck(self, fpn: GhostPAN, reduced: list[tuple]) -> list[tuple]:
        inner = [reduced[-1]]
        for i, block in enumerate(fpn.top_down_blocks):
            joined = joined_maps(self.upsample(inner[0], fpn.upsample), reduced[fpn.levels - 2 - i])
            inner.insert(0, self.ghost_blocks(joined, f"fpn.top_down_blocks.{i}", block))
        outs = [inner[0]]
        for i, block in enumerate(fpn.bottom_up_blocks):
            outs.append(self.ghost_blocks(joined_maps(self.part(outs[-1], fpn, "downsamples", i), inner[i + 1]), f"fpn.bottom_up_blocks.{i}", block))
        for i in range(len(fpn.extra_lvl_in_conv)):
            first = self.part(reduced[-1], fpn, "extra_lvl_in_conv", i)
            outs.append(self.part(outs[-1], fpn, "extra_lvl_out_conv", i, first[0]))
        return outs

    def head(self, head: NanoDetPlusHead, pyramid: list[tuple], cfg) -> None:
        if not isinstance(head, NanoDetPlusHead):
            raise Unsupported(f"head is a {type(head).__name__}, which the engine does not know")
        plan, rows = self.plan, 0
        for i, (x, stride) in enumerate(zip(pyramid, cfg.strides)):
            for j, conv in enumerate(head.cls_convs[i]):
                x = self.chain(x, of_conv_module(f"head.cls_convs.{i}.{j}", conv))
            (last,) = units("head", [(f"gfl_cls.{i}", head.gfl_cls[i])])
            planes, height, width = x
            weight, bias = last.folded()
            if weight.shape[1:] != (len(planes), 1, 1):
                raise Unsupported(f"{last.path} is not a 1x1 convolution of {len(planes)} channels")
            plan.steps.append(Step("head", last.path, height, width, planes, (), (), None, len(weight), stride, rows, weight, bias))
            rows += height * width
        plan.priors, plan.outputs, plan.classes, plan.bins = rows, len(weight), cfg.num_classes, cfg.reg_max + 1
        if rows != len(center_priors((plan.height, plan.width), cfg.strides)):
            raise Unsupported(f"an input of {plan.width}x{plan.height} gives {rows} cells, and another number of priors")


def joined_maps(*maps: tuple) -> tuple:
    """Concatenation along the channels."""
    if len({m[1:] for m in maps}) != 1:
        raise Unsupported(f"feature maps of {' and '.join(f'{w}x{h}' for _, h, w in maps)} do not fit together: the input's sides must be multiples of 32")
    return sum((m[0] for m in maps), ()), *maps[0][1:]


def _pair(value) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def build(model, height: int, width: int) -> Plan:
    """The plan of a NanoDetPlus on inputs of this size, with its weights as they are now. Raises Unsupported."""
    builder = Builder(height, width)
    builder.head(model.head, builder.neck(model.fpn, builder.reduced(model.backbone, model.fpn)), model.cfg.head)
    return builder.plan

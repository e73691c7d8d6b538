"""Convolutions: every kind of stride, padding, dilation and groups."""

from __future__ import annotations

from alignment.atlas.entry import LAYER, Entry, normal


def conv(name: str, options: str = "", weight: tuple[int, ...] = (6, 4, 3, 3), bias: bool = True, size: tuple[int, ...] = (9, 8), edges: tuple[str, ...] = ()) -> Entry:
    groups = int(options.split("groups=")[1][0]) if "groups=" in options else 1
    inputs = {"x": normal(2, weight[1] * groups, *size), "w": normal(*weight)}
    if bias:
        inputs["b"] = normal(weight[0])
    return Entry(f"conv{len(size)}d, {name}", f"F.conv{len(size)}d(x, w, {'b' if bias else 'None'}{options and ', '}{options})", inputs=inputs, edges=edges)


def module(name: str, arguments: str, weight: tuple[int, ...], x: tuple[int, ...], edges: tuple[str, ...] = ()) -> Entry:
    """The module, its weights replaced by the drawn ones. Jittor's Conv1d computes with the bias of a layer inside it, so that is the one to replace."""
    kind = f"nn.Conv{len(x) - 2}d"
    dim = len(x) - 2
    call = arguments.split(", ", 3)[3] if arguments.count(", ") > 2 else ""
    return Entry(f"{kind}, {name}", f"F.conv{dim}d(x, w, b{call and ', '}{call})", f"m = {kind}({arguments})\nm.weight, {'m._conv[0]' if dim == 1 else 'm'}.bias = w, b\nm(x)",
                 {"x": normal(*x), "w": normal(*weight), "b": normal(weight[0])}, edges=edges)


ENTRIES = [
    conv("3x3", edges=LAYER),
    module("3x3", "4, 6, 3, stride=2, padding=1", (6, 4, 3, 3), (2, 4, 9, 8), edges=LAYER),
    conv("1x1", weight=(6, 4, 1, 1), edges=("empty",)),
    conv("no bias", bias=False),
    conv("padding 1", "padding=1"),
    conv("stride 2", "stride=2"),
    conv("stride (2, 1)", "stride=(2, 1)"),
    conv("padding (1, 2)", "padding=(1, 2)"),
    conv("padding beyond the kernel", "padding=4"),
    conv("padding 'same'", "padding='same'"),
    conv("5x5, padding 2", "padding=2", (6, 4, 5, 5)),
    conv("even kernel", "stride=2", (6, 4, 2, 2)),
    conv("kernel (1, 5)", "padding=(0, 2)", (6, 4, 1, 5)),
    conv("dilation 2", "dilation=2"),
    conv("dilation (1, 2)", "dilation=(1, 2), padding=(1, 2)"),
    conv("groups 2", "groups=2", (6, 4, 3, 3)),
    conv("groups 2, stride 2, padding 1", "stride=2, padding=1, groups=2", (6, 4, 3, 3)),
    conv("depthwise", "padding=1, groups=4", (4, 1, 3, 3), edges=LAYER),
    conv("depthwise, stride 2", "stride=2, padding=1, groups=4", (4, 1, 3, 3)),
    conv("depthwise, dilation 2", "dilation=2, padding=2, groups=4", (4, 1, 3, 3)),
    conv("depthwise, multiplier 2", "padding=1, groups=4", (8, 1, 3, 3)),
    module("depthwise", "4, 4, 3, padding=1, groups=4", (4, 1, 3, 3), (2, 4, 9, 8)),
    Entry("conv2d, kernel larger than the input", "F.conv2d(x, w)", inputs={"x": normal(1, 2, 3, 3), "w": normal(2, 2, 5, 5)}, refused=True),
    Entry("conv2d, wrong number of channels", "F.conv2d(x, w)", inputs={"x": normal(1, 3, 5, 5), "w": normal(2, 2, 3, 3)}, refused=True),
    module("3", "4, 6, 3, stride=2, padding=1", (6, 4, 3), (2, 4, 9)),
    module("groups 2", "4, 6, 3, padding=1, groups=2", (6, 2, 3), (2, 4, 9)),
    Entry("nn.Conv1d, another bias put in place", "m = nn.Conv1d(4, 6, 3)\ndel m.weight, m.bias\nm.weight, m.bias = w, b\nm(x)", "m = nn.Conv1d(4, 6, 3)\nm.weight, m.bias = w, b\nm(x)",
          {"x": normal(2, 4, 9), "w": normal(6, 4, 3), "b": normal(6)}),
    Entry("conv3d, 3x3x3", "F.conv3d(x, w, b)", inputs={"x": normal(1, 2, 5, 4, 5), "w": normal(3, 2, 3, 3, 3), "b": normal(3)}),
    Entry("conv3d, stride 2, padding 1", "F.conv3d(x, w, b, stride=2, padding=1)", inputs={"x": normal(1, 2, 5, 4, 5), "w": normal(3, 2, 3, 3, 3), "b": normal(3)}),
    Entry("conv3d, groups 2", "F.conv3d(x, w, b, groups=2)", inputs={"x": normal(1, 4, 4, 4, 4), "w": normal(4, 2, 2, 2, 2), "b": normal(4)}),
    Entry("nn.Conv2d, padding_mode 'reflect'", "m = nn.Conv2d(2, 3, 3, padding=1, padding_mode='reflect')\nm.weight, m.bias = nn.Parameter(w), nn.Parameter(b)\nm(x)",
          "m = nn.Conv2d(2, 3, 3, padding=1, padding_mode='reflect')\nm.weight, m.bias = w, b\nm(x)",
          {"x": normal(1, 2, 5, 5), "w": normal(3, 2, 3, 3), "b": normal(3)}, grad=("x",)),
    Entry("conv2d, float16", "F.conv2d(x, w)", inputs={"x": "r.randn(1, 2, 5, 5).astype('float16')", "w": "r.randn(2, 2, 3, 3).astype('float16')"}),
]

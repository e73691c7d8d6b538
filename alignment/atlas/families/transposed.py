"""Transposed convolutions."""

from __future__ import annotations

from alignment.atlas.entry import LAYER, Entry, normal


def deconv(name: str, options: str = "", weight: tuple[int, ...] = (4, 3, 3, 3), size: tuple[int, ...] = (5, 4), outputs: int = 3, edges: tuple[str, ...] = ()) -> Entry:
    dim = len(size)
    text = f"x, w, b{options and ', '}{options}"
    return Entry(f"conv_transpose{dim}d, {name}", f"F.conv_transpose{dim}d({text})", f"nn.conv_transpose{'' if dim == 2 else '3d'}({text})",
                 {"x": normal(2, weight[0], *size), "w": normal(*weight), "b": normal(outputs)}, edges=edges)


ENTRIES = [
    deconv("3x3", edges=LAYER),
    deconv("stride 2", "stride=2"),
    deconv("stride 2, padding 1", "stride=2, padding=1"),
    deconv("stride 2, padding 1, output_padding 1", "stride=2, padding=1, output_padding=1"),
    deconv("stride (2, 1)", "stride=(2, 1)"),
    deconv("dilation 2", "dilation=2"),
    deconv("kernel 2, stride 2", "stride=2", (4, 3, 2, 2)),
    deconv("groups 2", "groups=2", (4, 3, 3, 3), outputs=6),
    deconv("depthwise, stride 2", "stride=2, groups=4", (4, 1, 2, 2), outputs=4),
    Entry("conv_transpose2d, no bias", "F.conv_transpose2d(x, w)", "nn.conv_transpose(x, w)", {"x": normal(2, 4, 5, 4), "w": normal(4, 3, 3, 3)}),
    Entry("nn.ConvTranspose2d", "F.conv_transpose2d(x, w, b, stride=2, padding=1)", "m = nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1)\nm.weight, m.bias = w, b\nm(x)",
          {"x": normal(2, 4, 5, 4), "w": normal(4, 3, 4, 4), "b": normal(3)}, edges=LAYER),
    Entry("nn.ConvTranspose1d", "nn.ConvTranspose1d(4, 3, 3)(x).shape", inputs={"x": normal(2, 4, 5)}),
    deconv("3x3x3, stride 2", "stride=2", (2, 3, 2, 2, 2), (3, 3, 3)),
]

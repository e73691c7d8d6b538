"""Pools."""

from __future__ import annotations

from alignment.atlas.entry import LAYER, Entry, normal

EDGES = (*LAYER, "ties")


def pool(name: str, torch: str, jittor: str = "", shape: tuple[int, ...] = (2, 3, 7, 6), edges: tuple[str, ...] = (), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": normal(*shape)}, edges=edges, **more)


ENTRIES = [
    pool("max_pool2d, 2", "F.max_pool2d(x, 2)", edges=EDGES),
    pool("max_pool2d, 3, stride 2, padding 1", "F.max_pool2d(x, 3, 2, 1)", edges=EDGES),
    pool("nn.MaxPool2d", "nn.MaxPool2d(3, 2, 1)(x)", edges=("ties",)),
    pool("max_pool2d, stride 1, padding 2 (SPP)", "F.max_pool2d(x, 5, 1, 2)"),
    pool("max_pool2d, ceil_mode", "F.max_pool2d(x, 2, 2, 0, ceil_mode=True)", "nn.MaxPool2d(2, 2, 0, ceil_mode=True)(x)"),
    pool("max_pool2d, ceil_mode, padding 1", "F.max_pool2d(x, 3, 2, 1, ceil_mode=True)", "nn.MaxPool2d(3, 2, 1, ceil_mode=True)(x)"),
    pool("max_pool2d, (3, 2)", "F.max_pool2d(x, (3, 2), (2, 1))", "nn.MaxPool2d((3, 2), (2, 1))(x)"),
    pool("max_pool2d, dilation 2", "F.max_pool2d(x, 2, dilation=2)", "nn.MaxPool2d(2, dilation=2)(x)"),
    pool("max_pool2d, indices", "nn.MaxPool2d(2, return_indices=True)(x)", grad=(), edges=("ties",)),
    pool("max_unpool2d", "y, i = nn.MaxPool2d(2, return_indices=True)(x)\nnn.MaxUnpool2d(2)(y, i)", shape=(2, 3, 6, 6)),
    pool("avg_pool2d, 2", "F.avg_pool2d(x, 2)", edges=LAYER),
    pool("avg_pool2d, padding 1", "F.avg_pool2d(x, 3, 2, 1)"),
    pool("avg_pool2d, padding 1, not counted", "F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)"),
    pool("avg_pool2d, ceil_mode", "F.avg_pool2d(x, 2, ceil_mode=True)"),
    pool("avg_pool2d, ceil_mode, padding 1", "F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)"),
    pool("nn.AvgPool2d", "nn.AvgPool2d(2)(x)"),
    pool("adaptive_avg_pool2d, 1", "nn.AdaptiveAvgPool2d(1)(x)", edges=LAYER),
    pool("adaptive_avg_pool2d, even share", "nn.AdaptiveAvgPool2d((7, 3))(x)"),
    pool("adaptive_avg_pool2d, uneven share", "nn.AdaptiveAvgPool2d((3, 4))(x)"),
    pool("adaptive_avg_pool2d, None keeps a side", "nn.AdaptiveAvgPool2d((None, 2))(x)"),
    pool("adaptive_max_pool2d, 1", "nn.AdaptiveMaxPool2d(1)(x)", edges=("ties",)),
    pool("adaptive_max_pool2d, uneven share", "nn.AdaptiveMaxPool2d((3, 4))(x)"),
    pool("max_pool3d", "F.max_pool3d(x, 2)", shape=(1, 2, 4, 4, 5)),
    pool("avg_pool3d", "nn.AvgPool3d(2)(x)", shape=(1, 2, 4, 4, 5)),
    pool("adaptive_avg_pool3d", "nn.AdaptiveAvgPool3d(2)(x)", shape=(1, 2, 4, 4, 5)),
    pool("max_pool1d", "nn.MaxPool1d(2)(x)", shape=(2, 3, 7)),
    pool("avg_pool1d", "nn.AvgPool1d(2)(x)", shape=(2, 3, 7)),
    pool("lp_pool2d", "nn.LPPool2d(2, 2)(x)"),
]

"""Shape."""

from __future__ import annotations

from alignment.atlas.entry import Entry, normal


def of(name: str, torch: str, jittor: str = "", edges: tuple[str, ...] = (), x: str = normal(2, 3, 4), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": x}, edges=edges, **more)


ENTRIES = [
    of("reshape", "x.reshape(4, -1)", edges=("strided", "empty")),
    of("view of a transposed array", "x.transpose(0, 1).reshape(6, 4)"),
    of("flatten", "torch.flatten(x, 1)"),
    of("squeeze, unsqueeze", "x.unsqueeze(1).squeeze(1)"),
    of("squeeze, all", "torch.squeeze(x)", "jt.squeeze(x)", x=normal(1, 3, 1)),
    of("transpose", "x.transpose(0, 2)", edges=("strided", "empty")),
    of("permute", "x.permute(2, 0, 1)"),
    of("t", "x[0].t()"),
    of("expand", "x[:, :1].expand(2, 5, 4)"),
    of("expand, -1", "x[:, :1].expand(-1, 5, -1)"),
    of("repeat", "x.repeat(2, 1, 3)"),
    of("repeat_interleave", "torch.repeat_interleave(x, 2, dim=1)", "jt.repeat_interleave(x, 2, dim=1)"),
    of("tile", "torch.tile(x, (2, 1, 1))"),
    of("cat", "torch.cat([x, x * 2], dim=1)", "jt.concat([x, x * 2], dim=1)", edges=("nan", "empty")),
    of("cat with an empty one", "torch.cat([x, x[:, :0]], dim=1)", "jt.concat([x, x[:, :0]], dim=1)"),
    of("stack", "torch.stack([x, x * 2], dim=1)"),
    of("split", "torch.split(x, 2, dim=2)", "jt.split(x, 2, dim=2)"),
    of("split, sizes", "torch.split(x, [1, 3], dim=2)", "jt.split(x, [1, 3], dim=2)"),
    of("chunk", "torch.chunk(x, 2, dim=2)", "jt.chunk(x, 2, dim=2)"),
    of("chunk, uneven", "torch.chunk(x, 2, dim=1)", "jt.chunk(x, 2, dim=1)"),
    of("unbind", "torch.unbind(x, 0)", "jt.unbind(x, 0)"),
    of("flip", "torch.flip(x, (0, 2))"),
    of("roll", "torch.roll(x, (1, -1), (0, 2))"),
    of("rot90", "torch.rot90(x, 1, (1, 2))"),
    of("tril", "torch.tril(x, 0)", "jt.tril(x, 0)"),
    of("triu, offset", "torch.triu(x, 1)", "jt.triu(x, 1)"),
    of("diag", "torch.diag(x[0, 0])"),
    of("diagonal", "torch.diagonal(x, 0, 1, 2)"),
    of("meshgrid", "torch.meshgrid(x[0, 0], x[0, 1], indexing='ij')", "jt.meshgrid(x[0, 0], x[0, 1])"),
    of("unfold along a dimension", "x.unfold(2, 2, 1)"),
    of("channel shuffle", "x.reshape(2, 1, 3, 4).transpose(1, 2).reshape(2, 3, 4)"),
    of("as_strided", "torch.as_strided(x, (2, 2), (1, 2))"),
    Entry("arange, floats", "torch.arange(0, 1, 0.1)", "jt.arange(0, 1, 0.1)"),
    Entry("arange, types", "torch.arange(3), torch.arange(3.0)", "jt.arange(3), jt.arange(3.0)"),
    Entry("linspace", "torch.linspace(0, 1, 7)"),
    Entry("zeros, ones, full", "torch.zeros((2, 3)), torch.ones((2, 3)), torch.full((2, 3), 7.0)"),
    of("zeros_like, ones_like, full_like", "torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 2.0)", grad=()),
    Entry("full, of an integer", "torch.full((2,), 7)", "jt.full((2,), 7)"),
    Entry("eye", "torch.eye(3, 4)", "init.eye((3, 4))"),
]

"""Reductions."""

from __future__ import annotations

from alignment.atlas.entry import Entry, integers, normal, uniform

EDGES = ("nan", "inf", "huge", "strided", "empty", "0-d")


def over(name: str, torch: str, jittor: str = "", x: str = normal(3, 4), edges: tuple[str, ...] = (), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": x}, edges=edges, **more)


ENTRIES = [
    over("sum", "x.sum()", edges=EDGES),
    over("sum, dim", "x.sum(dim=1)", edges=EDGES[:5]),
    over("sum, keepdim", "x.sum(dim=0, keepdim=True)", "x.sum(dim=0, keepdims=True)"),
    over("sum, keepdim by PyTorch's name", "x.sum(dim=0, keepdim=True)"),
    over("sum, two dims", "x.sum(dim=(0, 2))", x=normal(3, 4, 2)),
    over("sum, two dims by Jittor's word", "x.sum(dim=(0, 2))", "x.sum(dims=(0, 2))", x=normal(3, 4, 2)),
    over("mean, two dims by Jittor's word", "x.mean(dim=(0, 2), keepdim=True)", "x.mean(dims=(0, 2), keepdims=True)", x=normal(3, 4, 2)),
    over("sum of a million equal numbers", "x.sum()", x="np.full(1 << 20, 0.1, 'float32')", grad=()),
    over("sum, cancelling", "x.sum()", x="np.array([1e8, 1, -1e8, 1], 'float32')", grad=()),
    over("mean", "x.mean()", edges=EDGES),
    over("mean, dim", "x.mean(dim=1)", edges=EDGES[:5]),
    over("mean of many around 1000", "x.mean()", x="(r.randn(1 << 16) + 1000).astype('float32')", grad=()),
    over("prod", "x.prod()", edges=("nan", "ties", "empty")),
    over("prod, dim", "x.prod(dim=1)"),
    over("max", "x.max()", edges=("nan", "inf", "ties", "empty")),
    over("max, dim", "x.max(dim=1).values", "x.max(dim=1)", edges=("nan", "inf", "ties", "empty")),
    over("min", "x.min()", edges=("nan", "inf", "ties")),
    over("min, dim", "x.min(dim=1).values", "x.min(dim=1)", edges=("nan", "ties")),
    over("amax", "torch.amax(x, dim=(0, 1))", "x.max(dims=(0, 1))", edges=("ties",)),
    over("argmax", "x.argmax(dim=1)", "x.argmax(dim=1)[0]", grad=(), edges=("nan", "inf", "ties")),
    over("argmin", "torch.argmin(x, dim=1)", "jt.argmin(x, dim=1)[0]", grad=(), edges=("nan", "inf", "ties")),
    over("argmax, what it returns", "torch.argmax(x, dim=1),", "r = jt.argmax(x, dim=1)\n(r if isinstance(r, tuple) else (r,))", grad=()),
    over("max, what it returns", "tuple(x.max(dim=1))", "r = x.max(dim=1)\n(r if isinstance(r, tuple) else (r,))", grad=()),
    over("std", "x.std()", edges=("nan", "tiny")),
    over("std, one element", "x.std()", x=normal(1), grad=()),
    over("var, unbiased", "x.var(dim=1, unbiased=True)"),
    over("var, default", "torch.var(x, dim=1)", "jt.var(x, dim=1)"),
    over("var, mean large against the spread", "torch.var(x, dim=1, unbiased=False)", "jt.var(x, dim=1, unbiased=False)", x=normal(3, 64) + " + np.float32(1000)"),
    over("norm, 2", "torch.norm(x, 2, dim=1)", "jt.norm(x, 2, dim=1)", edges=("nan", "tiny", "huge")),
    over("norm, 1", "torch.norm(x, 1, dim=1)", "jt.norm(x, 1, dim=1)"),
    over("norm, infinity", "torch.norm(x, float('inf'), dim=1)", "jt.norm(x, float('inf'), dim=1)"),
    over("norm, all, PyTorch's default", "torch.norm(x)", "jt.norm(x)"),
    over("norm at zero", "torch.norm(x * 0)", "jt.norm(x * 0, 2, dim=-1).sum()"),
    over("logsumexp", "torch.logsumexp(x, dim=1)", "nn.logsumexp(x, dim=1)", edges=("nan", "inf", "far", "huge")),
    over("cumsum", "torch.cumsum(x, dim=1)", edges=("nan", "inf", "strided", "empty")),
    over("cumsum, first", "torch.cumsum(x, dim=0)"),
    over("cumprod", "torch.cumprod(x, dim=1)", edges=("ties",)),
    over("cumprod, positive numbers", "torch.cumprod(x, dim=1)", x=uniform(0.2, 2, 3, 4)),
    over("any, all", "(x > 0).any(), (x > 0).all()", grad=(), edges=("nan", "empty")),
    over("any, all, dim", "(x > 0).any(dim=1), (x > 0).all(dim=1)", grad=()),
    over("count_nonzero", "torch.count_nonzero(x)", "(x != 0).sum()", grad=(), edges=("ties",)),
    over("sum of booleans", "(x > 0).sum()", grad=()),
    over("sum of large int32", "x.sum()", x="np.full(4, 2**30, 'int32')"),
    over("mean of integers", "x.float().mean()", "x.mean()", x=integers(9, 5)),
    over("median, odd", "x.median(dim=1).values", "jt.median(x, dim=1)", x=normal(3, 5), edges=("nan", "ties")),
    over("median, even", "x.median(dim=1).values", "jt.median(x, dim=1)"),
    over("median, first dimension", "x.median(dim=0).values", "jt.median(x, dim=0)"),
    over("median of all", "x.median()", "jt.median(x)", x=normal(3, 5)),
    over("median, what it returns", "tuple(x.median(dim=1))", "r = jt.median(x, dim=1)\n(r if isinstance(r, tuple) else (r,))", grad=()),
    over("nansum", "torch.nansum(x)", edges=("nan",)),
    over("histc", "torch.histc(x, 4, -2, 2)", grad=()),
]

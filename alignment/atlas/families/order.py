"""Sorting, top-k, and what depends on an order."""

from __future__ import annotations

from alignment.atlas.entry import Entry, integers, normal


def order(name: str, torch: str, jittor: str = "", x: str = normal(3, 6), edges: tuple[str, ...] = (), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": x}, edges=edges, **{"smooth": False, **more})


MANY_TIES = "np.ones((1, 40), 'float32')"
ENTRIES = [
    order("sort, values", "torch.sort(x, dim=1).values", "jt.sort(x, dim=1)[0]", edges=("inf", "ties", "strided", "empty")),
    order("sort, descending", "torch.sort(x, dim=1, descending=True).values", "jt.sort(x, dim=1, descending=True)[0]", edges=("ties",)),
    order("sort, first dimension", "torch.sort(x, dim=0).values", "jt.sort(x, dim=0)[0]"),
    order("sort, indices", "torch.sort(x, dim=1).indices", "jt.sort(x, dim=1)[1]", grad=(), edges=("ties",)),
    order("sort, indices of many ties (stable)", "torch.sort(x, dim=1, stable=True).indices", "jt.sort(x, dim=1)[1]", MANY_TIES, grad=()),
    order("sort, NaN", "torch.sort(x, dim=1).values", "jt.sort(x, dim=1)[0]", "np.array([[3, np.nan, 1, 2]], 'float32')", grad=()),
    order("argsort", "torch.argsort(x, dim=1)", "jt.argsort(x, dim=1)[0]", grad=(), edges=("ties",)),
    order("argsort, descending", "torch.argsort(x, dim=1, descending=True)", "jt.argsort(x, dim=1, descending=True)[0]", grad=()),
    order("argsort, many ties (stable)", "torch.argsort(x, dim=1, stable=True)", "jt.argsort(x, dim=1)[0]", MANY_TIES, grad=()),
    order("argsort, what it returns", "(torch.argsort(x, dim=1),)", "r = jt.argsort(x, dim=1)\n(r if isinstance(r, tuple) else (r,))", grad=()),
    order("topk, values", "torch.topk(x, 2, dim=1).values", "jt.topk(x, 2, dim=1)[0]", edges=("inf", "ties", "strided")),
    order("topk, indices", "torch.topk(x, 2, dim=1).indices", "jt.topk(x, 2, dim=1)[1]", grad=()),
    order("topk, indices of many ties (lower first)", "torch.sort(x, dim=1, descending=True, stable=True).indices[:, :3]", "jt.topk(x, 3, dim=1)[1]", MANY_TIES, grad=()),
    order("topk, smallest", "torch.topk(x, 2, dim=1, largest=False).values", "jt.topk(x, 2, dim=1, largest=False)[0]"),
    order("topk, first dimension", "torch.topk(x, 2, dim=0).values", "jt.topk(x, 2, dim=0)[0]"),
    order("topk, all", "torch.topk(x, 6).values", "jt.topk(x, 6)[0]"),
    order("topk, more than there are", "torch.topk(x, 7).values", "jt.topk(x, 7)[0]", grad=(), refused=True),
    order("kthvalue", "torch.kthvalue(x, 2, dim=1).values", "jt.kthvalue(x, 2, dim=1)[0]", edges=("ties",)),
    order("unique", "torch.unique(x)", x=integers(5, 12)),
    order("unique, counts and inverse", "torch.unique(x, return_inverse=True, return_counts=True)", x=integers(5, 12)),
    order("searchsorted", "torch.searchsorted(torch.sort(x, dim=1).values, x)", "jt.searchsorted(jt.sort(x, dim=1)[0], x)", grad=()),
    order("searchsorted, right", "torch.searchsorted(torch.sort(x, dim=1).values, x, right=True)", "jt.searchsorted(jt.sort(x, dim=1)[0], x, right=True)", grad=()),
    order("bincount", "torch.bincount(x)", x=integers(5, 12)),
    order("isin", "torch.isin(x, torch.tensor([1, 3]))", "jt.isin(x, jt.array([1, 3]))", integers(5, 12)),
    Entry("nms", "torch.tensor([0, 1])", "jt.nms(x, 0.52)", {"x": "np.array([[0, 0, 9, 9, .9], [0, 3, 9, 12, .8]], 'float32')"}, grad=(), smooth=False),
]

"""Indexing, scatter and gather."""

from __future__ import annotations

from alignment.atlas.entry import Entry, integers, normal

ROWS = "np.array([2, 0, 2], 'int32')"


def at(name: str, torch: str, jittor: str = "", edges: tuple[str, ...] = (), inputs: dict[str, str] | None = None, **more) -> Entry:
    return Entry(name, torch, jittor, {"x": normal(4, 5), **(inputs or {})}, edges=edges, **more)


def gathered(name: str, torch: str, jittor: str = "", **more) -> Entry:
    return at(name, torch, jittor, inputs={"i": integers(4, 3, 5), "s": normal(3, 5)}, **more)


ENTRIES = [
    at("slice", "x[1:3, ::2]", edges=("nan", "strided", "empty")),
    at("slice, negative start", "x[-2:, -1]"),
    at("slice, beyond the end", "x[2:99]"),
    at("slice, negative step", "x.flip(0)", "x[::-1]"),
    at("integer", "x[2]"),
    at("integer, negative", "x[-1, -2]"),
    at("None and ellipsis", "x[..., None, 1]"),
    at("boolean mask", "x[x > 0]"),
    at("boolean mask of rows", "x[x[:, 0] > 0]", edges=("empty",)),
    at("boolean mask, nothing", "x[x > 99]"),
    at("rows by number", "x[i.long()]", "x[i]", inputs={"i": ROWS}),
    at("rows and columns by number", "x[i.long(), i.long()]", "x[i, i]", inputs={"i": ROWS}),
    at("a slice and numbers", "x[1:3, i.long()]", "x[1:3, i]", inputs={"i": ROWS}),
    at("negative numbers in an array", "x[i.long()]", "x[i]", inputs={"i": "np.array([-1, -4], 'int32')"}),
    at("row out of range", "x[i.long()]", "x[i]", inputs={"i": "np.array([9], 'int32')"}, grad=(), refused=True),
    at("integer out of range", "x[9]", grad=(), refused=True),
    at("assign to a slice", "y = x.clone()\ny[1:3] = y[0:2] * 2\ny", edges=("nan",)),
    at("assign to a mask", "y = x.clone()\ny[y > 0] = 0\ny"),
    at("assign by numbers", "y = x.clone()\ny[i.long()] = 7\ny", "y = x.clone()\ny[i] = 7\ny", inputs={"i": ROWS}),
    at("add to a slice in place", "y = x.clone()\ny[1] += 1\ny"),
    gathered("gather, dim 0", "torch.gather(x, 0, i.long())", "jt.gather(x, 0, i)"),
    at("gather, dim 1", "torch.gather(x, 1, i.long())", "jt.gather(x, 1, i)", inputs={"i": integers(5, 4, 2)}),
    gathered("scatter", "torch.scatter(x, 0, i.long()[:1], s[:1])", "jt.scatter(x, 0, i[:1], s[:1])", grad=("x", "s")),
    gathered("scatter, add", "torch.scatter_add(x, 0, i.long(), s)", "jt.scatter(x, 0, i, s, reduce='add')"),
    gathered("scatter, multiply", "torch.scatter(x, 0, i.long(), s, reduce='multiply')", "jt.scatter(x, 0, i, s, reduce='multiply')", grad=()),
    at("index_select, rows", "torch.index_select(x, 0, i.long())", "jt.index_select(x, 0, i)", inputs={"i": ROWS}),
    at("index_select, columns", "torch.index_select(x, 1, i.long())", "jt.index_select(x, 1, i)", inputs={"i": ROWS}),
    at("index_select, method, columns", "x.index_select(1, i.long())", "x.index_select(1, i)", inputs={"i": ROWS}),
    at("index_add, each row once", "x.clone().index_add_(0, i.long(), s)", "y = x.clone()\ny.index_add_(0, i, s)\ny", inputs={"i": "np.array([2, 0, 3], 'int32')", "s": normal(3, 5)}),
    at("index_add, a row twice", "x.clone().index_add_(0, i.long(), s)", "y = x.clone()\ny.index_add_(0, i, s)\ny", inputs={"i": ROWS, "s": normal(3, 5)}),
    at("index_fill, what it returns", "x.clone().index_fill_(0, torch.tensor([2, 0]), 3.0)", "jt.index_fill_(x, 0, [2, 0], 3.0)"),
    at("index_fill, in place", "y = x.clone()\ny.index_fill_(0, torch.tensor([2, 0]), 3.0)\ny", "y = x.clone()\njt.index_fill_(y, 0, [2, 0], 3.0)\ny"),
    at("masked_fill", "x.masked_fill(x > 0, -1e9)", edges=("nan", "inf")),
    at("masked_select", "torch.masked_select(x, x > 0)"),
    at("take_along_dim", "torch.take_along_dim(x, i.long(), 1)", inputs={"i": integers(5, 4, 2)}),
    at("nonzero", "torch.nonzero(x > 0)", "jt.nonzero(x > 0)", grad=(), edges=("empty",)),
    at("where, one argument", "torch.where(x > 0)", grad=()),
    Entry("one_hot", "F.one_hot(i.long(), 5)", "nn.one_hot(i, 5)", {"i": integers(5, 6)}),
    at("embedding", "F.embedding(i.long(), x)", "nn.embedding(i, x)", inputs={"i": integers(4, 3, 2)}),
    at("embedding, padding_idx", "F.embedding(i.long(), x, padding_idx=0)", "m = nn.Embedding(4, 5, padding_idx=0)\nm.weight = x\nm(i)", inputs={"i": integers(4, 3, 2)}),
]

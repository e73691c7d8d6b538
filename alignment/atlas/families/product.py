"""Matrix products, einsum, attention, decompositions."""

from __future__ import annotations

from alignment.atlas.entry import LAYER, Entry, normal


def times(name: str, torch: str, jittor: str = "", x: tuple[int, ...] = (3, 4), y: tuple[int, ...] | None = (4, 5), edges: tuple[str, ...] = (), **more) -> Entry:
    inputs = {"x": normal(*x), **({"y": normal(*y)} if y else {})}
    return Entry(name, torch, jittor, inputs, edges=edges, **more)


SPD = "x @ x.transpose(-1, -2) + 3 * {eye}"
ENTRIES = [
    times("matmul, matrices", "torch.matmul(x, y)", edges=LAYER),
    times("matmul, batched", "torch.matmul(x, y)", x=(2, 3, 4), y=(2, 4, 5), edges=("strided", "empty")),
    times("matmul, broadcast", "torch.matmul(x, y)", x=(2, 1, 3, 4), y=(3, 4, 5)),
    times("matmul, batch with a matrix", "torch.matmul(x, y)", x=(2, 3, 4)),
    times("matmul, with a vector", "torch.matmul(x, y)", y=(4,)),
    times("matmul, vector with a matrix", "torch.matmul(x, y)", x=(4,)),
    times("matmul, vectors", "torch.matmul(x, y)", x=(4,), y=(4,)),
    times("matmul, transposed", "torch.matmul(x, y.t())", "nn.matmul_transpose(x, y)", y=(5, 4)),
    times("matmul, inner side of 0", "torch.matmul(x[:, :0], y[:0])", grad=()),
    times("matmul, long sums", "torch.matmul(x, y)", x=(2, 4096), y=(4096, 2)),
    times("matmul, sizes that do not fit", "torch.matmul(x, y)", y=(3, 5), grad=(), refused=True),
    times("bmm", "torch.bmm(x, y)", x=(2, 3, 4), y=(2, 4, 5)),
    Entry("baddbmm", "torch.baddbmm(b, x, y, beta=0.5, alpha=2)", inputs={"b": normal(2, 3, 5), "x": normal(2, 3, 4), "y": normal(2, 4, 5)}),
    Entry("linear", "F.linear(x, w, b)", inputs={"x": normal(2, 3, 4), "w": normal(5, 4), "b": normal(5)}, edges=LAYER),
    Entry("nn.Linear", "F.linear(x, w, b)", "m = nn.Linear(4, 5)\nm.weight, m.bias = w, b\nm(x)", {"x": normal(3, 4), "w": normal(5, 4), "b": normal(5)}),
    Entry("bilinear", "F.bilinear(x, y, w, b)", inputs={"x": normal(3, 2), "y": normal(3, 4), "w": normal(5, 2, 4), "b": normal(5)}),
    times("outer", "torch.outer(x, y)", x=(3,), y=(4,)),
    times("cross", "torch.cross(x, y, dim=1)", x=(2, 3), y=(2, 3)),
    times("kron", "torch.kron(x, y)", "nn.kron(x, y)", x=(2, 2), y=(2, 3)),
    times("tensordot", "torch.tensordot(x, y, dims=1)", "nn.tensordot(x, y, dims=1)"),
    times("einsum ij,jk->ik", "torch.einsum('ij,jk->ik', x, y)"),
    times("einsum bij,bjk->bik", "torch.einsum('bij,bjk->bik', x, y)", x=(2, 3, 4), y=(2, 4, 5)),
    times("einsum bhqd,bhkd->bhqk", "torch.einsum('bhqd,bhkd->bhqk', x, y)", x=(1, 2, 3, 4), y=(1, 2, 5, 4)),
    times("einsum ...ij,...jk->...ik", "torch.einsum('...ij,...jk->...ik', x, y)", x=(2, 3, 4), y=(2, 4, 5)),
    times("einsum ii->i", "torch.einsum('ii->i', x)", x=(4, 4), y=None),
    times("einsum ij->", "torch.einsum('ij->', x)", y=None),
    times("einsum i,j->ij", "torch.einsum('i,j->ij', x, y)", x=(3,), y=(4,)),
    Entry("attention, scaled dot product", "F.scaled_dot_product_attention(q, k, v)", "nn.softmax(jt.matmul(q, k.transpose(-1, -2)) / 2.0, dim=-1) @ v",
          {"q": normal(1, 2, 3, 4), "k": normal(1, 2, 5, 4), "v": normal(1, 2, 5, 4)}, edges=("far",)),
    Entry("attention, by PyTorch's name", "F.scaled_dot_product_attention(q, k, v)", inputs={"q": normal(1, 2, 3, 4), "k": normal(1, 2, 5, 4), "v": normal(1, 2, 5, 4)}),
    times("cdist", "torch.cdist(x, y)", x=(3, 4), y=(5, 4)),
    times("trace", "torch.trace(x)", x=(3, 3), y=None),
    times("inverse", "torch.linalg.inv(x)", "jt.linalg.inv(x)", x=(3, 3), y=None),
    times("determinant", "torch.linalg.det(x)", "jt.linalg.det(x)", x=(3, 3), y=None),
    times("solve", "torch.linalg.solve(x, y)", "jt.linalg.solve(x, y)", x=(3, 3), y=(3, 2)),
    times("cholesky", f"torch.linalg.cholesky({SPD.format(eye='torch.eye(3)')})", f"jt.linalg.cholesky({SPD.format(eye='init.eye(3)')})", x=(3, 3), y=None),
    times("singular values", "torch.linalg.svd(x).S", "jt.linalg.svd(x)[1]", y=None),
    times("qr, absolute", "torch.linalg.qr(x).R.abs()", "jt.linalg.qr(x)[1].abs()", x=(4, 3), y=None),
    times("eigenvalues, symmetric", f"torch.linalg.eigh({SPD.format(eye='torch.eye(3)')}).eigenvalues", f"jt.linalg.eigh({SPD.format(eye='init.eye(3)')})[0]", x=(3, 3), y=None),
]

"""Random streams: their distributions, whether a seed repeats them, and whether both frameworks draw the same (they do not)."""

from __future__ import annotations

from alignment.atlas.entry import Entry, uniform


def drawn(name: str, torch: str, jittor: str = "", **more) -> Entry:
    return Entry(name, torch, jittor, **{"kind": "distribution", "smooth": False, **more})


def again(name: str, torch: str, jittor: str) -> Entry:
    """The same seed twice: the difference of two draws, which must be zero."""
    return Entry(f"{name}, the same seed twice",
                 f"torch.manual_seed(3)\na = {torch}\ntorch.manual_seed(3)\nb = {torch}\n(a.float() - b.float()).abs().max()",
                 f"jt.set_seed(3)\na = {jittor}\na.sync()\njt.set_seed(3)\nb = {jittor}\nb.sync()\n(a.float32() - b.float32()).abs().max()")


ENTRIES = [
    drawn("rand", "torch.rand(4000)"),
    drawn("randn", "torch.randn(4000)"),
    drawn("normal, mean and deviation", "torch.normal(3.0, 2.0, (4000,))", "jt.normal(3.0, 2.0, (4000,))"),
    drawn("randint", "torch.randint(2, 9, (4000,))", "jt.randint(2, 9, (4000,))"),
    drawn("randperm, sorted", "torch.randperm(50).sort().values", "jt.sort(jt.randperm(50))[0]"),
    drawn("rand_like, randn_like", "torch.rand_like(torch.zeros(4000)), torch.randn_like(torch.zeros(4000))", "jt.rand_like(jt.zeros(4000)), jt.randn_like(jt.zeros(4000))"),
    drawn("bernoulli", "torch.bernoulli(torch.full((4000,), 0.3))", "jt.bernoulli(jt.full((4000,), 0.3))"),
    drawn("uniform_", "torch.empty(4000).uniform_(-2, 3)", "jt.zeros(4000).uniform_(-2, 3)"),
    drawn("normal_", "torch.empty(4000).normal_(1, 0.5)", "jt.zeros(4000).normal_(1, 0.5)"),
    drawn("multinomial", "torch.multinomial(p, 4000, replacement=True)", "jt.multinomial(p, 4000, replacement=True)", inputs={"p": uniform(0.1, 1, 6)}),
    drawn("dropout, p 0.3", "F.dropout(torch.ones(4000), 0.3, True)", "nn.dropout(jt.ones(4000), 0.3, True)"),
    drawn("dropout2d drops whole channels", "F.dropout2d(torch.ones(400, 8, 2, 2), 0.3, True).std(dim=(2, 3))", "y = nn.Dropout2d(0.3)(jt.ones((400, 8, 2, 2)))\ny.max(dims=(2, 3)) - y.min(dims=(2, 3))"),
    again("rand", "torch.rand(9)", "jt.rand(9)"),
    again("randn", "torch.randn(9)", "jt.randn(9)"),
    again("randperm", "torch.randperm(9)", "jt.randperm(9)"),
    again("dropout", "F.dropout(torch.ones(99), 0.3, True)", "nn.dropout(jt.ones(99), 0.3, True)"),
    Entry("rand, the numbers of seed 0", "torch.rand(4, dtype=torch.float32)", "jt.rand(4)", smooth=False),
    Entry("randn, the numbers of seed 0", "torch.randn(4, dtype=torch.float32)", "jt.randn(4)", smooth=False),
    Entry("randperm, the numbers of seed 0", "torch.randperm(9)", smooth=False),
]

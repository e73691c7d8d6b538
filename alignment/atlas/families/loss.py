"""Losses."""

from __future__ import annotations

from alignment.atlas.entry import Entry, integers, normal, uniform

EDGES = ("nan", "inf", "ties", "far", "huge", "empty")


def two(name: str, torch: str, jittor: str = "", edges: tuple[str, ...] = (), **more) -> Entry:
    """A prediction ``x`` and a target ``y`` of real numbers."""
    return Entry(name, torch, jittor, {"x": normal(4, 5), "y": normal(4, 5)}, grad=("x",), edges=edges, edge_of=("x", "y") if edges == ("empty",) else None, **more)


def binary(name: str, torch: str, jittor: str = "", edges: tuple[str, ...] = (), logits: bool = True) -> Entry:
    x = normal(4, 5) if logits else uniform(0.05, 0.95, 4, 5)
    return Entry(name, torch, jittor, {"x": x, "y": uniform(0, 1, 4, 5), "w": uniform(0.5, 2, 5)}, grad=("x",), edges=edges)


def classes(name: str, torch: str, jittor: str = "", edges: tuple[str, ...] = (), ignored: bool = False) -> Entry:
    y = integers(5, 4) if not ignored else "np.array([1, -100, 4, 0], 'int32')"
    return Entry(name, torch, jittor, {"x": normal(4, 5), "y": y, "w": uniform(0.5, 2, 5)}, grad=("x",), edges=edges)


CE, BCE = "F.cross_entropy(x, y.long()", "F.binary_cross_entropy_with_logits(x, y"
ENTRIES = [
    two("l1_loss", "F.l1_loss(x, y)", edges=("nan", "inf", "huge")),
    two("l1_loss, at equal values", "F.l1_loss(x, x.detach())"),
    two("l1_loss, sum", "F.l1_loss(x, y, reduction='sum')", "nn.L1Loss(reduction='sum')(x, y)"),
    two("mse_loss", "F.mse_loss(x, y)", edges=("nan", "inf", "huge")),
    two("mse_loss, none", "F.mse_loss(x, y, reduction='none')"),
    two("smooth_l1_loss", "F.smooth_l1_loss(x, y)", edges=("nan", "far")),
    two("smooth_l1_loss, beta 0.3", "F.smooth_l1_loss(x, y, beta=0.3)"),
    two("smooth_l1_loss, sum", "F.smooth_l1_loss(x, y, reduction='sum')"),
    two("huber_loss", "F.huber_loss(x, y, delta=0.5)"),
    binary("binary_cross_entropy", "F.binary_cross_entropy(x, y)", "nn.bce_loss(x, y)", logits=False),
    binary("binary_cross_entropy at 0 and 1", "F.binary_cross_entropy(x.round(), y)", "nn.bce_loss(x.round(), y)", logits=False),
    binary("binary_cross_entropy, weight", "F.binary_cross_entropy(x, y, w.expand(4, 5))", "nn.bce_loss(x, y, w.expand(4, 5))", logits=False),
    binary("bce with logits", BCE + ")", edges=("nan", "inf", "ties", "far", "huge")),
    binary("bce with logits, none", BCE + ", reduction='none')", BCE.replace("F.", "nn.") + ", size_average=None)", edges=("far",)),
    Entry("bce with logits, a small loss", BCE + ")", inputs={"x": "np.array([20.0], 'float32')", "y": "np.ones(1, 'float32')"}, grad=("x",), smooth=False),
    binary("bce with logits, pos_weight", BCE + ", pos_weight=w)"),
    binary("bce with logits, weight", BCE + ", weight=w)"),
    classes("cross_entropy", CE + ")", "nn.cross_entropy_loss(x, y)", edges=("nan", "inf", "far", "huge")),
    classes("nn.CrossEntropyLoss", "nn.CrossEntropyLoss()(x, y.long())", "nn.CrossEntropyLoss()(x, y)"),
    classes("cross_entropy, weight", CE + ", weight=w)", "nn.cross_entropy_loss(x, y, weight=w)"),
    classes("cross_entropy, ignored label", CE + ", ignore_index=-100)", "nn.cross_entropy_loss(x, y, ignore_index=-100)", ignored=True),
    classes("cross_entropy, ignored label, PyTorch's default", CE + ")", "nn.cross_entropy_loss(x, y)", ignored=True),
    classes("cross_entropy, sum", CE + ", reduction='sum')", "nn.cross_entropy_loss(x, y, reduction='sum')"),
    classes("cross_entropy, none", CE + ", reduction='none')", "nn.cross_entropy_loss(x, y, reduction='none')"),
    classes("cross_entropy, label_smoothing", CE + ", label_smoothing=0.1)", "nn.cross_entropy_loss(x, y, label_smoothing=0.1)"),
    Entry("cross_entropy, soft targets", "F.cross_entropy(x, y.softmax(1))", "nn.cross_entropy_loss(x, y.softmax(1))", {"x": normal(4, 5), "y": normal(4, 5)}, grad=("x",)),
    Entry("cross_entropy, images", "F.cross_entropy(x, y.long())", "nn.cross_entropy_loss(x, y)", {"x": normal(2, 4, 3, 3), "y": integers(4, 2, 3, 3)}, grad=("x",)),
    Entry("cross_entropy, label out of range", "F.cross_entropy(x, y.long())", "nn.cross_entropy_loss(x, y)", {"x": normal(2, 4), "y": "np.array([1, 7], 'int32')"}, grad=(), refused=True),
    classes("nll_loss", "F.nll_loss(x, y.long())", "nn.nll_loss(x, y)"),
    two("kl_div", "F.kl_div(x, y.softmax(1), reduction='batchmean')", "nn.KLDivLoss(reduction='batchmean')(x, y.softmax(1))"),
    two("kl_div, mean", "F.kl_div(x, y.softmax(1))", "nn.KLDivLoss()(x, y.softmax(1))"),
    two("soft_margin_loss", "F.soft_margin_loss(x, y.sign())"),
    two("hinge_embedding_loss", "F.hinge_embedding_loss(x, y.sign())"),
    two("cosine_embedding_loss", "F.cosine_embedding_loss(x, y, torch.ones(4))"),
    two("triplet_margin_loss", "F.triplet_margin_loss(x, y, -y)"),
    two("gaussian_nll_loss", "F.gaussian_nll_loss(x, y, torch.ones(4, 5))"),
    Entry("ctc_loss", "F.ctc_loss(x.log_softmax(2), y.long(), torch.tensor([6, 5]), torch.tensor([3, 2]), reduction='sum')",
          "jt.ctc_loss(nn.log_softmax(x, 2), y, jt.array([6, 5]), jt.array([3, 2]), reduction='sum')",
          {"x": normal(6, 2, 5), "y": integers(5, 2, 3, low=1)}, grad=("x",)),
]

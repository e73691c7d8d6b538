"""Normalising layers, with what they keep."""

from __future__ import annotations

from alignment.atlas.entry import LAYER, Entry, normal

EDGES = (*LAYER, "tiny", "far")


def layer(name: str, code: str, shape: tuple[int, ...] = (3, 4, 5, 4), channels: tuple[int, ...] = (4,), jittor: str = "", edges: tuple[str, ...] = (), shift: float = 0) -> Entry:
    """`code` makes the module ``m``; weight and bias are the drawn ones."""
    x = normal(*shape) + (f" + np.float32({shift})" if shift else "")
    torch = f"m = {code}\ndel m.weight, m.bias\nm.weight, m.bias = w, b\nm(x)"
    return Entry(name, torch, f"m = {jittor or code}\nm.weight, m.bias = w, b\nm(x)",
                 {"x": x, "w": normal(*channels), "b": normal(*channels)}, edges=edges)


def plain(name: str, torch: str, jittor: str = "", shape: tuple[int, ...] = (3, 4, 5, 4), edges: tuple[str, ...] = (), **more) -> Entry:
    return Entry(name, torch, jittor, {"x": normal(*shape)}, edges=edges, **more)


STEPS = "m = nn.BatchNorm2d(4)\nfor k in range(3):\n    m(x + k)\nm.running_mean, m.running_var"
ENTRIES = [
    layer("batch_norm 2d, training", "nn.BatchNorm2d(4)", edges=EDGES),
    layer("batch_norm 2d, eval", "nn.BatchNorm2d(4).eval()", jittor="nn.BatchNorm2d(4)\nm.eval()", edges=EDGES),
    layer("batch_norm 2d, eps 1e-3", "nn.BatchNorm2d(4, eps=1e-3)"),
    layer("batch_norm 2d, mean large against the spread", "nn.BatchNorm2d(4)", shift=1000),
    layer("batch_norm 2d, one image of one pixel, eval", "nn.BatchNorm2d(4).eval()", (1, 4, 1, 1), jittor="nn.BatchNorm2d(4)\nm.eval()"),
    layer("batch_norm 1d, (B, C)", "nn.BatchNorm1d(4)", (6, 4)),
    layer("batch_norm 1d, (B, C, L)", "nn.BatchNorm1d(4)", (3, 4, 5)),
    layer("batch_norm 3d", "nn.BatchNorm3d(4)", (2, 4, 2, 3, 2)),
    plain("batch_norm, no affine", "nn.BatchNorm2d(4, affine=False)(x)"),
    plain("batch_norm, statistics after 3 steps", STEPS, grad=()),
    plain("batch_norm, statistics, momentum 0.3", STEPS.replace("(4)", "(4, momentum=0.3)", 1), grad=()),
    plain("batch_norm, one value a channel in training", "nn.BatchNorm2d(4)(x)", shape=(1, 4, 1, 1), refused=True),
    plain("batch_norm, num_batches_tracked", "m = nn.BatchNorm2d(4)\nm(x)\nm.num_batches_tracked", grad=()),
    layer("group_norm, 2 groups", "nn.GroupNorm(2, 4)", edges=EDGES),
    layer("group_norm, 1 group", "nn.GroupNorm(1, 4)"),
    layer("group_norm, a group a channel", "nn.GroupNorm(4, 4)"),
    layer("group_norm, mean large against the spread", "nn.GroupNorm(2, 4)", shift=1000),
    plain("group_norm, no affine", "nn.GroupNorm(2, 4, affine=False)(x)"),
    layer("layer_norm, last dimension", "nn.LayerNorm(4)", (3, 5, 4), edges=EDGES),
    layer("layer_norm, two dimensions", "nn.LayerNorm((5, 4))", channels=(5, 4)),
    layer("layer_norm, eps 1e-6", "nn.LayerNorm(4, eps=1e-6)", (3, 5, 4)),
    layer("layer_norm, mean large against the spread", "nn.LayerNorm(4)", (3, 5, 4), shift=1000),
    plain("layer_norm, no affine", "nn.LayerNorm(4, elementwise_affine=False)(x)"),
    layer("instance_norm 2d", "nn.InstanceNorm2d(4, affine=True)", edges=LAYER),
    plain("instance_norm 2d, PyTorch's default (no affine)", "nn.InstanceNorm2d(4)(x)", edges=()),
    layer("instance_norm 1d", "nn.InstanceNorm1d(4, affine=True)", (3, 4, 6)),
    plain("normalize, L2", "F.normalize(x, dim=1)", "jt.normalize(x, dim=1)", edges=("nan", "inf", "tiny", "huge", "empty")),
    plain("normalize, L1", "F.normalize(x, p=1, dim=1)", "jt.normalize(x, p=1, dim=1)"),
    plain("local_response_norm", "F.local_response_norm(x, 3)"),
    plain("rms_norm", "F.rms_norm(x, (4,))"),
]

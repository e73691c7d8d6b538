"""Activations."""

from __future__ import annotations

from alignment.atlas.entry import ELEMENTWISE, Entry, normal

ROWS = ("nan", "inf", "ties", "far", "huge", "strided", "empty")


def act(name: str, torch: str, jittor: str = "", **more) -> Entry:
    inputs = {"x": normal(3, 5), **more.pop("inputs", {})}
    return Entry(name, torch, jittor, inputs, **{"edges": ELEMENTWISE, "relative": True, **more})


ENTRIES = [
    act("relu", "F.relu(x)"),
    act("nn.ReLU", "nn.ReLU()(x)", edges=()),
    act("relu6", "F.relu6(x)"),
    act("nn.ReLU6", "nn.ReLU6()(x)", edges=()),
    act("leaky_relu", "F.leaky_relu(x, 0.1)"),
    act("nn.LeakyReLU", "nn.LeakyReLU(0.1)(x)", edges=()),
    act("elu", "F.elu(x)"),
    act("elu, alpha 0.5", "F.elu(x, 0.5)", edges=()),
    act("selu", "F.selu(x)"),
    act("celu", "F.celu(x)"),
    act("gelu", "F.gelu(x)"),
    act("gelu, tanh", "F.gelu(x, approximate='tanh')"),
    act("nn.GELU", "nn.GELU()(x)", edges=()),
    act("silu", "F.silu(x)"),
    act("nn.SiLU", "nn.SiLU()(x)", edges=()),
    act("mish", "F.mish(x)"),
    act("sigmoid", "torch.sigmoid(x)", "x.sigmoid()"),
    act("nn.Sigmoid", "nn.Sigmoid()(x)", edges=()),
    act("log_sigmoid", "F.logsigmoid(x)", "nn.log_sigmoid(x)"),
    act("tanh", "torch.tanh(x)"),
    act("softplus", "F.softplus(x)"),
    act("softplus, beta 2, threshold 5", "F.softplus(x, 2, 5)", edges=("far",)),
    act("softsign", "F.softsign(x)"),
    act("hardtanh", "F.hardtanh(x)"),
    act("hardsigmoid", "F.hardsigmoid(x)"),
    act("hardswish", "F.hardswish(x)"),
    act("threshold", "F.threshold(x, 0.1, 20)"),
    act("prelu", "F.prelu(x, a)", "m = nn.PReLU(5)\nm.weight = a\nm(x)", inputs={"a": normal(5)}, edges=("nan", "ties", "empty")),
    act("glu", "F.glu(x, 0)", inputs={"x": normal(4, 5)}, edges=()),
    act("softmax, last", "F.softmax(x, dim=-1)", edges=ROWS),
    act("softmax, first", "F.softmax(x, dim=0)", edges=("empty",)),
    act("nn.Softmax", "nn.Softmax(dim=1)(x)", edges=()),
    act("log_softmax", "F.log_softmax(x, dim=1)", edges=ROWS),
    act("softmin", "F.softmin(x, dim=1)", edges=()),
    act("dropout, p 0", "F.dropout(x, 0.0, True)", "nn.dropout(x, 0.0, True)", edges=()),
    act("dropout, not training", "F.dropout(x, 0.5, False)", "nn.dropout(x, 0.5, False)", edges=()),
]

"""Initialisers, and what layers begin with."""

from __future__ import annotations

from alignment.atlas.entry import Entry


def drawn(name: str, torch: str, jittor: str) -> Entry:
    return Entry(name, torch, jittor, kind="distribution", smooth=False)


def filled(name: str, torch: str, jittor: str, shape: str = "(64, 32, 3, 3)") -> Entry:
    return drawn(name, f"w = torch.empty{shape}\ninit.{torch}\nw", f"w = jt.zeros({shape})\ninit.{jittor or torch}\nw")


ENTRIES = [
    Entry("constant_", "init.constant_(torch.empty(2, 3), 0.3)", "w = jt.zeros((2, 3))\ninit.constant_(w, 0.3)\nw"),
    Entry("zeros_", "init.zeros_(torch.empty(2, 3))", "w = jt.ones((2, 3))\ninit.zero_(w)\nw"),
    Entry("eye_", "init.eye_(torch.empty(3, 4))", "w = jt.zeros((3, 4))\ninit.eye_(w)\nw"),
    Entry("calculate_gain", "[np.float64(init.calculate_gain(n)) for n in ('linear', 'relu', 'tanh', 'sigmoid', 'leaky_relu')]",
          "[np.float64(init.calculate_gain(n)) for n in ('linear', 'relu', 'tanh', 'sigmoid', 'leaky_relu')]", smooth=False),
    filled("uniform_", "uniform_(w, -0.2, 0.7)", ""),
    filled("normal_", "normal_(w, 0.1, 0.02)", "gauss_(w, 0.1, 0.02)"),
    filled("trunc_normal_", "trunc_normal_(w, std=0.02)", ""),
    filled("xavier_uniform_", "xavier_uniform_(w)", ""),
    filled("xavier_normal_", "xavier_normal_(w)", "xavier_gauss_(w)"),
    filled("kaiming_uniform_", "kaiming_uniform_(w, a=1)", ""),
    filled("kaiming_normal_, fan_in", "kaiming_normal_(w, mode='fan_in', nonlinearity='relu')", ""),
    filled("kaiming_normal_, fan_out", "kaiming_normal_(w, mode='fan_out', nonlinearity='relu')", ""),
    filled("kaiming_normal_, leaky_relu", "kaiming_normal_(w, a=0.1, nonlinearity='leaky_relu')", ""),
    filled("kaiming_normal_, a matrix", "kaiming_normal_(w)", "", "(64, 128)"),
    filled("xavier_uniform_, a matrix", "xavier_uniform_(w)", "", "(64, 128)"),
    drawn("nn.Conv2d, weight and bias", "m = nn.Conv2d(32, 512, 3)\nm.weight.detach(), m.bias.detach()", "m = nn.Conv2d(32, 512, 3)\nm.weight, m.bias"),
    drawn("nn.Conv2d, groups", "nn.Conv2d(64, 512, 3, groups=4).weight.detach()", "nn.Conv2d(64, 512, 3, groups=4).weight"),
    drawn("nn.Conv2d, depthwise", "nn.Conv2d(512, 512, 3, groups=512).weight.detach()", "nn.Conv2d(512, 512, 3, groups=512).weight"),
    drawn("nn.Linear, weight and bias", "m = nn.Linear(64, 512)\nm.weight.detach(), m.bias.detach()", "m = nn.Linear(64, 512)\nm.weight, m.bias"),
    drawn("nn.ConvTranspose2d, weight", "nn.ConvTranspose2d(32, 64, 3).weight.detach()", "nn.ConvTranspose2d(32, 64, 3).weight"),
    drawn("nn.Embedding, weight", "nn.Embedding(64, 64).weight.detach()", "nn.Embedding(64, 64).weight"),
    Entry("nn.BatchNorm2d begins with", "m = nn.BatchNorm2d(2)\nm.weight.detach(), m.bias.detach(), m.running_mean, m.running_var",
          "m = nn.BatchNorm2d(2)\nm.weight, m.bias, m.running_mean, m.running_var"),
    Entry("defaults of eps and momentum", "[np.float64(v) for v in (nn.BatchNorm2d(2).eps, nn.BatchNorm2d(2).momentum, nn.GroupNorm(1, 2).eps, nn.LayerNorm(2).eps, nn.InstanceNorm2d(2).eps)]",
          "[np.float64(v) for v in (nn.BatchNorm2d(2).eps, nn.BatchNorm2d(2).momentum, nn.GroupNorm(1, 2).eps, nn.LayerNorm(2).eps, nn.InstanceNorm2d(2).eps)]", smooth=False),
]

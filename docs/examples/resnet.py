"""A small ResNet: two stages of basic blocks, the second with stride and a projection; the port names its parts otherwise.

    python -m alignment.layers --pair docs/examples/resnet.py --output out
"""

import numpy as np


def build_reference():
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
            self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
            self.relu = nn.ReLU(inplace=True)  # called twice, and overwrites its input
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if stride > 1 else None

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            return self.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
            self.layer1, self.layer2 = Block(8, 8, 1), Block(8, 16, 2)
            self.fc = nn.Linear(16, 10)

        def forward(self, x):
            x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    return ResNet()


def build_candidate():
    from jittor import nn

    class BatchNorm(nn.BatchNorm):
        """As PyTorch's in training. Jittor's own takes the variance as mean(x²) - mean(x)², and keeps the biased one: `alignment.train` finds both.

        In float64 within: Jittor adds up long float32 sums one after the other, and the gradients are then less accurate than PyTorch's, which `--backward` finds.
        """

        def execute(self, x):
            if not self.is_train:
                return super().execute(x)
            n, shape = x.numel() // x.shape[1], (1, -1, 1, 1)
            mean = x.float64().mean((0, 2, 3))
            centred = x.float64() - mean.reshape(shape)
            var = (centred * centred).mean((0, 2, 3))
            self.running_mean.update((self.running_mean + (mean - self.running_mean) * self.momentum).float32())
            self.running_var.update((self.running_var + (var * (n / (n - 1)) - self.running_var) * self.momentum).float32())
            return (centred * (self.weight.float64() / (var + self.eps).sqrt()).reshape(shape) + self.bias.float64().reshape(shape)).float32()

    class Block(nn.Module):
        def __init__(self, cin, cout, stride):
            self.conv_a, self.norm_a = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), BatchNorm(cout)
            self.conv_b, self.norm_b = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), BatchNorm(cout)
            self.relu = nn.ReLU()
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), BatchNorm(cout)) if stride > 1 else None

        def execute(self, x):
            y = self.norm_b(self.conv_b(self.relu(self.norm_a(self.conv_a(x)))))
            return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    class ResNet(nn.Module):
        def __init__(self):
            self.stem, self.stem_norm, self.relu = nn.Conv2d(3, 8, 3, 1, 1, bias=False), BatchNorm(8), nn.ReLU()
            self.stage1, self.stage2 = Block(8, 8, 1), Block(8, 16, 2)
            self.head = nn.Linear(16, 10)

        def execute(self, x):
            x = self.stage2(self.stage1(self.relu(self.stem_norm(self.stem(x)))))
            return self.head(x.mean((2, 3)))

    return ResNet()


def inputs(seed):
    return np.random.RandomState(seed).randn(2, 3, 16, 16).astype(np.float32)

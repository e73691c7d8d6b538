"""A small U-shaped segmentation net with transposed convolutions; the port calls its activation as a function.

    python -m alignment.layers --pair docs/examples/segmentation.py --output out
"""

import numpy as np


def build_reference():
    import torch
    from torch import nn

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.down, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(2)
            self.up, self.dec, self.mask = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
            self.act = nn.ReLU()

        def forward(self, x):
            a = self.act(self.enc(x))
            b = self.act(self.down(self.pool(a)))
            return self.mask(self.act(self.dec(torch.cat([a, self.up(b)], 1))))

    torch.manual_seed(0)
    return UNet()


def build_candidate():
    import jittor as jt
    from jittor import nn

    class UNet(nn.Module):
        def __init__(self):
            self.enc, self.down, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(2, 2)
            self.up, self.dec, self.mask = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

        def execute(self, x):
            a = nn.relu(self.enc(x))
            b = nn.relu(self.down(self.pool(a)))
            return self.mask(nn.relu(self.dec(jt.concat([a, self.up(b)], 1))))

    return UNet()


def inputs(seed):
    return np.random.RandomState(seed).randn(1, 3, 16, 16).astype(np.float32)

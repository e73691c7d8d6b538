"""A small pre-norm transformer encoder with LayerNorm and GELU; one block is called twice, and there are two outputs in a dict.

    python -m alignment.layers --pair docs/examples/transformer.py --output out
"""

import numpy as np

WIDTH, HEADS = 16, 2


def build_reference():
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            b, n, _ = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            weights = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, -1)
            return self.out((weights @ v).permute(0, 2, 1, 3).reshape(b, n, WIDTH)), weights

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
            self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

        def forward(self, x):
            y, weights = self.attn(self.norm1(x))
            x = x + y
            return x + self.mlp(self.norm2(x)), weights

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.block, self.norm = nn.Linear(12, WIDTH), Block(), nn.LayerNorm(WIDTH)

        def forward(self, tokens):
            x, _ = self.block(self.embed(tokens))
            x, weights = self.block(x)
            return {"features": self.norm(x), "maps": (weights,)}

    torch.manual_seed(0)
    return Encoder()


def build_candidate():
    import jittor as jt
    from jittor import nn

    class Attention(nn.Module):
        def __init__(self):
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

        def execute(self, x):
            b, n, _ = x.shape
            qkv = self.qkv(x).reshape(b, n, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
            weights = nn.softmax(jt.matmul(q, k.transpose(0, 1, 3, 2)) / (WIDTH // HEADS) ** 0.5, -1)
            return self.out(jt.matmul(weights, v).permute(0, 2, 1, 3).reshape(b, n, WIDTH)), weights

    class Block(nn.Module):
        def __init__(self):
            self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
            self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

        def execute(self, x):
            y, weights = self.attn(self.norm1(x))
            x = x + y
            return x + self.mlp(self.norm2(x)), weights

    class Encoder(nn.Module):
        def __init__(self):
            self.embed, self.block, self.norm = nn.Linear(12, WIDTH), Block(), nn.LayerNorm(WIDTH)

        def execute(self, tokens):
            x, _ = self.block(self.embed(tokens))
            x, weights = self.block(x)
            return {"features": self.norm(x), "maps": (weights,)}

    return Encoder()


def inputs(seed):
    return {"tokens": np.random.RandomState(seed).randn(2, 6, 12).astype(np.float32)}

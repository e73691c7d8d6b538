"""A plan: the steps of one network on one input size, each over channel planes.

A value of the network is a tuple of planes, one a channel. Concatenation, split and channel shuffle only rearrange such tuples, so they
cost nothing and appear in no plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

KINDS = ("stem", "pointwise", "depthwise", "upsample", "head")


@dataclass(frozen=True)
class Plane:
    """Channel `index` of buffer number `buffer`."""

    buffer: int
    index: int


@dataclass(frozen=True)
class Buffer:
    """`channels` planes of (height, width) that live and die together."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Activation:
    """min(max(x, slope·x), cap); `name` as the configuration calls it."""

    name: str
    slope: float
    cap: float = float(np.finfo(np.float32).max)


@dataclass
class Step:
    """One step. weight (O, I, K, K) and bias (O,) are folded, float32; the upsampling has none.

    `name` is the path of the module whose convolution this is. `stride` of a head is its level's stride in pixels, and `first_prior` its first
    row of the output.
    """

    kind: str
    name: str
    height: int
    width: int
    inputs: tuple[Plane, ...] = ()
    outputs: tuple[Plane, ...] = ()
    residual: tuple[Plane, ...] = ()
    activation: Activation | None = None
    kernel: int = 1
    stride: int = 1
    first_prior: int = 0
    weight: np.ndarray | None = field(default=None, repr=False)
    bias: np.ndarray | None = field(default=None, repr=False)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the convolution on one image; 0 for the upsampling."""
        if self.weight is None:
            return 0
        down = 1 if self.kind == "head" else self.stride
        return self.weight.size * -(-self.height // down) * -(-self.width // down)


@dataclass
class Plan:
    """Steps in order of execution, the buffers they use, and the sizes of what goes in and comes out."""

    height: int
    width: int
    channels: int = 3
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    priors: int = 0
    outputs: int = 0
    classes: int = 0
    bins: int = 0

    def buffer(self, channels: int, height: int, width: int) -> tuple[Plane, ...]:
        """A new buffer's planes."""
        self.buffers.append(Buffer(channels, height, width))
        return tuple(Plane(len(self.buffers) - 1, i) for i in range(channels))

    def __str__(self) -> str:
        rows = [f"{self.channels}x{self.height}x{self.width} image to {self.priors}x{self.outputs} raw outputs, {len(self.steps)} steps, "
                f"{sum(s.multiply_adds for s in self.steps) / 1e6:.1f} M multiply-adds"]
        for s in self.steps:
            channels = len(s.outputs) or (0 if s.weight is None else len(s.weight))
            size = {"depthwise": f" {s.kernel}x{s.kernel}/{s.stride}", "stem": " 3x3/2 + pool 3x3/2", "upsample": " x2"}.get(s.kind, "")
            more = (f" {s.activation.name}" if s.activation else "") + (" + residual" if s.residual else "")
            rows.append(f"{s.kind + size:26s} {len(s.inputs) or self.channels:4d} -> {channels:4d} on {s.height}x{s.width:<4d} {s.name}{more}")
        return "\n".join(rows)

"""What leaves the mathematics as it is and changes the rounding: the harmless changes under which PyTorch measures floors."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


@dataclass(frozen=True)
class Change:
    """A circumstance that leaves the mathematics as it is: a context around the run, what is done to each input, and to each
    output; `weights` asks for the model whose weights were moved by one ULP."""

    name: str
    around: Callable[[], Any] = contextlib.nullcontext
    before: Callable[[Any], Any] = lambda tensor: tensor
    after: Callable[[Any], Any] = lambda tensor: tensor
    weights: bool = False


@contextlib.contextmanager
def other_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def other_algorithm() -> Iterator[None]:
    kept = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    torch.backends.mkldnn.enabled = torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled = kept


class ByOneDNN(TorchDispatchMode):
    """Every two-dimensional float32 convolution on the CPU, and its gradients, by oneDNN with channels last.

    One small image PyTorch computes without oneDNN, whatever its memory format: then neither `other_algorithm` nor the format is another algorithm. Behind it
    a blank image is put, which moves no sum and is cut off again, because two images go to oneDNN.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        count = CONVOLUTIONS.index(func) + 1 if func in CONVOLUTIONS else 0  # leading arguments with one entry for each image
        if not count or any(t.ndim != 4 or t.dtype != torch.float32 or t.device.type != "cpu" for t in args[:count]):
            return func(*args, **(kwargs or {}))
        images, found = len(args[0]), func(*map(followed, args[:count]), *args[count:], **(kwargs or {}))
        first, *rest = (found,) if count == 1 else found
        first = None if first is None else as_it_was(first[:images], args[count - 1])
        return first if count == 1 else (first, *rest)


def followed(images: Any) -> Any:
    """(B, C, H, W) with channels last; a single image is followed by a blank one."""
    return (torch.cat((images, torch.zeros_like(images))) if len(images) == 1 else images).contiguous(memory_format=torch.channels_last)


def as_it_was(images: Any, given: Any) -> Any:
    """`images` in the memory format of `given`, which may be a slice of channels. Else normalisations would go by channels last too, and PyTorch
    takes the statistics of a batch less exactly then."""
    last = given.stride(1) == 1 and given.shape[1] > 1
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@contextlib.contextmanager
def channels_last() -> Iterator[None]:
    """Convolutions by `ByOneDNN`; with one thread PyTorch would keep the 1x1 ones to itself, so two at least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads, 2))
    try:
        with ByOneDNN():
            yield
    finally:
        torch.set_num_threads(threads)


def nudge(tensor: Any, random: np.random.RandomState) -> Any:
    """Every element moved to its upper or lower neighbour, at random."""
    array = tensor.cpu().numpy()
    towards = np.where(random.rand(*array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
    return torch.from_numpy(np.asarray(np.nextafter(array, towards))).to(tensor.device)


def nudged_model(model: Any, seed: int) -> Any:
    """A copy with every floating weight and buffer moved by one ULP: what a layer that folds them in another order may see."""
    random, twin = np.random.RandomState(seed), copy.deepcopy(model)
    for tensor in twin.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(nudge(tensor, random))
    return twin


def harmless_changes(seed: int, any_type: bool = False) -> list[Change]:
    """With `any_type` integers (indices, masks) are left as they are."""
    random = np.random.RandomState(seed)
    return [
        Change("other number of threads", around=other_threads),
        Change("other convolution algorithm", around=other_algorithm),
        Change("channels last", around=channels_last, before=lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t),
        # behind a neighbour with other values: the same image must not care
        Change("position in the batch", before=lambda t: torch.cat((t.flip(-1), t)), after=lambda t: t[len(t) // 2:]),
        Change("input moved by one ULP", before=lambda t: t if any_type and not t.is_floating_point() else nudge(t, random)),
        Change("weights moved by one ULP", weights=True),
    ]


#: (name, context around the step, what is moved by one ULP: "", "input" or "weights"); the batch stays whole, because its statistics count.
TRAINING_CHANGES: list[tuple[str, Callable[[], Any], str]] = [
    ("other number of threads", other_threads, ""), ("other convolution algorithm", other_algorithm, ""), ("convolutions with channels last", channels_last, ""),
    ("input moved by one ULP", contextlib.nullcontext, "input"), ("weights moved by one ULP", contextlib.nullcontext, "weights"),
]

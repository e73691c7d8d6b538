"""What a pair of models needs of PyTorch beyond `torch_runner`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

HYPER = {
    "LayerNorm": ("eps",), "Linear": ("in_features", "out_features"), "GELU": (), "Dropout": ("p",), "InstanceNorm2d": ("eps",),
    "ConvTranspose2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "groups", "dilation"),
    "BatchNorm1d": ("num_features", "eps", "momentum"), "Embedding": ("num_embeddings", "embedding_dim"),
}


class Hands:
    def __init__(self, backend: Any):
        self.backend = backend

    def adopt(self, model: Any) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"build_reference() returned {type(model).__name__}, no torch.nn.Module")
        self.backend.model = model.to(self.backend.device).eval()

    def hyper(self, module: Any) -> dict[str, Any]:
        found = self.backend.hyper(module)
        for name in HYPER.get(type(module).__name__, ()):
            value = getattr(module, name)
            found[name] = list(value) if isinstance(value, tuple) else value
        if isinstance(module, torch.nn.Linear):
            found["bias"] = module.bias is not None
        return found

    def state(self) -> dict[str, np.ndarray]:
        return {k: np.array(v.detach().cpu().numpy()) for k, v in self.backend.model.state_dict().items()}

    def array(self, tensor: Any) -> np.ndarray:
        tensor = tensor.detach().cpu()
        return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())

    snapshot = array  # at once: a later call may overwrite the tensor

    @contextlib.contextmanager
    def watch(self, model: Any, before: Callable, after: Callable) -> Iterator[None]:
        """``before(path, module, args, kwargs)`` ahead of every call, ``after(path, module, output)`` behind it."""
        handles = []
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda m, a, k, path=path: before(path, m, a, k), with_kwargs=True))
            handles.append(module.register_forward_hook(lambda m, a, o, path=path: after(path, m, o)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def double(self, model: Any) -> Any:
        return copy.deepcopy(model).double()

    def widened(self, tensor: Any) -> Any:
        return tensor.double() if tensor.is_floating_point() else tensor

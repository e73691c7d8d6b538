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
#: Activations with a kink at 0.
KINKED = ("ReLU", "LeakyReLU", "ReLU6")


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

    def load(self, state: dict[str, np.ndarray]) -> None:
        self.backend.model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, strict=False)

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

    def training(self, model: Any) -> list[str]:
        """Training mode with dropout off; returns where it is off."""
        model.train()
        off = [path for path, module in model.named_modules() if "drop" in type(module).__name__.lower() and not list(module.children())]
        for path in off:
            model.get_submodule(path).eval()
        return off

    def is_floating(self, tensor: Any) -> bool:
        return tensor.is_floating_point()

    def is_kinked(self, module: Any) -> bool:
        return type(module).__name__ in KINKED

    def leaf(self, array: np.ndarray, change: Callable[[Any], Any] = lambda t: t) -> Any:
        """`array`, changed, as a tensor whose gradient can be asked for where it is floating."""
        tensor = change(self.backend.tensor(array))
        return tensor.requires_grad_() if tensor.is_floating_point() else tensor

    def passed(self, tensor: Any) -> Any:
        """What a module gets in place of a leaf: it may overwrite its input."""
        return tensor.clone() if tensor.requires_grad else tensor

    def keep(self, tensor: Any) -> "Kept":
        return Kept(tensor)

    def weighted(self, tensor: Any, weights: np.ndarray) -> Any:
        return (tensor * torch.from_numpy(weights).to(tensor)).double().sum()

    def gradients(self, total: Any, kept: dict[str, "Kept"]) -> dict[str, np.ndarray]:
        if not total.requires_grad:
            raise ValueError("it depends on no weight and on no input")
        total.backward()
        return {name: one.taken() for name, one in kept.items()}

    @contextlib.contextmanager
    def other_side(self, model: Any, near: Callable[[str], np.ndarray | None]) -> Iterator[None]:
        """Activations with a kink at 0: elements in the mask ``near(path)`` of each call are put through the line of the other side."""
        handles, held = [], {}

        def before(module: Any, inputs: tuple) -> None:
            held.setdefault(id(module), []).append(inputs[0].clone())  # the module may overwrite it

        def after(module: Any, inputs: tuple, output: Any, path: str) -> Any:
            x, mask = held[id(module)].pop(), near(path)
            if mask is None or mask.size != x.numel():
                return None
            slope = getattr(module, "negative_slope", 0.0)
            return torch.where(torch.from_numpy(mask).to(x.device).reshape(x.shape), torch.where(x > 0, x * slope, x), output)

        for path, module in model.named_modules():
            if self.is_kinked(module):
                handles += [module.register_forward_pre_hook(before), module.register_forward_hook(lambda m, i, o, path=path: after(m, i, o, path))]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Kept:
    """The gradient of a tensor as it is now, whatever overwrites it later: a hook belongs to the version that it was registered on."""

    def __init__(self, tensor: Any):
        self.shape, self.dtype, self.found = tuple(tensor.shape), tensor.dtype, None
        self.handle = tensor.register_hook(self.seen) if tensor.requires_grad else None

    def seen(self, gradient: Any) -> None:
        self.found = gradient.detach().clone()

    def taken(self) -> np.ndarray:
        """(shape of the tensor): zeros where the loss does not depend on it."""
        if self.handle is not None:
            self.handle.remove()
        return np.array((torch.zeros(self.shape, dtype=self.dtype) if self.found is None else self.found.cpu()).numpy())

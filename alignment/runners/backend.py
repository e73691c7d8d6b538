"""What a side must offer to be run, tapped and re-fed; the same words for both frameworks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

#: Containers that only hold others; they compute nothing of their own.
HOLDERS = ("Sequential", "ModuleList")


class Backend(ABC):
    """One framework. `model` is set by `load`; tensors are the framework's own except where NumPy is named."""

    side: str
    framework: str
    model: Any = None

    @abstractmethod
    def load(self, config: Any, weights: Mapping[str, np.ndarray], *, training_branch: bool) -> None:
        """Build the model of `config` and give it `weights`, strictly."""

    @abstractmethod
    def shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Name to shape of the whole state dict of `config`'s model, as upstream's files have it."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """The loaded model's whole state dict under upstream's names, in upstream's order."""

    @abstractmethod
    def modules(self) -> Iterator[tuple[str, Any]]:
        """(path, module) in upstream's order, the root (path "") first."""

    @abstractmethod
    def children(self, module: Any) -> list[Any]:
        """Direct submodules; empty for a leaf."""

    @abstractmethod
    def hyper(self, module: Any) -> dict[str, Any]:
        """Hyper-parameters of a leaf under PyTorch's names (`stride`, `eps`, `negative_slope` ...), as plain numbers, lists and strings."""

    @abstractmethod
    def tap(self, seen: Callable[[str, Any, tuple, Any], None]) -> AbstractContextManager:
        """Call ``seen(path, module, inputs, output)`` after every module's call while the context lasts."""

    @abstractmethod
    def parameters(self, module: Any) -> list[tuple[str, tuple[int, ...], str, bool]]:
        """(name, shape in upstream's state dict, dtype, trained or not) of the module's own entries."""

    @abstractmethod
    def array(self, tensor: Any) -> np.ndarray: ...

    @abstractmethod
    def tensor(self, array: np.ndarray) -> Any: ...

    @abstractmethod
    def forward(self, images: Any, auxiliary: bool) -> None:
        """The ordinary inference pass, decoding included, and the auxiliary branch where asked; what is to be seen is seen by taps."""

    @abstractmethod
    def decode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Untapped: `raw`, `boxes`, `scores` of a batch (B, 3, H, W)."""

    @abstractmethod
    def network(self, images: np.ndarray) -> np.ndarray:
        """Raw output (B, P, C + 4R) of a batch (B, 3, H, W)."""

    @abstractmethod
    def decode_raw(self, raw: np.ndarray, frame: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (B, P, 4) and scores (B, P, C) from a raw output, for an input of `frame` (height, width)."""

    @abstractmethod
    def host(self, array: np.ndarray) -> Any:
        """An array as the side's suppression takes it."""

    @abstractmethod
    def tester(self) -> Any:
        """The side's `tester` module."""

    def detection_floor(self, images: list[np.ndarray]) -> dict[str, Any] | None:
        """Floors of `boxes` (input pixels) and `scores` over candidates; only the reference measures them."""
        return None

    @abstractmethod
    def versions(self) -> dict[str, str]: ...

    def circumstances(self) -> dict[str, Any]:
        """What the harmless changes of this process start from: threads, switches of the framework."""
        return {}

    def in_float64(self) -> AbstractContextManager:
        """The loaded model computes in float64 while the context lasts; afterwards it has to be loaded again."""
        raise NotImplementedError

    def tensor64(self, array: np.ndarray) -> Any:
        """As `tensor`, in float64 where it is floating."""
        raise NotImplementedError

    @abstractmethod
    def training_module(self) -> Any:
        """The side's `training_step` module."""

    @abstractmethod
    def learning(self) -> AbstractContextManager:
        """A context in which gradients are computed."""

    @abstractmethod
    def intercept(self, replace: Callable[[str, Any, tuple, Any], Any]) -> AbstractContextManager:
        """As `tap`, but what ``replace(path, module, inputs, output)`` returns, unless None, is the module's output."""

    @abstractmethod
    def leaf(self, array: np.ndarray, model: Any) -> Any:
        """`array` in the precision of `model`, as a tensor whose gradient can be asked for."""

    @abstractmethod
    def gradients(self, total: Any, tensors: list[Any]) -> list[Any]:
        """Gradients of a scalar; zeros for a tensor it does not depend on."""

    @abstractmethod
    def modules_of(self, model: Any) -> Iterator[tuple[str, Any]]:
        """`modules` of another model than the loaded one."""

    @abstractmethod
    def trained_of(self, module: Any) -> list[tuple[str, Any]]:
        """(name, tensor) of the module's own parameters, without its children's; for a model in training mode."""

    @abstractmethod
    def where(self, condition: Any, one: Any, other: Any) -> Any: ...

    def apart(self) -> AbstractContextManager:
        """A context in which every module is computed by itself, so that each output has a gradient; for a side that joins modules otherwise."""
        return nullcontext()

    @abstractmethod
    def like(self, array: np.ndarray, tensor: Any) -> Any:
        """`array` as a tensor of the type and shape of `tensor`."""

    def type_name(self, module: Any) -> str:
        return type(module).__name__

    def is_holder(self, module: Any) -> bool:
        return self.type_name(module) in HOLDERS

    def is_leaf(self, module: Any) -> bool:
        return not self.children(module) and not self.is_holder(module)


def tensors_of(value: Any) -> list[Any]:
    """The tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in tensors_of(item)]
    return [value] if hasattr(value, "shape") else []


def call_name(path: str, call: int) -> str:
    """Name of one call of a module that may be called several times: ``head.act``, ``head.act@2`` for the second call."""
    return path if call == 1 else f"{path}@{call}"


def map_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every tensor replaced by ``change(tensor)``; tuples, lists and dicts keep their form, anything else passes."""
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(item, change) for item in value)
    return change(value) if hasattr(value, "shape") else value


def describe(value: Any, name: Callable[[Any], str]) -> Any:
    """`value` as JSON, every tensor replaced by ``{"tensor": name(tensor)}``; `rebuild` is the way back."""
    if isinstance(value, Mapping):
        return {"dict": {key: describe(item, name) for key, item in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [describe(item, name) for item in value]}
    return {"tensor": name(value)} if hasattr(value, "shape") else {"value": value}


def named_tensors(described: Any) -> list[str]:
    """The tensors' names in what `describe` described, in order."""
    if isinstance(described, Mapping):
        return [described["tensor"]] if "tensor" in described else [n for value in described.values() for n in named_tensors(value)]
    return [n for value in described for n in named_tensors(value)] if isinstance(described, list) else []


def rebuild(described: Mapping[str, Any], load: Callable[[str], Any]) -> Any:
    """What `describe` described, with ``load(name)`` for every tensor."""
    (kind, content), = described.items()
    if kind == "tensor":
        return load(content)
    if kind == "dict":
        return {key: rebuild(item, load) for key, item in content.items()}
    if kind in ("tuple", "list"):
        items = [rebuild(item, load) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content

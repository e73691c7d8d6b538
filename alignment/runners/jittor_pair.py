"""What a pair of models needs of Jittor beyond `jittor_runner`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

HYPER = {
    "LayerNorm": ("eps",), "Linear": ("in_features", "out_features"), "Dropout": ("p",), "InstanceNorm": ("eps",), "BatchNorm": ("num_features", "eps", "momentum"),
    "ConvTranspose": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "groups", "dilation"),
    "Embedding": ("num_embeddings", "embedding_dim"),
}


class Hands:
    def __init__(self, backend: Any):
        self.backend, self.jt = backend, backend.jt

    def adopt(self, model: Any) -> None:
        if not isinstance(model, self.jt.Module):
            raise TypeError(f"build_candidate() returned {type(model).__name__}, no jittor.nn.Module")
        model.train()
        # Jittor's eval() stops the gradient of every weight; only train() shows which ones have any
        self.backend.trained = {id(v) for v in model.parameters() if not v.is_stop_grad()}
        model.eval()
        self.backend.model = model

    def hyper(self, module: Any) -> dict[str, Any]:
        found = self.backend.hyper(module)
        for name in HYPER.get(type(module).__name__, ()):
            value = getattr(module, name, None)
            if value is not None:
                found[name] = list(value) if isinstance(value, tuple) else value
        if type(module).__name__ in ("Linear", "ConvTranspose"):
            found["bias"] = module.bias is not None and module.bias is not False
        return found

    def entries(self) -> dict[str, Any]:
        return {f"{path}.{name}" if path else name: value for path, module in self.backend.modules() for name, value in vars(module).items()
                if isinstance(value, self.jt.Var) and not name.startswith("_")}

    def state(self) -> dict[str, np.ndarray]:
        return {k: np.array(v.numpy()) for k, v in self.entries().items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        for name, var in self.entries().items():
            if name in state:
                var.update(self.jt.array(np.array(state[name]).reshape(tuple(var.shape))))
        self.jt.sync_all()  # a one-element array that still waits in the graph breaks the fused kernel (docs/operators.md)

    def array(self, tensor: Any) -> np.ndarray:
        """Integers as 64 bits: Jittor keeps them in 32, whatever they were."""
        found = np.array(tensor.numpy())
        return found.astype(np.int64) if found.dtype == np.int32 else found

    def snapshot(self, tensor: Any) -> Any:
        """The Var itself, to be read when the run is over: its operators have no side effects."""
        return tensor

    @contextlib.contextmanager
    def watch(self, model: Any, before: Callable, after: Callable) -> Iterator[None]:
        tapped: dict[int, tuple[Any, Any]] = {}
        for path, module in self.backend.modules_of(model):
            if id(module) in tapped:
                continue

            def execute(*args, module=module, path=path, original=module.execute, **kwargs):
                before(path, module, args, kwargs)
                output = original(*args, **kwargs)
                after(path, module, output)
                return output

            tapped[id(module)] = module, vars(module).get("execute")
            module.execute = execute
        try:
            yield
        finally:
            for module, own in tapped.values():
                del module.execute
                if own is not None:  # the port may have given this instance an `execute` of its own
                    module.execute = own

    def training(self, model: Any) -> list[str]:
        """Training mode with dropout off; returns where it is off."""
        model.train()
        off = [(path, module) for path, module in self.backend.modules_of(model) if "drop" in type(module).__name__.lower() and not self.backend.children(module)]
        for _, module in off:
            module.is_train = False
        return [path for path, _ in off]

    def is_floating(self, tensor: Any) -> bool:
        return str(tensor.dtype).startswith("float")

    def is_kinked(self, module: Any) -> bool:
        return False  # only the reference's are put on the other side

    def leaf(self, array: np.ndarray, change: Callable[[Any], Any] = lambda t: t) -> Any:
        return change(self.jt.array(np.array(array)))

    def passed(self, tensor: Any) -> Any:
        return tensor

    def keep(self, tensor: Any) -> Any:
        return tensor

    def weighted(self, tensor: Any, weights: np.ndarray) -> Any:
        return (tensor * self.jt.array(weights)).float64().sum()

    def gradients(self, total: Any, kept: dict[str, Any]) -> dict[str, np.ndarray]:
        if total.is_stop_grad():
            raise ValueError("it depends on no weight and on no input")
        asked = {id(v): v for v in kept.values() if not v.is_stop_grad() and str(v.dtype).startswith("float")}
        found = dict(zip(asked, self.jt.grad(total, list(asked.values()))))
        return {name: np.array(found[id(v)].numpy()) if id(v) in found else np.zeros(tuple(v.shape), np.float32) for name, v in kept.items()}

"""PyTorch's side of the operator atlas: ``python -m alignment.runners.torch_ops JOB.json``; imports torch."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn import init
from torch import optim

from alignment.runners import ops_tasks


class Side:
    name, is_reference = "torch", True

    def __init__(self) -> None:
        warnings.filterwarnings("ignore")
        self.double = False

    @contextlib.contextmanager
    def setting(self, double: bool = False, threads: int | None = None) -> Iterator[None]:
        """Seeded; in float64, or with another number of threads."""
        before = torch.get_num_threads()
        torch.manual_seed(0)
        np.random.seed(0)
        torch.set_default_dtype(torch.float64 if double else torch.float32)
        torch.set_num_threads(threads or before)
        self.double = double
        try:
            yield
        finally:
            self.double = False
            torch.set_default_dtype(torch.float32)
            torch.set_num_threads(before)

    def names(self) -> dict[str, Any]:
        return {"torch": torch, "nn": nn, "F": F, "init": init, "optim": optim, "np": np}

    def tensor(self, array: np.ndarray, trained: bool) -> torch.Tensor:
        found = torch.from_numpy(np.array(array))
        return (found.double() if self.double and found.is_floating_point() else found).requires_grad_(trained)

    def array(self, value: Any) -> np.ndarray:
        if isinstance(value, torch.Tensor):
            value = value.detach()
            return np.array((value.float() if value.dtype == torch.bfloat16 else value).numpy())
        return np.asarray(value)

    def differentiable(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.requires_grad and value.is_floating_point()

    def gradients(self, outputs: list[tuple[torch.Tensor, np.ndarray]], leaves: list[torch.Tensor]) -> list[np.ndarray | None]:
        weights = [torch.from_numpy(np.array(weight)).to(output.dtype) for output, weight in outputs]
        found = torch.autograd.grad([output for output, _ in outputs], leaves, weights, allow_unused=True)
        return [None if one is None else self.array(one) for one in found]

    def message(self, text: str) -> str:
        return text

    def well(self) -> bool:
        return True


if __name__ == "__main__":
    sys.exit(ops_tasks.main(Side, sys.argv[1:]))

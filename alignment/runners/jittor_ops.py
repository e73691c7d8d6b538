"""Jittor's side of the operator atlas: ``python -m alignment.runners.jittor_ops JOB.json``; imports Jittor."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from jt_nanodet import runtime

runtime.setup()
import jittor as jt  # noqa: E402
import jittor.lr_scheduler  # noqa: E402, F401
from jittor import init, nn, optim  # noqa: E402

from alignment.runners import ops_tasks  # noqa: E402

#: Jittor's messages begin with a page about the call; what went wrong stands behind one of these.
_CORE = (r"Reason: *(.*)", r"\[Error\][^:]*: *(.*)", r"(undefined reference to [^ ]+.*)", r"(error: .*)", r"Check failed: *(.*)")


class Side:
    name, is_reference = "jittor", False

    @contextlib.contextmanager
    def setting(self) -> Iterator[None]:
        runtime.seed(0)
        yield

    def names(self) -> dict[str, Any]:
        return {"jt": jt, "nn": nn, "init": init, "optim": optim, "np": np}

    def tensor(self, array: np.ndarray, trained: bool) -> jt.Var:
        found = jt.array(array)
        return found.start_grad() if trained else found

    def array(self, value: Any) -> np.ndarray:
        return np.array(value.numpy()) if isinstance(value, jt.Var) else np.asarray(value)

    def differentiable(self, value: Any) -> bool:
        return isinstance(value, jt.Var) and str(value.dtype).startswith(("float", "bfloat")) and not value.is_stop_grad()

    def gradients(self, outputs: list[tuple[jt.Var, np.ndarray]], leaves: list[jt.Var]) -> list[np.ndarray | None]:
        total = sum((output.float32() * jt.array(np.reshape(weight, output.shape))).sum() for output, weight in outputs)
        return [self.array(one) for one in jt.grad(total, leaves)]

    def message(self, text: str) -> str:
        for pattern in _CORE:
            found = re.search(pattern, text)
            if found:
                return re.sub(r"/\S*/(\S+\.(?:py|cc|h))", r"\1", found.group(1))
        return text

    def well(self) -> bool:
        """Whether Jittor still computes after an error; what was left of it in the graph is thrown away."""
        try:
            gc.collect()
            jt.clean_graph()
            return float((jt.array([1.0, 2.0]) + 1).sum().numpy()[0]) == 5.0
        except Exception:  # noqa: BLE001
            return False


if __name__ == "__main__":
    sys.exit(ops_tasks.main(Side, sys.argv[1:]))

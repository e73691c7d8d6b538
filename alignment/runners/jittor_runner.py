"""The Jittor side of a comparison: ``python -m alignment.runners.jittor_runner JOB.json``; imports jittor and `jt_nanodet`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from alignment.runners import backward_tasks, pair_backward, pair_tasks, pair_train, repro_tasks, swap_tasks, tasks, train_tasks
from alignment.runners.backend import Backend
from jt_nanodet import runtime


class JittorBackend(Backend):
    side, framework = "jittor", "jittor"

    def __init__(self, task: dict[str, Any]):
        runtime.setup(task.get("device", "cpu"), threads=task.get("threads"))
        import jittor
        from jt_nanodet import decode, detector

        self.jt, self.decoding, self.detector = jittor, decode, detector
        jittor.flags.no_grad = 1
        runtime.seed(task.get("seed", 0))

    def shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        model = self.detector.build_model(config.model.arch)
        return {k: self.detector.file_shape(k, v.shape) for k, v in model.state_dict().items()}

    def load(self, config: Any, weights: Mapping[str, np.ndarray], *, training_branch: bool) -> None:
        self.config = config
        with self.jt.flag_scope(no_grad=0):  # else every weight would be born without a gradient
            self.build(config, weights, training_branch)

    def build(self, config: Any, weights: Mapping[str, np.ndarray], training_branch: bool) -> None:
        self.model = self.detector.build_model(config.model.arch)
        self.detector.load_state(self.model, weights, training_branch)
        # Jittor's eval() stops the gradient of every weight; only train() shows which ones have any
        self.model.train()
        self.trained = {id(v) for v in self.model.parameters() if not v.is_stop_grad()}
        self.model.eval()

    def state(self) -> dict[str, np.ndarray]:
        return self.detector.state_arrays(self.model)

    def modules(self) -> Iterator[tuple[str, Any]]:
        """Jittor's own `named_modules` names the root too; order of definition, as PyTorch's."""
        def walk(path: str, module: Any) -> Iterator[tuple[str, Any]]:
            yield path, module
            for name, child in self.named_children(module):
                yield from walk(f"{path}.{name}" if path else name, child)
        return walk("", self.model)

    def named_children(self, module: Any) -> list[tuple[str, Any]]:
        held = module.layers if self.is_holder(module) else vars(module)
        # a name with an underscore is the inside of one of Jittor's own layers, such as MaxPool2d's
        return [(str(k), v) for k, v in held.items() if isinstance(v, self.jt.Module) and not str(k).startswith("_")]

    def children(self, module: Any) -> list[Any]:
        return [child for _, child in self.named_children(module)]

    def hyper(self, module: Any) -> dict[str, Any]:
        """Under PyTorch's names; Jittor keeps a pool's settings in a module inside the pool."""
        kind, m = self.type_name(module), module
        if kind in ("Conv", "Conv2d"):
            found = {k: getattr(m, k) for k in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")}
            return {**{k: plain(v) for k, v in found.items()}, "bias": m.bias is not None}
        names = {
            "BatchNorm2d": ("num_features", "eps", "momentum"), "GroupNorm": ("num_groups", "num_channels", "eps"), "Integral": ("reg_max",),
            "Upsample": ("scale_factor", "mode", "align_corners"), "LeakyReLU": ("negative_slope",),
        }.get(kind, ())
        found = {k: plain(getattr(m, k)) for k in names if hasattr(m, k)}
        if kind == "MaxPool2d" and hasattr(m, "_layer"):
            pool = m._layer
            found = {"kernel_size": plain(pool.kernel_size), "stride": plain(pool.stride), "padding": plain(pool.padding), "ceil_mode": pool.ceil_mode}
        return found

    def parameters(self, module: Any) -> list[tuple[str, tuple[int, ...], str, bool]]:
        """Integers count as int64: Jittor keeps them in 32 bits, the file has 64."""
        entries = [(k, v) for k, v in vars(module).items() if isinstance(v, self.jt.Var) and not k.startswith("_")]
        return [(k, self.detector.file_shape("." + k, v.shape), "int64" if str(v.dtype).startswith("int") else str(v.dtype), id(v) in self.trained)
                for k, v in entries]

    def type_name(self, module: Any) -> str:
        return {"Conv": "Conv2d"}.get(type(module).__name__, type(module).__name__)

    @contextlib.contextmanager
    def tap(self, seen: Callable[[str, Any, tuple, Any], None]) -> Iterator[None]:
        """Through an `execute` of the instance; the arithmetic stays the class's own."""
        tapped = []
        for path, module in self.modules():
            def execute(*inputs, module=module, path=path, original=module.execute, **named):
                output = original(*inputs, **named)
                seen(path, module, inputs, output)
                return output
            module.execute = execute
            tapped.append(module)
        try:
            yield
        finally:
            for module in tapped:
                del module.execute

    def array(self, tensor: Any) -> np.ndarray:
        return tensor.numpy()

    def tensor(self, array: np.ndarray) -> Any:
        return self.jt.array(np.array(array))

    @contextlib.contextmanager
    def in_float64(self) -> Iterator[None]:
        """Through the ordinary graph: the port's own operators compute in float32. Constants stay float32 numbers, as Jittor keeps them."""
        from jt_nanodet.operators import switch

        before = switch.use(False)
        held = [v for v in self.model.state_dict().values() if str(v.dtype) == "float32"]
        for v in held:
            v.update(v.float64())
        self.jt.sync(held)
        try:
            yield
        finally:
            switch.use(before)

    def tensor64(self, array: np.ndarray) -> Any:
        tensor = self.tensor(array)
        return tensor.float64() if array.dtype == np.float32 else tensor

    def forward(self, images: Any, auxiliary: bool) -> None:
        raw = self.model.forward_aux(images, True)[0] if auxiliary else self.model(images)
        self.decoding.decode(raw, self.model.head.distribution_project, self.config.model.arch.head, images.shape[2:])

    def decode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        raw = self.model(self.tensor(images))
        boxes, scores = self.decoding.decode(raw, self.model.head.distribution_project, self.config.model.arch.head, images.shape[2:])
        return {"raw": self.array(raw), "boxes": self.array(boxes), "scores": self.array(scores)}

    def network(self, images: np.ndarray) -> np.ndarray:
        return self.array(self.model(self.tensor(images)))

    def decode_raw(self, raw: np.ndarray, frame: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = self.decoding.decode(self.tensor(raw), self.model.head.distribution_project, self.config.model.arch.head, frame)
        return self.array(boxes), self.array(scores)

    def host(self, array: np.ndarray) -> Any:
        return array

    def tester(self) -> Any:
        from jt_nanodet import tester

        return tester

    def hands(self) -> Any:
        from alignment.runners import jittor_pair

        return jittor_pair.Hands(self)

    def versions(self) -> dict[str, str]:
        return {"jittor": self.jt.__version__}

    def training_module(self) -> Any:
        from jt_nanodet import training_step

        return training_step

    def learning(self) -> Any:
        return self.jt.flag_scope(no_grad=0)

    @contextlib.contextmanager
    def intercept(self, replace: Callable[[str, Any, tuple, Any], Any]) -> Iterator[None]:
        tapped = []
        for path, module in self.modules():
            def execute(*inputs, module=module, path=path, original=module.execute, **named):
                output = original(*inputs, **named)
                changed = replace(path, module, inputs, output)
                return output if changed is None else changed
            module.execute = execute
            tapped.append(module)
        try:
            yield
        finally:
            for module in tapped:
                del module.execute

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        from jt_nanodet.operators import norm

        before = norm.join(False)
        try:
            yield
        finally:
            norm.join(before)

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        return self.jt.ternary(condition, one, other)

    def leaf(self, array: np.ndarray, model: Any) -> Any:
        return self.jt.array(np.array(array))

    def gradients(self, total: Any, tensors: list[Any]) -> list[Any]:
        found = self.jt.grad(total, tensors)
        self.jt.sync_all()
        return found

    def modules_of(self, model: Any) -> Iterator[tuple[str, Any]]:
        kept, self.model = self.model, model
        found = list(self.modules())
        self.model = kept
        return iter(found)

    def trained_of(self, module: Any) -> list[tuple[str, Any]]:
        return [(k, v) for k, v in vars(module).items() if isinstance(v, self.jt.Var) and not k.startswith("_") and not v.is_stop_grad()]

    def like(self, array: np.ndarray, tensor: Any) -> Any:
        return self.jt.array(np.ascontiguousarray(array).reshape(tuple(tensor.shape)))


def plain(value: Any) -> Any:
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


KINDS = {"structure": tasks.structure, "weights": tasks.weights, "layers": tasks.layers_candidate, "detect": tasks.detect, "speed": tasks.speed,
         "train": train_tasks.train_candidate, "backward": backward_tasks.candidate, "pair": pair_tasks.candidate, "pair_alone": pair_tasks.alone, "pair_backward": pair_backward.candidate,
         "pair_train": pair_train.candidate,
         "repro": repro_tasks.layer, "swap": swap_tasks.swap}

if __name__ == "__main__":
    sys.exit(tasks.main(sys.argv[1:], JittorBackend, KINDS))

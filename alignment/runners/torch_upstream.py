"""The reference as the original: upstream's own code out of a user's clone, in place of `torch_ref`.

Packages that upstream imports and that inference and losses never use are stood in for, in this process only, where they are not installed.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignment.runners.backend import map_tensors
from alignment.runners.torch_runner import TorchBackend
from jt_nanodet.config_reader import find_config
from jt_nanodet.errors import UserError
from torch_ref import detector

#: What may be stood in for: training loop, loggers, other backbones, drawing, suppression; and what newer versions of torch no longer have.
STAND_INS = ("pytorch_lightning", "lightning_fabric", "omegaconf", "termcolor", "tabulate", "imagesize", "torchvision", "tensorboard", "timm", "onnx", "tqdm",
             "matplotlib", "torch._six")


class Placeholder:
    """Stands where a class, a decorator or a function of a missing package stood. A decorator's function comes back as it is."""

    def __new__(cls, *given: Any, **named: Any) -> Any:
        return given[0] if cls is Placeholder and len(given) == 1 and callable(given[0]) and not named else super().__new__(cls)


class Missing(types.ModuleType):
    """A module of a package that is not here: whatever is asked of it is a `Placeholder`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Comes after every other finder, so that it sees only what is not installed."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not any(name == known or name.startswith(known + ".") for known in STAND_INS):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        module = Missing(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        self.used.append(module.__name__)
        if module.__name__ == "torch._six":
            module.string_classes = (str, bytes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Upstream prints while it builds a model; our standard output is for answers."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class Upstream:
    """The clone's own `build_model` and configuration reader."""

    def __init__(self, folder: str):
        self.folder, self.finder = Path(folder), Finder()
        sys.dont_write_bytecode = True  # a clone that is clean stays clean
        sys.path.insert(0, folder)
        sys.meta_path.append(self.finder)
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        try:
            with quiet():
                from nanodet.model import arch
                from nanodet.model.head import nanodet_plus_head
                from nanodet.util import cfg, load_config
        except ImportError as error:
            raise UserError(f"the code in {folder} cannot be imported ({error}): install what it names, or check out the pinned commit") from error
        if Path(arch.__file__).resolve().parents[3] != self.folder.resolve():
            raise UserError(f"another nanodet is imported first, from {Path(arch.__file__).parents[3]}: take it off PYTHONPATH")
        self.arch, self.head, self.cfg, self.load_config = arch, nanodet_plus_head, cfg, load_config

    def build(self, path: str) -> torch.nn.Module:
        """The model of a configuration file, in evaluation mode. Nothing is downloaded, and activations do not write over their input."""
        config = self.cfg.clone()
        with quiet():
            self.load_config(config, find_config(path))
            config.defrost()
            if config.model.arch.backbone.name == "ShuffleNetV2":
                config.model.arch.backbone.pretrain = False
            model = self.arch.build_model(config.model)
        for module in model.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # the same values; what was recorded before stays what it was
        model.__class__ = type("NanoDetPlus", (type(model),), {"forward_aux": forward_aux})
        return model.eval()

    def decoded(self, model: torch.nn.Module, raw: torch.Tensor, frame: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (B, P, 4) and scores (B, P, C) as upstream hands them to its suppression."""
        seen: list[tuple] = []
        kept, self.head.multiclass_nms = self.head.multiclass_nms, lambda boxes, scores, **named: seen.append((boxes, scores))
        try:
            classes = model.head.num_classes
            model.head.get_bboxes(raw[..., :classes], raw[..., classes:], {"img": torch.empty((len(raw), 3, *frame))})
        finally:
            self.head.multiclass_nms = kept
        # upstream adds an empty class, as its suppression expects
        return torch.stack([boxes for boxes, _ in seen]), torch.stack([scores[:, :-1] for _, scores in seen])


def forward_aux(self: Any, images: torch.Tensor, detach: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """`NanoDetPlus.forward_train` without its losses: raw predictions of the head and of the auxiliary head."""
    features = self.backbone(images)
    pyramid = self.fpn(features)
    raw = self.head(pyramid)
    if detach:
        features, pyramid = [x.detach() for x in features], [x.detach() for x in pyramid]
    aux_pyramid = self.aux_fpn(features)
    return raw, self.aux_head([torch.cat([a, b], dim=1) for a, b in zip(pyramid, aux_pyramid)])


class UpstreamBackend(TorchBackend):
    """`TorchBackend` with upstream's own modules and decoding; suppression and pictures stay `torch_ref`'s."""

    def __init__(self, task: dict[str, Any]):
        super().__init__(task)
        self.path, self.commit = task["config"], task.get("torch_repo_commit", "")
        self.upstream = Upstream(task["torch_repo"])
        self.left_out: list[str] = []
        self.own_tester: Any = None

    def shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        return {k: tuple(v.shape) for k, v in self.upstream.build(self.path).state_dict().items()}

    def load(self, config: Any, weights: Mapping[str, np.ndarray], *, training_branch: bool) -> None:
        self.config = config
        self.model = self.upstream.build(self.path)
        detector.load_state(self.model, weights, training_branch)
        self.model.to(self.device)
        self.left_out = []
        called: set[str] = set()
        with self.tap(lambda path, *_: called.add(path)):
            self.model.forward_aux(self.tensor(np.zeros((1, 3, 64, 64), np.float32)), True)
        self.left_out = [path for path, module in self.model.named_modules()
                         if path not in called and self.is_leaf(module) and not list(module.parameters()) and not list(module.buffers())]

    def modules(self) -> Iterator[tuple[str, Any]]:
        """Without `left_out`: leaves that hold no weights and that the forward pass never calls, such as the losses inside upstream's head."""
        return ((path, module) for path, module in super().modules() if path not in self.left_out)

    @contextlib.contextmanager
    def tap(self, seen: Callable[[str, Any, tuple, Any], None]) -> Iterator[None]:
        """Copies are shown: upstream adds its residuals in place, into tensors that were just recorded."""
        def copy(value: Any) -> Any:
            return map_tensors(value, lambda tensor: tensor.clone())

        with super().tap(lambda path, module, inputs, output: seen(path, module, copy(inputs), copy(output))):
            yield

    def decode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        raw = self.model(self.tensor(images))
        boxes, scores = self.upstream.decoded(self.model, raw, images.shape[2:])
        return {"raw": self.array(raw), "boxes": self.array(boxes), "scores": self.array(scores)}

    def tester(self) -> Any:
        """`torch_ref`'s in a copy of its own, which decodes with upstream's code; `torch_ref` beside it keeps its own."""
        if self.own_tester is None:
            spec = importlib.util.find_spec("torch_ref.tester")
            self.own_tester = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.own_tester)
            self.own_tester.decode = lambda raw, integral, head, frame: self.upstream.decoded(self.model, raw, frame)
        return self.own_tester

    def decode_raw(self, raw: np.ndarray, frame: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = self.upstream.decoded(self.model, self.tensor(raw), frame)
        return self.array(boxes), self.array(scores)

    def versions(self) -> dict[str, str]:
        return {**super().versions(), "nanodet": self.commit}

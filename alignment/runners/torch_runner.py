"""The PyTorch side of a comparison: ``python -m alignment.runners.torch_runner JOB.json``; imports torch and `torch_ref`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from alignment.noise import measure_floor
from alignment.runners import backward_tasks, pair_backward, pair_tasks, pair_train, repro_tasks, swap_tasks, tasks, train_tasks
from alignment.runners.backend import Backend, map_tensors, tensors_of
from alignment.runners.torch_changes import TRAINING_CHANGES, Change, harmless_changes, nudged_model
from jt_nanodet.errors import UserError
from torch_ref import decode, detector

#: Outputs whose runs under all harmless changes are in memory at once.
GROUP_BYTES = 32 << 20
HYPER = {
    "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    "BatchNorm2d": ("num_features", "eps", "momentum"),
    "GroupNorm": ("num_groups", "num_channels", "eps"),
    "LeakyReLU": ("negative_slope",),
    "MaxPool2d": ("kernel_size", "stride", "padding", "ceil_mode"),
    "Upsample": ("scale_factor", "mode", "align_corners"),
    "Integral": ("reg_max",),
}


class TorchBackend(Backend):
    side, framework = "pytorch", "torch"

    def __init__(self, task: dict[str, Any]):
        self.device = task.get("device", "cpu")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError('PyTorch sees no CUDA device here: use --device cpu, or type "python -m jt_nanodet doctor"')
        if task.get("threads"):
            torch.set_num_threads(task["threads"])
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.set_grad_enabled(False)

    def shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        return {k: tuple(v.shape) for k, v in detector.build_model(config.model.arch).state_dict().items()}

    def load(self, config: Any, weights: Mapping[str, np.ndarray], *, training_branch: bool) -> None:
        self.config = config
        self.model = detector.build_model(config.model.arch)
        detector.load_state(self.model, weights, training_branch)
        self.model.to(self.device)

    def state(self) -> dict[str, np.ndarray]:
        return detector.state_arrays(self.model)

    def modules(self) -> Iterator[tuple[str, Any]]:
        return self.model.named_modules()

    def children(self, module: Any) -> list[Any]:
        return list(module.children())

    def hyper(self, module: Any) -> dict[str, Any]:
        found = {k: plain(getattr(module, k)) for k in HYPER.get(self.type_name(module), ())}
        if hasattr(module, "in_channels"):
            found["bias"] = module.bias is not None
        return found

    def parameters(self, module: Any) -> list[tuple[str, tuple[int, ...], str, bool]]:
        entries = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return [(name, tuple(t.shape), str(t.dtype).removeprefix("torch."), isinstance(t, torch.nn.Parameter)) for name, t in entries]

    @contextlib.contextmanager
    def tap(self, seen: Callable[[str, Any, tuple, Any], None]) -> Iterator[None]:
        handles = [
            module.register_forward_hook(lambda m, inputs, output, path=path: seen(path, m, inputs, output))
            for path, module in self.modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def array(self, tensor: Any) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    def tensor(self, array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array)).to(self.device)

    def forward(self, images: Any, auxiliary: bool) -> None:
        forward(self.model, self.config, images, auxiliary)

    def decode(self, images: np.ndarray) -> dict[str, np.ndarray]:
        raw = self.model(self.tensor(images))
        boxes, scores = decode.decode(raw, self.model.head.distribution_project, self.config.model.arch.head, images.shape[2:])
        return {"raw": self.array(raw), "boxes": self.array(boxes), "scores": self.array(scores)}

    def network(self, images: np.ndarray) -> np.ndarray:
        return self.array(self.model(self.tensor(images)))

    def decode_raw(self, raw: np.ndarray, frame: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = decode.decode(self.tensor(raw), self.model.head.distribution_project, self.config.model.arch.head, frame)
        return self.array(boxes), self.array(scores)

    def host(self, array: np.ndarray) -> Any:
        return torch.from_numpy(np.array(array))

    def tester(self) -> Any:
        from torch_ref import tester

        return tester

    def detection_floor(self, images: list[np.ndarray]) -> dict[str, Any]:
        """How far harmless changes move boxes and scores, over the priors that pass the score threshold in any class."""
        double, changes = copy.deepcopy(self.model).double(), harmless_changes(0)
        nudged = nudged_model(self.model, 0)
        truth: dict[str, list[np.ndarray]] = {"boxes": [], "scores": []}
        runs: dict[str, list[list[np.ndarray]]] = {"boxes": [], "scores": []}
        for batch in images:
            tensor = self.tensor(batch)
            found = [forward(double, self.config, tensor.double(), False), forward(self.model, self.config, tensor, False)]
            for change in changes:
                with change.around():
                    boxes, scores = forward(nudged if change.weights else self.model, self.config, change.before(tensor), False)
                    found.append((boxes[-len(batch):], scores[-len(batch):]))
            chosen = found[0][1].amax(-1) > self.tester().SCORE_THRESHOLD
            if not chosen.any():
                continue
            for k, name in enumerate(("boxes", "scores")):
                truth[name].append(self.array(found[0][k][chosen]))
                runs[name].append([np.ascontiguousarray(self.array(one[k][chosen])) for one in found[1:]])
        names = ("as is", *(change.name for change in changes))
        return {
            name: floor(np.concatenate(truth[name]), [np.concatenate(one) for one in zip(*runs[name])], names) for name in truth if truth[name]
        }

    def hands(self) -> Any:
        from alignment.runners import torch_pair

        return torch_pair.Hands(self)

    def pair_changes(self, seed: int) -> list[Change]:
        """Without the position in the batch: of any model, nobody knows which axis is the batch."""
        return [change for change in harmless_changes(seed, any_type=True) if change.name != "position in the batch"]

    def nudged(self, model: Any, seed: int) -> Any:
        return nudged_model(model, seed)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def circumstances(self) -> dict[str, Any]:
        threads = torch.get_num_threads()
        return {"threads": threads, "other_threads": 1 if threads > 1 else 2, "mkldnn": torch.backends.mkldnn.enabled, "cudnn": torch.backends.cudnn.enabled,
                "cpu": torch.backends.cpu.get_cpu_capability(), "device": self.device, "changes": [change.name for change in harmless_changes(0)]}

    def training_module(self) -> Any:
        from torch_ref import training_step

        return training_step

    def learning(self) -> Any:
        return torch.enable_grad()

    @contextlib.contextmanager
    def intercept(self, replace: Callable[[str, Any, tuple, Any], Any]) -> Iterator[None]:
        handles = [
            module.register_forward_hook(lambda m, inputs, output, path=path: replace(path, m, inputs, output))
            for path, module in self.modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        return torch.where(condition, one, other)

    def like(self, array: np.ndarray, tensor: Any) -> Any:
        return torch.from_numpy(np.array(array)).to(tensor).reshape(tensor.shape)

    def leaf(self, array: np.ndarray, model: Any) -> Any:
        return torch.from_numpy(np.array(array)).to(next(model.parameters())).requires_grad_()

    def gradients(self, total: Any, tensors: list[Any]) -> list[Any]:
        found = torch.autograd.grad(total, tensors, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found)]

    def modules_of(self, model: Any) -> Iterator[tuple[str, Any]]:
        return model.named_modules()

    def trained_of(self, module: Any) -> list[tuple[str, Any]]:
        return [(name, t) for name, t in module.named_parameters(recurse=False) if t.requires_grad]

    def doubled(self, model: Any) -> Any:
        return copy.deepcopy(model).double()

    def training_changes(self) -> list[tuple[str, Callable[[], Any], str]]:
        return TRAINING_CHANGES

    def floors(self, recorder, images, auxiliary, bundle, seed, say) -> tuple[dict, dict]:
        """Floors of every output, for each call on its own inputs and for the whole run; adds ``own64/`` and ``run64/`` to the bundle.

        Also the floors of the decoded boxes and scores, under ``decode/boxes`` and ``decode/scores``.
        """
        double, nudged, changes = copy.deepcopy(self.model).double(), nudged_model(self.model, seed), harmless_changes(seed)
        models = {False: dict(self.model.named_modules()), True: dict(nudged.named_modules()), "float64": dict(double.named_modules())}
        names = ("as is", *(change.name for change in changes))
        calls = {call: one for call, one in recorder.calls.items() if tasks.refed(one[0])}
        own: dict[str, Any] = {}
        for done, group in groups(calls):
            say(f"own floors: {done} of {len(calls)} calls, in float64 and under {len(changes)} harmless changes")
            runs = Runs()
            for call in group:
                runs.keep(tasks.outputs(call, calls[call][3], self.array))
            for change in changes:
                with change.around():
                    for call in group:
                        path, _, inputs, _ = calls[call]
                        output = map_tensors(models[change.weights][path](*map_tensors(inputs, change.before)), change.after)
                        runs.keep(tasks.outputs(call, output, self.array))
            for call in group:
                path, _, inputs, _ = calls[call]
                truth = tasks.outputs(call, models["float64"][path](*map_tensors(inputs, lambda t: t.double())), self.array)
                for name, array in truth.items():
                    own[name] = floor(array, runs.pop(name), names)
                    bundle.add(f"own64/{name}", array)
        whole: dict[str, Any] = {}
        for done, group in groups(recorder.calls):
            say(f"whole-run floors: {done} of {len(recorder.calls)} calls")
            runs, wanted = Runs(), set(group)
            runs.keep(self.whole(self.model, self.tensor(images), auxiliary, wanted))
            for change in changes:
                with change.around():
                    found = self.whole(nudged if change.weights else self.model, change.before(self.tensor(images)), auxiliary, wanted)
                    runs.keep({name: array[-len(images):] for name, array in found.items()})
            for name, array in self.whole(double, self.tensor(images).double(), auxiliary, wanted).items():
                if name in whole:
                    continue  # boxes and scores come with every group
                whole[name] = floor(array, runs.pop(name), names)
                if name.split("/")[0] in (*tasks.STAGES, "decode"):
                    bundle.add(f"run64/{name}", array)
        return own, whole

    def whole(self, model: Any, images: Any, auxiliary: bool, wanted: set[str]) -> dict[str, np.ndarray]:
        """The wanted calls' outputs of one run of `model`, and the decoded boxes and scores."""
        found: dict[str, np.ndarray] = {}
        kept, self.model = self.model, model
        recorder = tasks.Recorder(self, wanted)
        try:
            with self.tap(recorder):
                boxes, scores = forward(model, self.config, images, auxiliary)
        finally:
            self.model = kept
        for call, (_, _, _, output) in recorder.calls.items():
            found.update(tasks.outputs(call, output, self.array))
        return {**found, "decode/boxes": self.array(boxes), "decode/scores": self.array(scores)}


class Runs(dict):
    """Name to the arrays of the same output in several runs."""

    def keep(self, found: dict[str, np.ndarray]) -> None:
        for name, array in found.items():
            self.setdefault(name, []).append(np.ascontiguousarray(array))


def groups(calls: Mapping[str, tuple]) -> Iterator[tuple[int, list[str]]]:
    """The calls in runs of at most GROUP_BYTES of output, so that memory does not grow with the model; with how many came before."""
    group: list[str] = []
    size = done = 0
    for call, (_, _, _, output) in calls.items():
        if group and size > GROUP_BYTES:
            yield done, group
            done, group, size = done + len(group), [], 0
        group.append(call)
        size += sum(t.numel() * t.element_size() for t in tensors_of(output))
    if group:
        yield done, group


def forward(model: Any, config: Any, images: Any, auxiliary: bool) -> tuple[Any, Any]:
    """The inference pass with decoding; with `auxiliary`, through the training-only branch too."""
    raw = model.forward_aux(images, True)[0] if auxiliary else model(images)
    integral = model.head.distribution_project
    return decode.decode(raw, integral, config.model.arch.head, images.shape[2:])


def floor(truth: np.ndarray, runs: list[np.ndarray], names: tuple[str, ...]) -> dict[str, Any]:
    return dict(vars(measure_floor(truth, runs, names, channel_axis=1 if truth.ndim == 4 else None)))


def plain(value: Any) -> Any:
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def upstream(run: tasks.Run, task: dict[str, Any]) -> dict[str, Any]:
    from alignment.runners import torch_same

    return torch_same.record(run, task)


def backend_of(task: dict[str, Any]) -> TorchBackend:
    """`torch_ref`, or upstream's own code where the job names a clone of it."""
    if not task.get("torch_repo"):
        return TorchBackend(task)
    from alignment.runners.torch_upstream import UpstreamBackend

    return UpstreamBackend(task)


KINDS = {"structure": tasks.structure, "weights": tasks.weights, "layers": tasks.layers_reference, "detect": tasks.detect, "speed": tasks.speed,
         "train": train_tasks.train_reference, "shapes": train_tasks.shapes,
         "backward": backward_tasks.reference, "pair": pair_tasks.reference, "pair_backward": pair_backward.reference, "pair_train": pair_train.reference,
         "repro": repro_tasks.layer, "swap": swap_tasks.swap, "upstream": upstream}

if __name__ == "__main__":
    sys.exit(tasks.main(sys.argv[1:], backend_of, KINDS))

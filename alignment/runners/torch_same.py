"""`torch_ref` and upstream's own code side by side in one process: what is recorded of each, under the same names, for an exact comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from alignment.result import write_json
from alignment.runners import backward_tasks, tasks
from alignment.runners.torch_runner import TorchBackend
from alignment.runners.train_tasks import Signs
from jt_nanodet.weight_rules import TRAINING_ONLY
from torch_ref.training_step import TrainingStep


def record(run: tasks.Run, task: dict[str, Any]) -> dict[str, Any]:
    """Writes ``FOLDER/nanodet.safetensors`` and ``FOLDER/torch_ref.safetensors``: ``state/`` (what the weights hold), ``eval/``, ``backward/``, where the weights hold the
    auxiliary branch ``attached/`` and ``detached/`` (losses, gradients, statistics), and with `detect` ``detections/``; and both module trees as
    ``FOLDER/SIDE.structure.json``. `batch` is an npz of images and boxes."""
    config, original = run.ready(task), run.backend
    weights = tasks.read_weights(task, original, config)
    own = TorchBackend(task)
    own.load(config, weights, training_branch=False)
    batch = read_batch(Path(task["batch"]))
    found: dict[str, dict[str, np.ndarray]] = {}
    names: dict[str, list[str]] = {}
    for name, backend in (("nanodet", original), ("torch_ref", own)):
        run.say(f"{name}: weights and every module's output")
        found[name] = {f"state/{k}": v for k, v in backend.state().items() if run.auxiliary or not k.startswith(TRAINING_ONLY)} | evaluation(backend, batch["img"], run.auxiliary)
        names[name] = [k for k in found[name] if k.startswith("state/")]
        tasks.structure(side(backend, run, task), {**task, "output": str(Path(task["output"]) / f"{name}.structure.json")})
        run.say(f"{name}: gradients of every layer and parameter")
        backend.load(config, weights, training_branch=False)
        found[name].update(backward(backend, batch["img"], task.get("seed", 0), run.auxiliary))
        if task.get("detect"):
            backend.load(config, weights, training_branch=False)
            found[name].update(detections(backend, config, task, run.say))
    regimes = {"attached": 0, "detached": config.model.arch.detach_epoch} if run.auxiliary else {}
    for regime, epoch in regimes.items():
        run.say(f"losses and gradients, auxiliary branch {regime}")
        with torch.enable_grad():
            for name, backend in (("nanodet", original), ("torch_ref", own)):
                backend.load(config, weights, training_branch=False)
                taken = (upstream_step if name == "nanodet" else own_step)(backend, config, batch, epoch)
                statistics = {f"after/{k}": v for k, v in backend.state().items() if "running" in k or "tracked" in k}
                found[name].update({f"{regime}/{k}": v for k, v in {**taken, **statistics}.items()})
    run.loaded = None
    folder = Path(task["output"])
    for name, arrays in found.items():
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / f"{name}.safetensors")
    write_json(folder / "order.json", {name: list(arrays) for name, arrays in found.items()})
    return {"stand_ins": original.upstream.finder.used, "left_out": original.left_out, "same_order": names["nanodet"] == names["torch_ref"],
            "auxiliary": run.auxiliary, "weights_sha256": run.weights_sha256}


def read_batch(path: Path) -> dict[str, Any]:
    """Images (B, 3, H, W), and boxes, labels and ignored boxes as a list each, one array an image."""
    with np.load(path, allow_pickle=False) as given:
        count = len(given["img"])
        return {"img": given["img"], **{k: [given[f"{k}/{i}"] for i in range(count)] for k in ("gt_bboxes", "gt_labels", "gt_bboxes_ignore")}}


def evaluation(backend: TorchBackend, images: np.ndarray, auxiliary: bool) -> dict[str, np.ndarray]:
    recorder = tasks.Recorder(backend)
    with backend.tap(recorder):
        backend.forward(backend.tensor(images), auxiliary)
    arrays: dict[str, np.ndarray] = {}
    for call, (_, _, _, output) in recorder.calls.items():
        arrays.update({f"eval/{k}": v for k, v in tasks.outputs(call, output, backend.array).items()})
    return {**arrays, **{f"eval/decode/{k}": v for k, v in backend.decode(images).items()}}


def side(backend: TorchBackend, run: tasks.Run, task: dict[str, Any]) -> tasks.Run:
    """A run of one of the two models, for what takes a run."""
    return run if backend is run.backend else tasks.Run(backend, run.job)


def backward(backend: TorchBackend, images: np.ndarray, seed: int, auxiliary: bool) -> dict[str, np.ndarray]:
    """Gradients of every layer's output and of every parameter, of the seeded projection that ``alignment.layers --backward`` takes."""
    _, found = backward_tasks.whole(backend, backend.model, images, seed, Signs(backend), auxiliary)
    return {f"backward/{k}": v for k, v in found.items()}


def detections(backend: TorchBackend, config: Any, task: dict[str, Any], say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Every picture's detections (1 + N, 6): first how many, then category, score, x, y, width and height of each, so that a picture without any is compared too."""
    given = {"images": task.get("images"), "annotations": task.get("annotations"), "batch_size": task.get("batch_size") or 8, "limit": task.get("limit")}
    document = backend.tester().run(backend.model, config, given, say)
    found: dict[str, list[list[float]]] = {f"detections/{info['file_name']}": [] for info in document["images"]}
    names = {info["id"]: f"detections/{info['file_name']}" for info in document["images"]}
    for one in document["detections"]:
        found[names[one["image_id"]]].append([one["category_id"], one["score"], *one["bbox"]])
    return {name: np.array([[len(rows)] + [0.0] * 5, *rows], np.float64) for name, rows in found.items()}


def upstream_step(backend: Any, config: Any, batch: dict[str, Any], epoch: int) -> dict[str, np.ndarray]:
    """Loss terms and gradients by upstream's own `forward_train`."""
    model = backend.model.train()
    model.set_epoch(epoch)
    _, loss, terms = model.forward_train({**batch, "img": backend.tensor(batch["img"])})
    params = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    return step_arrays(loss, terms, {k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(params.items(), grads)})


def own_step(backend: TorchBackend, config: Any, batch: dict[str, Any], epoch: int) -> dict[str, np.ndarray]:
    """The same by `torch_ref`'s training step, before it clips and updates."""
    step = TrainingStep(backend.model, config)
    step.epoch = epoch
    total, terms, _ = step.losses(batch)
    return step_arrays(total, terms, step.gradients(total))


def step_arrays(total: Any, terms: dict[str, Any], gradients: dict[str, Any]) -> dict[str, np.ndarray]:
    losses = {"loss/total": total, **{f"loss/{k}": v for k, v in sorted(terms.items())}, **{f"gradient/{k}": v for k, v in gradients.items()}}
    return {k: v.detach().cpu().numpy() for k, v in losses.items()}

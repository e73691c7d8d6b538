"""A folder that reproduces the first divergence of ``alignment.layers``: the tensors, each side's weights, and a short script for each framework.

    repro/NAME/tensors.npz           what went in, ref (the reference's result), cand (the port's, from the same input)
              /weights_pytorch.npz   the layer's weights as they stood in each side's loaded model
              /weights_jittor.npz
              /run_pytorch.py        builds the layer, runs it, and prints how far it lies from ref and from cand
              /run_jittor.py
              /compare.py            the same comparison from the stored tensors; needs NumPy alone

The scripts build a layer of a known type from its own class and settings; any other module is taken out of the model of `config.yml`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from alignment import repro
from alignment.bundle import Bundle
from alignment.locate import Divergence
from alignment.reasons import Reason
from alignment.result import TensorResult
from jt_nanodet.config_reader import find_config

#: Runs a task on a side and returns what the runner says about it.
Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
#: Layers that their settings describe fully: built from their class, without the model around them.
PLAIN = ("Conv2d", "BatchNorm2d", "GroupNorm", "LeakyReLU", "MaxPool2d", "Upsample", "Integral", "ReLU", "ReLU6", "SiLU", "GELU")
HEAD = '''"""{name}: {reason}. {hint}

{framework} alone on the recorded input; needs {needs}.
"""
{start}import os
import numpy as np
{imports}
here = os.path.dirname(os.path.abspath(__file__))
a, weights = np.load(os.path.join(here, "tensors.npz")), np.load(os.path.join(here, "weights_{side}.npz"))
t = lambda name: {tensor}(a[name])
{build}
{load}
{run}
for side in ("ref", "cand"):
    same = found.shape == a[side].shape
    print("largest difference from", side, np.abs(found.astype(np.float64) - a[side]).max() if same else f"shape {{found.shape}} for {{a[side].shape}}", "bound", {tolerance!r})
'''
START = {"pytorch": "", "jittor": "from jt_nanodet import runtime\nruntime.setup()  # tells Jittor where its libraries are\n"}
TENSOR = {"pytorch": "torch.from_numpy", "jittor": "jt.array"}
LOAD = {
    "pytorch": "layer.load_state_dict({k: torch.from_numpy(weights[k]) for k in weights})\nlayer.%s()",
    "jittor": "own = layer.state_dict()\nfor k in weights: own[k].update(jt.array(weights[k].reshape(own[k].shape)).cast(own[k].dtype))\n"
              "jt.sync(list(own.values()))\nlayer.%s()",
}
GRADIENT = {
    "pytorch": 'x = t("in_0").requires_grad_()\n(layer(x) * t("gradient")).sum().backward()\nfound = {wanted}.grad.numpy()',
    "jittor": 'x = t("in_0")\nfound = jt.grad((layer(x) * t("gradient")).sum(), {wanted}).numpy()',
}


def place(divergence: Divergence | None) -> str | None:
    """The folder's name below the output folder; None where no single layer is at fault."""
    if divergence is None or divergence.kind != "own" or divergence.reason in (Reason.MISSING, Reason.EXTRA):
        return None
    return f"repro/{repro.file_name(divergence.name)}"


def write(folder: Path, divergence: Divergence | None, row: TensorResult | None, config: Path, ask: Ask, *, arrays: dict[str, np.ndarray] | None = None) -> Path | None:
    """The folder for `divergence`; None where no layer is at fault. `row` is its row, `arrays` those of a backward pass
    (``in/CALL``, ``grad/CALL``); a forward pass has them in ``folder/bundles``."""
    at = place(divergence)
    if at is None or row is None:
        return None
    target = folder / at
    shutil.rmtree(target, ignore_errors=True)
    scratch = target / "asked"
    scratch.mkdir(parents=True)
    inputs = reference = None
    if arrays is not None:
        call, part = row.name_ref.removeprefix("backward/").rsplit("/", 1)
        save_file({k: np.ascontiguousarray(arrays[k]) for k in (f"in/{call}", f"grad/{call}")}, scratch / "arrays.safetensors")
        task, tensors = {"arrays": str(scratch / "arrays.safetensors")}, {"in_0": arrays[f"in/{call}"], "gradient": arrays[f"grad/{call}"]}
    else:
        reference = Bundle.open(folder / "bundles" / "pytorch")
        call, number = next((c, names.index(row.name_ref)) for c, names in reference.header.extra["outputs"].items() if row.name_ref in names)
        inputs, part = reference.header.extra["inputs"][call], f"out/{number}"
        task, tensors = {"reference": str(folder / "bundles" / "pytorch")}, {}
    told, found = {}, {}
    for side in ("pytorch", "jittor"):
        output = scratch / f"{side}.safetensors"
        told[side] = ask(side, {"kind": "repro", "call": call, "output": str(output), **task})
        found[side] = load_file(output)
        np.savez_compressed(target / f"weights_{side}.npz", **{k.removeprefix("weight/"): v for k, v in found[side].items() if k.startswith("weight/")})
    shutil.rmtree(scratch)
    words = expression(inputs, tensors, reference) if inputs is not None else None
    np.savez_compressed(target / "tensors.npz", ref=found["pytorch"][part], cand=found["jittor"][part], **tensors)
    if any(not plain(one) for one in told.values()):
        shutil.copyfile(find_config(config), target / "config.yml")
    for side, one in told.items():
        (target / f"run_{side}.py").write_text(script(side, one, row, call, part, words), encoding="utf-8")
    if found["pytorch"][part].shape == found["jittor"][part].shape:
        repro.write(target, "compare", row, {"ref": found["pytorch"][part], "cand": found["jittor"][part]})
    return target


def plain(told: dict[str, Any]) -> bool:
    return told["type"] in PLAIN


def expression(described: Any, tensors: dict[str, np.ndarray], reference: Bundle) -> str:
    """A call's described inputs as a Python expression; the tensors it names are put into `tensors`."""
    (kind, content), = described.items()
    if kind == "tensor":
        key = f"in_{len(tensors)}"
        tensors[key] = np.array(reference[content])
        return f't("{key}")'
    if kind in ("tuple", "list"):
        items = [expression(item, tensors, reference) for item in content]
        return f"({', '.join(items)},)" if kind == "tuple" else f"[{', '.join(items)}]"
    if kind == "dict":
        return "{" + ", ".join(f"{key!r}: {expression(item, tensors, reference)}" for key, item in content.items()) + "}"
    return repr(content)


def script(side: str, told: dict[str, Any], row: TensorResult, call: str, part: str, words: str | None) -> str:
    """The script of one side: forward where `words` (the inputs, a tuple) are given, else the gradient `part`."""
    torch_side = side == "pytorch"
    imports, module = ["import torch"] if torch_side else ["import jittor as jt"], "torch_ref" if torch_side else "jt_nanodet"
    if plain(told):
        hyper = ", ".join(f"{k}={tuple(v) if isinstance(v, list) else v!r}" for k, v in told["hyper"].items())
        imports.append(f"from {told['class'][0]} import {told['class'][1]}")
        build = f"layer = {told['class'][1]}({hyper})"
    else:
        imports += [f"from {module} import detector", "from jt_nanodet.config import load_config"]
        path = call.split("@")[0]
        walk = "".join(f"[{int(name)}]" if name.isdigit() else f".{name}" for name in path.split("."))
        build = f'layer = detector.build_model(load_config(os.path.join(here, "config.yml")).model.arch){walk}'
    if words is not None:
        number = int(part.removeprefix("out/"))
        picked = f"[{number}]" if row.name_ref != call else ""
        inner = f"layer(*{words}){picked}"
        run = f"with torch.no_grad(): found = {inner}.numpy()" if torch_side else f"found = {inner}.numpy()"
    else:
        wanted = "x" if part == "input" else f"layer.{part}"
        run = GRADIENT[side].format(wanted=wanted)
    reason, hint = repro.text_of(row)
    own = told["class"][0].split(".")[0]
    needs = f"{'PyTorch' if torch_side else 'Jittor'}" + ("" if torch_side and own == "torch" else " and this checkout on PYTHONPATH")
    return HEAD.format(name=row.name_ref, reason=reason, hint=hint, framework="PyTorch" if torch_side else "Jittor", needs=needs, start=START[side],
                       imports="\n".join(imports), side=side, tensor=TENSOR[side], build=build, load=LOAD[side] % ("eval" if words is not None else "train"), run=run, tolerance=row.tolerance)

"""The file formats: which suffix is which, reading a source into weights and rows, writing a destination.

Writing ``.pth`` and ``.ckpt`` is the one place that needs PyTorch; every reading is done without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jt_nanodet.checkpoint import SUFFIXES as ARRAY_SUFFIXES
from jt_nanodet.checkpoint import read_weights, require_suffix, tidy, write_arrays
from jt_nanodet.errors import UserError
from weights_convert.account import Row
from weights_convert.inert import Inert
from weights_convert.layouts import SETS, Selection, find_state, select
from weights_convert.ncnn import read_ncnn_weights
from weights_convert.torch_file import open_torch, tensor_call

#: suffix -> (name of the format, prefix its names get when written)
FORMATS = {
    ".pth": ("PyTorch", ""),
    ".pt": ("PyTorch", ""),
    ".ckpt": ("Lightning", "model."),
    ".npz": ("NumPy archive", ""),
    ".pkl": ("pickle of NumPy arrays", ""),
}
#: Formats that are read and not written: suffix -> name.
SOURCES = {".param": "ncnn"}
#: Written into .ckpt: the oldest Lightning that upstream's requirements allow, so that none refuses the file as newer.
LIGHTNING_VERSION = "1.9.0"
BFLOAT16_REASON = "bfloat16 widened to float32, exactly: NumPy has no bfloat16"


def format_of(path: Path) -> str:
    """Return the lower-case suffix of ``path``, or raise UserError when it is none of FORMATS."""
    return require_suffix(path, tuple(FORMATS))


def source_format(path: Path) -> str:
    """Return the lower-case suffix of a file to read, or raise UserError when it is neither of FORMATS nor of SOURCES."""
    if path.suffix.lower() == ".bin":
        raise UserError(f"'{path}' holds ncnn's numbers without their names; give the graph beside it: '{path.with_suffix('.param')}'")
    return require_suffix(path, (*FORMATS, *SOURCES))


def read_source(path: Path, which: str) -> tuple[dict[str, np.ndarray], list[Row], dict]:
    """Read the weights ``which`` of any format: ({name: array}, rows towards plain names, facts about the source)."""
    suffix = source_format(path)
    about = {"path": str(path), "format": SOURCES.get(suffix) or FORMATS[suffix][0], "foreign_classes": []}
    if suffix in SOURCES:
        if which != "auto":
            raise UserError(f"'{path}' holds one set of weights and does not say whether they are raw or averaged; use --weights auto")
        weights, rows = read_ncnn_weights(path)
        return weights, rows, about | {"layout": "ncnn", "selected": "only", "selected_name": SETS["only"]}
    if suffix in ARRAY_SUFFIXES:
        arrays = read_weights(path)
        choice = select(arrays, which, path)
        weights, rows = _account(choice, {name: (a, a.dtype.name) for name, a in arrays.items()})
    else:
        with open_torch(path) as file:
            state, records = find_state(file.top, lambda value: tensor_call(value) is not None, path)
            choice = select(state, which, path)
            # Left-out tensors are read too: the account names their shape and dtype, and damage in them shows.
            weights, rows = _account(choice, {name: file.array(value, name) for name, value in state.items()})
            about["foreign_classes"] = file.foreign
        kinds = {key: _kind(file.top[key]) for key in records}
        rows += [Row(key, None, "dropped", None, kinds[key], reason) for key, reason in records.items()]
    about |= {"layout": choice.layout, "selected": choice.which, "selected_name": SETS[choice.which]}
    return weights, rows, about


def require_writer(path: Path) -> None:
    """Raise UserError when ``path`` needs PyTorch and it is not installed; called before the long work starts."""
    if format_of(path) not in ARRAY_SUFFIXES and importlib.util.find_spec("torch") is None:
        raise UserError(f"writing '{path}' needs PyTorch; install it with: python -m pip install torch==2.13.0")


def write_destination(file: BinaryIO, suffix: str, weights: Mapping[str, np.ndarray]) -> None:
    """Write ``weights`` to the open ``file`` in the format of ``suffix``. Raises UserError for what is no weight."""
    if suffix in ARRAY_SUFFIXES:
        write_arrays(file, suffix, weights)
    else:
        file.write(_torch_bytes(weights, lightning=suffix == ".ckpt"))


def _account(
    choice: Selection, entries: Mapping[str, tuple[np.ndarray, str]]
) -> tuple[dict[str, np.ndarray], list[Row]]:
    weights, rows = {}, []
    for source, (array, dtype) in entries.items():
        if source in choice.left:
            rows.append(Row(source, None, "dropped", array.shape, dtype, choice.left[source]))
            continue
        target, reason = choice.taken[source]
        status = "consistent" if target == source else "renamed"
        if dtype != array.dtype.name:
            reason = BFLOAT16_REASON if status == "consistent" else f"{BFLOAT16_REASON}; {reason}"
            status = "value_converted"
        weights[target] = array
        rows.append(Row(source, target, status, array.shape, dtype, reason))
    return weights, rows


def _kind(value: object) -> str:
    """What an entry without weights is, in a word: the class a stub stands for, or the Python type."""
    return value.qualname if isinstance(value, Inert) else type(value).__name__.replace("InertDict", "OrderedDict")


def _torch_bytes(weights: Mapping[str, np.ndarray], lightning: bool) -> bytes:
    import torch

    prefix = FORMATS[".ckpt"][1] if lightning else ""
    state = OrderedDict((prefix + name, torch.from_numpy(array)) for name, array in tidy(weights).items())
    document: dict[str, object] = {"state_dict": state}
    if lightning:
        # What Lightning's own loader looks for; there is no training state to go on from, so all counters are zero.
        document |= {"epoch": 0, "global_step": 0, "pytorch-lightning_version": LIGHTNING_VERSION}
        document |= {"loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    buffer = io.BytesIO()  # in memory first: a full disk is then an OSError of ours, not a RuntimeError of torch
    with contextlib.closing(buffer):
        torch.save(document, buffer, pickle_module=pickle)
        return buffer.getvalue()

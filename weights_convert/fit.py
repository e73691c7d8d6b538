"""Do the weights fit the model of a configuration file?

The names come from ``python -m torch_ref state CONFIG --json`` in a process of its own: this package imports no
model. Its answer is {"keys": [[name, shape, dtype], ...], "training_only_prefixes": [...]}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jt_nanodet.config_reader import find_config
from jt_nanodet.errors import UserError

#: The configuration's path and "--json" are appended.
STATE_COMMAND = [sys.executable, "-m", "torch_ref", "state"]
TIMEOUT_SECONDS = 300
#: BatchNorm's counter of training batches. PyTorch's own loader starts it at zero when an old file lacks it, and
#: with a fixed momentum, as everywhere in this model, nothing is computed from it.
COUNTER = ".num_batches_tracked"
#: A file with nothing but these names is a backbone, trained on ImageNet: a start, not a detector.
BACKBONE = "backbone."


@dataclass(frozen=True)
class Expected:
    """State of a model: ``keys`` name -> (shape, dtype), in order; prefixes of what only training needs."""

    keys: dict[str, tuple[tuple[int, ...], str]]
    training_only: tuple[str, ...]


def expected_state(config: Path) -> Expected:
    """Ask torch_ref for the state dict of ``config``. Raises UserError with its message when it cannot tell."""
    if not os.path.isfile(find_config(config)):
        raise UserError(f"there is no configuration file '{config}'; see those that come along with: ls configs")
    # The sibling package is found next to this one, wherever the command is started.
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [*STATE_COMMAND, str(config), "--json"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot ask torch_ref what '{config}' needs ({error}); try: {' '.join(command)}") from None
    if run.returncode:
        said = (run.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        raise UserError(f"no model could be built from '{config}' ({said}); try: {' '.join(command)}")
    try:
        answer = json.loads(run.stdout)
        keys = {name: (tuple(shape), str(dtype)) for name, shape, dtype in answer["keys"]}
        return Expected(keys, tuple(answer["training_only_prefixes"]))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"torch_ref gave no list of keys for '{config}'; try: {' '.join(command)}") from None


def check_fit(weights: Mapping[str, np.ndarray], expected: Expected, source: object, config: object) -> list[str]:
    """Return notes about weights that fit; raise UserError naming the first misfits and how many there are.

    They fit when every name and shape is the model's and each dtype is of the same kind. Two things may be absent,
    each as a whole: the training-only branch, and BatchNorm's batch counters; and a file may hold a backbone alone.
    """
    inference = [name for name in expected.keys if not name.startswith(expected.training_only)]
    whole = any(name.startswith(expected.training_only) for name in weights) or len(inference) == len(expected.keys)
    backbone = bool(weights) and all(name.startswith(BACKBONE) for name in weights)
    wanted = [n for n in inference if n.startswith(BACKBONE)] if backbone else list(expected.keys) if whole else inference
    counters = [name for name in wanted if name.endswith(COUNTER)]
    counted = any(name.endswith(COUNTER) for name in weights)

    missing = [n for n in wanted if n not in weights and (counted or not n.endswith(COUNTER))]
    unexpected = [n for n in weights if n not in expected.keys]
    common = [(n, a, *expected.keys[n]) for n, a in weights.items() if n in expected.keys]
    misshaped = [f"{n} {a.shape} for {shape}" for n, a, shape, _ in common if a.shape != shape]
    mistyped = [f"{n} {a.dtype} for {dtype}" for n, a, _, dtype in common if a.dtype.kind != _kind(dtype)]
    faults = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped, "of another type": mistyped}
    if any(faults.values()):
        parts = [f"{len(names)} {what} ({_some(names)})" for what, names in faults.items() if names]
        raise UserError(
            f"the weights in '{source}' do not fit the model of '{config}': {', '.join(parts)}; "
            "give the configuration they were trained with: --config FILE.yml"
        )

    notes = []
    if backbone:
        notes.append(f"a backbone alone: {len(weights)} of {len(expected.keys)}; a training starts neck and heads from its seed")
    elif not whole:
        notes.append(f"inference weights: {len(weights)} of {len(expected.keys)}; auxiliary branch absent")
    if counters and not counted:
        notes.append(f"{len(counters)} batch counters (num_batches_tracked) absent: loaders start them at zero")
    other = sorted({f"{a.dtype} for {dtype}" for _, a, _, dtype in common if a.dtype.name != dtype})
    if other:
        notes.append(f"other precision than the model's ({', '.join(other)}): loaders convert it")
    if [n for n in expected.keys if n in weights] != list(weights):
        notes.append("the order of the names is not the model's")
    return notes


def _kind(dtype: str) -> str:
    return np.dtype(dtype.removeprefix("torch.")).kind


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")

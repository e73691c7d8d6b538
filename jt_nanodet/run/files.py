"""Files of a run: weights, and the whole training state that ``--resume`` goes on from; nothing but arrays, replaced whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from jt_nanodet.checkpoint import read_weights, write_weights
from jt_nanodet.config import Config
from jt_nanodet.errors import UserError

STATE_FILE = "training_state.npz"
#: What must be the same for a resumed run to be the same run.
_FIXED = ("model", "schedule", "grad_clip", "class_names")


def fingerprint(config: Config, seed: int, batch: int, images: int) -> dict:
    """What decides the course of a training, as plain data."""
    tree = config.to_dict()
    fixed = {k: tree[k] for k in _FIXED}
    fixed["schedule"] = {k: v for k, v in fixed["schedule"].items() if k not in ("resume", "load_model", "val_intervals")}
    return {**json.loads(json.dumps(fixed)), "precision": config.device.precision, "seed": seed, "batch": batch, "images": images}


def make_folder(path: str | os.PathLike) -> Path:
    """The folder, made where it was not; UserError where that cannot be."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path} ({error.strerror}); choose another with --save-dir") from None
    return Path(path)


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed while they wrote."""
    for path in folder.glob(".tmp-*-*"):
        number = path.name.split("-")[1]
        if not number.isdigit() or not Path(f"/proc/{number}").exists():
            path.unlink(missing_ok=True)


def write_state(folder: Path, state: dict[str, np.ndarray], notes: dict) -> None:
    """Replace the training state; ``notes`` is plain data that goes with it."""
    text = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    write_weights(folder / STATE_FILE, {**state, "notes": text})


def read_state(folder: Path) -> tuple[dict[str, np.ndarray], dict]:
    """(arrays, notes) of the run in ``folder``; UserError where there is none or the file is damaged."""
    path = folder / STATE_FILE
    if not path.is_file():
        raise UserError(f"nothing to resume: {path} does not exist; leave out --resume, or name the run's folder with --save-dir")
    state = read_weights(path)
    try:
        notes = json.loads(state.pop("notes").tobytes().decode())
    except (KeyError, ValueError):
        raise UserError(f"{path} is no training state; leave out --resume to start anew") from None
    return state, notes


def check_same_run(saved: dict, now: dict) -> None:
    """Refuse to go on with a run that other settings decided; names the first difference."""
    difference = _difference(saved, now, "")
    if difference:
        name, old, new = difference
        raise UserError(f"the run to resume had {name} {old}, and now it is {new}; set it back, or start anew without --resume")


def _difference(old, new, name: str):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            found = _difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if old == new else (name, old, new)

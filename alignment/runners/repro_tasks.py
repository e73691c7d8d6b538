"""What a file that reproduces one layer's difference needs from either side: its class, its settings, its weights, and what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from alignment.bundle import Bundle
from alignment.runners import backward_tasks, tasks
from alignment.runners.backend import rebuild


def layer(run: tasks.Run, task: dict[str, Any]) -> dict[str, Any]:
    """One call alone. Forward: `reference` is the bundle with its inputs. Backward: `arrays` holds ``in/CALL`` and ``grad/CALL``.

    Writes ``out/0`` ... (forward) or the gradients ``input`` and each parameter's (backward), and every weight as ``weight/NAME``.
    """
    run.ready(task)
    backend, call = run.backend, task["call"]
    path = call.split("@")[0]
    modules = dict(backend.modules())
    module = modules[path]
    weights = {name.removeprefix(f"{path}."): array for name, array in backend.state().items() if name.startswith(f"{path}.")}
    if task.get("arrays"):
        given = load_file(task["arrays"])
        run.backend.model.train()
        found = backward_tasks.alone(backend, module, given[f"in/{call}"], given[f"grad/{call}"], backend.model)
        run.loaded = None
    else:
        reference = Bundle.open(task["reference"])
        output = module(*rebuild(reference.header.extra["inputs"][call], lambda name: backend.tensor(reference[name])))
        found = dict(zip((f"out/{i}" for i in range(1 << 16)), tasks.outputs(call, output, backend.array).values()))
    arrays = {**found, **{f"weight/{name}": array for name, array in weights.items()}}
    save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, Path(task["output"]))
    kind = type(module)
    return {"class": [kind.__module__, kind.__qualname__], "type": backend.type_name(module), "leaf": backend.is_leaf(module),
            "hyper": backend.hyper(module) if backend.is_leaf(module) else {}}

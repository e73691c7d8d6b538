"""The cases of the operator atlas, one after the other, in the framework that `side` holds; framework-free.

Before a case a line "start" is written, after it what it answered. So the parent sees which case a process died in.
"""

from __future__ import annotations

import ast
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from alignment.atlas import answers
from alignment.atlas.entry import SHAKEN, Entry

#: Exit status of a process that finished its list, and of one that stopped because the framework no longer answers.
DONE, UNWELL = 0, 75
#: Longest message that is kept.
MESSAGE = 300


def evaluate(code: str, names: dict[str, Any]) -> tuple:
    """Run `code`; the value of its last line, always as a tuple."""
    tree = ast.parse(code)
    last = tree.body.pop()
    if not isinstance(last, ast.Expr):
        raise SyntaxError(f"the last line is no expression: {code!r}")
    exec(compile(tree, "<entry>", "exec"), names)  # noqa: S102  the text is this repository's own
    value = eval(compile(ast.Expression(last.value), "<entry>", "eval"), names)  # noqa: S307
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def draw(entry: Entry, case: str) -> dict[str, np.ndarray]:
    names: dict[str, Any] = {"np": np}
    exec("\n".join(entry.drawing(case)), names)  # noqa: S102
    return {name: np.asarray(names[name]) for name in entry.inputs}


def trained(entry: Entry, arrays: dict[str, np.ndarray]) -> list[str]:
    """Names of the inputs whose gradient is compared."""
    wanted = entry.grad if entry.grad is not None else tuple(arrays)
    return [name for name in wanted if arrays[name].dtype == np.float32]


def shaken(arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Every finite float element moved to its upper or lower neighbour, at random; zeros stay."""
    rng = np.random.default_rng(seed)

    def move(array: np.ndarray) -> np.ndarray:
        if array.dtype != np.float32:
            return array
        towards = np.where(rng.random(array.shape) < 0.5, np.float32(-np.inf), np.float32(np.inf))
        return np.where(np.isfinite(array) & (array != 0), np.nextafter(array, towards), array).astype(np.float32)

    return {name: move(array) for name, array in arrays.items()}


def cotangent(array: np.ndarray) -> np.ndarray:
    """What the gradient is taken of: the sum of the output times this."""
    return np.random.RandomState(7).randn(*array.shape).astype(np.float32) if array.shape else np.float32(np.random.RandomState(7).randn())


def compute(side: Any, entry: Entry, case: str, arrays: dict[str, np.ndarray], **how: Any) -> dict[str, Any]:
    """Outputs and gradients, or where and how it raised."""
    where = "forward"
    answer: dict[str, Any] = {"outputs": [], "gradients": {}}
    wanted = trained(entry, arrays) if entry.kind == "values" else []
    try:
        with side.setting(**how):
            leaves = {name: side.tensor(array, name in wanted) for name, array in arrays.items()}
            names = {**side.names(), **leaves}
            exec("\n".join(entry.views(case, {name: array.ndim for name, array in arrays.items()})), names)  # noqa: S102
            outputs = evaluate(getattr(entry, side.name), names)
            found = [side.array(output) for output in outputs]
            answer["outputs"] = [answers.pack(array) for array in found]
            where = "backward"
            floating = [(output, cotangent(array)) for output, array in zip(outputs, found) if side.differentiable(output)]
            if wanted and floating:
                gradients = side.gradients(floating, [leaves[name] for name in wanted])
                answer["gradients"] = {name: None if one is None else answers.pack(one) for name, one in zip(wanted, gradients)}
    except Exception as error:  # noqa: BLE001  whatever an operator raises is the finding
        text = " ".join(str(error).split())
        answer["error"] = {"where": where, "type": type(error).__name__, "message": side.message(text)[:MESSAGE]}
    return answer


def run(side: Any, argv: list[str]) -> int:
    """``python -m alignment.runners.X_ops JOB.json``: the job holds the entries, a list of [entry, case], and the file for the answers."""
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    known = {key: Entry(**fields) for key, fields in job["entries"].items()}
    path = Path(job["answers"])
    for number, (name, case) in enumerate(job["cases"]):
        entry = known[name]
        answers.append(path, {"start": [name, case]})
        began = time.monotonic()
        arrays = draw(entry, case)
        answer = compute(side, entry, case, arrays)
        if "error" not in answer and side.is_reference and entry.kind == "values":
            answer["double"] = compute(side, entry, case, arrays, double=True)
            answer["variants"] = {"1 thread": compute(side, entry, case, arrays, threads=1)}
            if entry.smooth and case in SHAKEN:
                for seed in (1, 2, 3):
                    answer["variants"][f"input moved by one ULP ({seed})"] = compute(side, entry, case, shaken(arrays, seed))
        answers.append(path, {"case": [name, case], "digest": entry.digest(case), "seconds": round(time.monotonic() - began, 3), **answer})
        if number % 25 == 24:
            print(f"{side.name}: {number + 1} of {len(job['cases'])}", file=sys.stderr, flush=True)
        if "error" in answer and not side.well():
            return UNWELL
    return DONE


def main(make: Any, argv: list[str]) -> int:
    try:
        return run(make(), argv)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return 1

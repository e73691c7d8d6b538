"""The file that describes a pair of models, read without running more of it than asked for; framework-free.

A pair file is Python with ``build_reference()`` (a PyTorch module), ``build_candidate()`` (a Jittor module) and ``inputs(seed)`` (NumPy arrays: one, a
tuple, or a dict of keyword arguments). Optional: ``rename(key)`` (name of a reference weight to the candidate's), ``loss(outputs)`` (a scalar of
either framework from what the model returned).
Either framework has a process of its own, and both import the file: so imports of a framework stand inside the functions.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jt_nanodet.errors import UserError

NEEDED = ("build_reference", "build_candidate", "inputs")
OPTIONAL = ("rename", "loss")
FRAMEWORKS = ("torch", "torchvision", "jittor")


def is_file(spec: str) -> bool:
    return spec.endswith(".py") or ":" not in spec


def check(spec: str) -> None:
    """What is wrong with the pair is said before a framework starts. Raises UserError."""
    if not is_file(spec):
        return
    path = Path(spec)
    if not path.is_file():
        raise UserError(f'there is no pair file {spec}: type "python -m alignment.new {spec}" for a template')
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError) as error:
        raise UserError(f"{spec} cannot be read ({one_line(error)}): mend it and run again") from error
    for node in tree.body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] in FRAMEWORKS:
                raise UserError(f"{spec}, line {node.lineno}, imports {name} at its top, and each side has a process without the other's framework: "
                                "move the import into the function that needs it")
    named = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)} | {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    named |= {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    lacking = [name for name in NEEDED if name not in named]
    if lacking and "*" not in named:
        raise UserError(f'{spec} has no {", ".join(lacking)}: add it; "python -m alignment.new example.py" writes a template')


def load(spec: str) -> Any:
    """The pair as an object with NEEDED and OPTIONAL as attributes (None for an optional one that is not there). Raises UserError."""
    try:
        if is_file(spec):
            path = Path(spec).resolve()
            sys.path.insert(0, str(path.parent))
            about = importlib.util.spec_from_file_location("pair_of_models", path)
            found: Any = importlib.util.module_from_spec(about)
            sys.modules["pair_of_models"] = found
            about.loader.exec_module(found)
        else:
            module, name = spec.split(":", 1)
            sys.path.insert(0, "")
            found = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise UserError(f"{spec} cannot be loaded ({type(error).__name__}: {one_line(error)}): mend it and run again") from error
    get = (lambda n: found.get(n)) if isinstance(found, Mapping) else (lambda n: getattr(found, n, None))
    pair = SimpleNamespace(spec=spec, **{name: get(name) for name in (*NEEDED, *OPTIONAL)})
    lacking = [name for name in NEEDED if not callable(getattr(pair, name))]
    if lacking:
        raise UserError(f'{spec} has no function {", ".join(lacking)}: add it; "python -m alignment.new example.py" writes a template')
    return pair


def call(pair: Any, name: str, *arguments: Any) -> Any:
    """One of the pair's functions; what it raises becomes a UserError that names it."""
    try:
        return getattr(pair, name)(*arguments)
    except Exception as error:
        raise UserError(f"{name}() of {pair.spec} raised {type(error).__name__}: {one_line(error)}; mend it and run again") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def sha256(spec: str) -> str:
    """Of the file's text, or of the words ``module:function``."""
    return hashlib.sha256(Path(spec).read_bytes() if is_file(spec) else spec.encode()).hexdigest()

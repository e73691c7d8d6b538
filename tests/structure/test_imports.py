"""Who may import whom: one row a layer, held twice.

A bare process imports the whole layer and must not end up with a forbidden module, whoever brought
it in. The source is read too, because an import inside a function shows only when it runs.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: The part of jt_nanodet that needs no framework and that every other package may use.
SHARED = (
    "jt_nanodet.errors",
    "jt_nanodet.config*",
    "jt_nanodet.checkpoint*",
    "jt_nanodet.weight_rules",
    "jt_nanodet.data",
    "jt_nanodet.data.*",
    "jt_nanodet.run",
    "jt_nanodet.run.*",
)
PACKAGES = ("jt_nanodet", "torch_ref", "alignment", "weights_convert", "reports")


@dataclass(frozen=True)
class Layer:
    """Files by pattern, and the modules (with everything below them) that they must not import.

    ``shared_only``: of jt_nanodet only SHARED. ``lazy``: forbidden for the process, allowed inside a function.
    ``first``: code that runs before the layer is imported.
    """

    files: tuple[str, ...]
    forbidden: tuple[str, ...]
    shared_only: bool = True
    but: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    first: str = ""


RUNNERS = (
    "alignment/runners/torch_runner.py", "alignment/runners/torch_pair.py", "alignment/runners/torch_ops.py", "alignment/runners/torch_upstream.py",
    "alignment/runners/torch_same.py", "alignment/runners/torch_changes.py",
    "alignment/runners/jittor_runner.py", "alignment/runners/jittor_pair.py", "alignment/runners/jittor_ops.py",
)
LAYERS = {
    "shared part of jt_nanodet": Layer(
        tuple(f"{name.replace('.', '/')}.py" for name in SHARED) + ("jt_nanodet/data/__init__.py",),
        ("jittor", "torch", "torch_ref", "alignment", "weights_convert", "reports"),
    ),
    "jt_nanodet": Layer(
        ("jt_nanodet/*.py",),
        ("torch", "torch_ref", "alignment", "weights_convert", "reports"),
        shared_only=False,
        first="from jt_nanodet import runtime; runtime.setup()",
    ),
    "kernel references": Layer(
        ("jt_nanodet/kernels/__init__.py", "jt_nanodet/kernels/*_reference.py", "jt_nanodet/operators/__init__.py", "jt_nanodet/operators/*_reference.py"),
        ("jittor", "torch", "torch_ref", "alignment", "weights_convert", "reports"),
    ),
    "torch_ref": Layer(("torch_ref/*.py",), ("jittor", "alignment", "weights_convert", "reports")),
    "alignment core": Layer(("alignment/*.py",), ("jittor", "torch", "torch_ref"), but=RUNNERS),
    "torch runner": Layer(RUNNERS[:6], ("jittor",)),
    "jittor runner": Layer(
        RUNNERS[6:], ("torch", "torch_ref"), shared_only=False, first="from jt_nanodet import runtime; runtime.setup()"
    ),
    "weights_convert": Layer(
        ("weights_convert/*.py",), ("jittor", "torch_ref", "alignment", "reports"), lazy=("torch",)
    ),
    "reports": Layer(("reports/*.py",), ("jittor", "torch", "torch_ref", "alignment", "weights_convert")),
}


def files_of(layer: Layer, root: Path) -> list[Path]:
    """The layer's files below ``root``; a ``*`` in a pattern reaches into sub-folders."""
    names = {path: path.relative_to(root).as_posix() for package in PACKAGES for path in (root / package).rglob("*.py")}
    return sorted(
        path
        for path, name in names.items()
        if any(fnmatch(name, pattern) for pattern in layer.files) and name not in layer.but
    )


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def objection(module: str, layer: Layer, own: set[str], lazily: bool = False) -> bool:
    """Whether a file of ``layer`` must not import ``module`` (``lazily``: inside a function)."""
    forbidden = layer.forbidden if lazily else layer.forbidden + layer.lazy
    if any(module == name or module.startswith(f"{name}.") for name in forbidden):
        return True
    if not layer.shared_only or not module.startswith("jt_nanodet.") or module in own:
        return False
    return not any(fnmatch(module, pattern) for pattern in SHARED)


def imported(path: Path, root: Path) -> list[tuple[str, int, bool]]:
    """Every module ``path`` imports, with its line and whether it stands inside a function.

    ``from a import b`` counts as ``a.b`` when that is a module of ours, else as ``a``.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module_name(path, root).split(".")
                keep = len(package) - node.level + (path.name == "__init__.py")
                base = ".".join([*package[:keep], *([base] if base else [])])
            below = [f"{base}.{alias.name}" for alias in node.names]
            places = [root / name.replace(".", "/") for name in below]
            names = [
                name if place.with_suffix(".py").exists() or place.is_dir() else base
                for name, place in zip(below, places, strict=True)
            ]
        else:
            continue
        found += [(name, node.lineno, id(node) in inside) for name in names]
    return found


def in_the_source(layer: Layer, root: Path) -> list[str]:
    own = {module_name(path, root) for path in files_of(layer, root)}
    return [
        f"{path.relative_to(root)}:{line} imports {name}"
        for path in files_of(layer, root)
        for name, line, lazily in imported(path, root)
        if objection(name, layer, own, lazily)
    ]


def in_a_process(layer: Layer, root: Path) -> list[str]:
    """Forbidden modules present after a bare process imported the whole layer."""
    own = {module_name(path, root) for path in files_of(layer, root)}
    code = "import importlib, sys\n" + layer.first + "\nbefore = set(sys.modules)\n"
    code += "".join(f"importlib.import_module({name!r})\n" for name in sorted(own) if not name.endswith("__main__"))
    code += "print(*sorted(set(sys.modules) - (before if " + repr(bool(layer.first)) + " else set())))"
    values = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted({name for name in done.stdout.split() if objection(name, layer, own)})


@pytest.mark.parametrize("name", LAYERS)
def test_the_source_of(name: str) -> None:
    assert in_the_source(LAYERS[name], ROOT) == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.jittor] if layer.first else []) for name, layer in LAYERS.items()]
)
def test_a_process_with(name: str, request: pytest.FixtureRequest) -> None:
    layer = LAYERS[name]
    if not files_of(layer, ROOT):
        pytest.skip(f"not run: no files yet for {name}")
    if layer.first:
        request.getfixturevalue("jittor")  # so that the core is built once, with progress shown here
    assert in_a_process(layer, ROOT) == []


def test_every_file_belongs_to_a_layer() -> None:
    covered = {path for layer in LAYERS.values() for path in files_of(layer, ROOT)}
    everything = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert everything - covered == set()


def test_the_package_itself_is_a_docstring() -> None:
    tree = ast.parse((ROOT / "jt_nanodet" / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1 and ast.get_docstring(tree)


PLANTED = [
    ("torch_ref", "torch_ref/head.py", "import jittor as jt", "jittor"),
    ("torch_ref", "torch_ref/head.py", "def f():\n    from jt_nanodet import layers", "jt_nanodet.layers"),
    ("torch_ref", "torch_ref/head.py", "from jt_nanodet.layers import conv", "jt_nanodet.layers"),
    ("jt_nanodet", "jt_nanodet/head.py", "def f():\n    import torch.nn", "torch.nn"),
    ("shared part of jt_nanodet", "jt_nanodet/data/warp.py", "from ..layers import conv", "jt_nanodet.layers"),
    ("shared part of jt_nanodet", "jt_nanodet/data/warp.py", "from .. import layers", "jt_nanodet.layers"),
    ("alignment core", "alignment/compare.py", "import torch_ref.head", "torch_ref.head"),
    ("weights_convert", "weights_convert/formats.py", "import torch", "torch"),
    ("reports", "reports/page.py", "def f():\n    import alignment", "alignment"),
]


@pytest.mark.parametrize(("name", "file", "text", "module"), PLANTED)
def test_a_planted_import_is_found(tmp_path: Path, name: str, file: str, text: str, module: str) -> None:
    for path in ("jt_nanodet/layers.py", "torch_ref/head.py", file):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / file).write_text(text)
    (problem,) = in_the_source(LAYERS[name], tmp_path)
    assert problem.startswith(f"{file}:") and problem.endswith(f"imports {module}")


def test_what_is_brought_in_by_others_is_found(tmp_path: Path) -> None:
    for path, text in (("reports/page.py", "import helper"), ("helper.py", "import weights_convert"), ("weights_convert/__init__.py", "")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert in_the_source(LAYERS["reports"], tmp_path) == []
    assert in_a_process(LAYERS["reports"], tmp_path) == ["weights_convert"]


def test_what_is_allowed_is_not_found(tmp_path: Path) -> None:
    files = {
        "weights_convert/formats.py": "def f():\n    import torch\nfrom jt_nanodet.checkpoint import read_weights",
        "jt_nanodet/checkpoint.py": "import numpy\nfrom jt_nanodet import errors",
        "jt_nanodet/errors.py": "",
        "alignment/runners/torch_runner.py": "import torch, torch_ref",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert [in_the_source(layer, tmp_path) for layer in LAYERS.values()] == [[]] * len(LAYERS)

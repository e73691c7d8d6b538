"""How a kernel's source file becomes part of what Jittor compiles: by #include, with the files' hash in the text Jittor caches by."""
import contextlib
import functools
import hashlib
from pathlib import Path

import jittor as jt

FOLDER = Path(__file__).resolve().parent
#: Where Jittor, which follows every #include to see what to compile again, finds them.
PLACE = f' -I"{FOLDER}" '
#: After Jittor's own flags: IEEE arithmetic whatever those say, and no multiplication joined with an addition.
EXACT_FLAGS = f"{PLACE}-fno-fast-math -ffp-contract=off "


@functools.cache
def include(name):
    """Header text for `jt.code` that brings in one of this folder's files; it changes with any of them."""
    digest = hashlib.sha256()
    for path in sorted(path for path in FOLDER.iterdir() if path.suffix in (".h", ".cu")):
        digest.update(path.read_bytes())
    return f'#define JT_NANODET_KERNELS "{digest.hexdigest()[:16]}"\n#include "{FOLDER / name}"\n'


def path_taken():
    """"cuda" or "cpu": where the kernels run from now on."""
    return "cuda" if jt.flags.use_cuda else "cpu"


@contextlib.contextmanager
def exact():
    """Compile what is queued inside with `EXACT_FLAGS`; on CUDA the kernels name their rounding themselves."""
    with jt.flag_scope(compile_options={f"FLAGS:{PLACE if jt.flags.use_cuda else EXACT_FLAGS}": 1}):
        yield


def require(name, var, dtype, shape):
    """Raise ValueError unless `var` is a Var of that dtype and shape (None: any size)."""
    if not isinstance(var, jt.Var):
        raise ValueError(f"{name} must be a jittor.Var, not {type(var).__name__}")
    if str(var.dtype) != dtype:
        raise ValueError(f"{name} must be {dtype}, not {var.dtype}")
    if len(var.shape) != len(shape) or any(want is not None and have != want for have, want in zip(var.shape, shape)):
        raise ValueError(f"{name} must have shape ({', '.join('any' if n is None else str(n) for n in shape)}), not {tuple(var.shape)}")

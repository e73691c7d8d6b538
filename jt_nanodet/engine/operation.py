"""A packed plan and a batch of images to the answer, as one Jittor operation.

The C++ stands in `native/`. Jittor compiles it at the first use and keeps it; the digest of the sources is part of what it is kept under, so that two
versions of them never share a name.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import jittor as jt
import numpy as np

NATIVE = Path(__file__).resolve().parent / "native"
RAW, DECODED, SECONDS = range(3)  # as in native/registry.h

#: Rounding by adding a large number, and NaN handling, do not survive -ffast-math.
EXACT = "-fno-fast-math"

SOURCE = """
    jtn::Net& net = jtn::known_net((int64_t)data["id"], (int64_t)data["version"], in0_p, in1_p, in1->num);
    jtn::compute(net, (int)data["wanted"], (const float*)(intptr_t)data["images"], (int)data["count"], (float*)(intptr_t)data["answer"], omp_get_max_threads());
    out0_p[0] = (int)data["count"];
"""


@functools.cache
def header(file: str = "registry.h") -> str:
    """What an operation includes, with the digest of all sources."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(NATIVE.glob("*.h")))).hexdigest()
    return f'#define JTN_SOURCES "{digest}"\n#include <omp.h>\n#include "native/{file}"\n'


def run(program: jt.Var, weights: jt.Var, images: np.ndarray, shape: tuple, wanted: int, identity: tuple[int, int], flags: str = "") -> np.ndarray:
    """The answer of `shape` in float32: raw (B, P, C + 4·R), decoded (B, P, 4 + C), or the seconds of each step (1, 1, steps).

    images (B, 3, H, W) float32 of the plan's size; identity: (plan, version), a new version whenever `weights` changed; flags: more for the compiler.
    The operation reads the images and writes the answer where they are, without copies into Vars and back.
    """
    number, version = identity
    images, answer = np.ascontiguousarray(images, np.float32), np.empty(shape, np.float32)
    data = {"id": number, "version": version, "wanted": wanted, "count": len(images), "images": images.ctypes.data, "answer": answer.ctypes.data}
    done = jt.code((1,), "int32", [program, weights], cpu_header=header(), cpu_src=SOURCE, data=data)
    done.compile_options = options(flags)
    done.sync()  # before the arrays go
    return answer


def options(flags: str) -> dict[str, int]:
    """Jittor's `compile_options` for an operation that includes these sources."""
    return {f'FLAGS: -I"{NATIVE.parent}" {EXACT} {flags} ': 1}


def as_vars(program: np.ndarray, weights: np.ndarray) -> tuple[jt.Var, jt.Var]:
    found = jt.array(program), jt.array(weights)
    jt.sync(list(found))
    return found

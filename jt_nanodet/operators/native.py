"""How an operator calls its C++: the text of the files goes into Jittor's kernel, so that its cache key is the code and not a path."""
from functools import cache
from pathlib import Path

import jittor as jt

HERE = Path(__file__).parent


@cache
def header(*names):
    """The C++ files of these names, one after the other, as one text."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("vectors.h", *names))


def call(files, body, inputs, shapes, dtypes=None, **numbers):
    """The outputs of `body`, which sees in0_p, out0_p ... and `data["name"]` for each of `numbers` (float64).

    Numbers and shapes are arguments of the kernel: it is compiled once for all of them.
    """
    dtypes = dtypes or ["float32"] * len(shapes)
    return jt.code(shapes, dtypes, inputs, cpu_header=header(*files), cpu_src=f"using namespace nanodet;\n{body}",
                   data={k: float(v) for k, v in numbers.items()})

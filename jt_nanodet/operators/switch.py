"""Where the operators compute instead of Jittor's own graph: on the CPU, in float32, unless the ordinary graph is asked for
(`JT_NANODET_PLAIN=1` in the environment, or `use(False)`)."""
import os

import jittor as jt

_on = os.environ.get("JT_NANODET_PLAIN", "0") != "1"


def on():
    """Whether the operators are switched on."""
    return _on


def use(wanted):
    """Switch the operators on or off for this process; returns what it was before."""
    global _on
    before, _on = _on, wanted
    return before


def usable(*tensors):
    """Whether the operators compute on these tensors."""
    return _on and not jt.flags.use_cuda and all(t.dtype == "float32" for t in tensors)

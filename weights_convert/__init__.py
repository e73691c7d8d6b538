"""Weights between PyTorch, Lightning, NumPy and Jittor files; every key accounted for, nothing foreign run.

``load(path)`` reads any of the formats, ``convert(src, dst)`` writes another; ``python -m weights_convert`` is the
same on the command line. Knows no model and no Jittor; PyTorch is needed only to write ``.pth`` and ``.ckpt``.
"""

from weights_convert.account import Row
from weights_convert.conversion import Converted, Loaded, convert, load

__all__ = ["Converted", "Loaded", "Row", "convert", "load"]

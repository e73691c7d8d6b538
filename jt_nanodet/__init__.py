"""NanoDet-Plus in Jittor, with a PyTorch twin (``torch_ref``) that it is proved against.

Importing this package imports no framework. ``jt_nanodet.runtime.setup()`` comes before the
first ``import jittor``; ``config``, ``data``, ``checkpoint`` and ``errors`` need none at all.
"""

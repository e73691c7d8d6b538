"""The atlas of Jittor's operators: what is compared (`families`, as data), how it is run, judged and shown. Framework-free; the runners
``alignment/runners/torch_ops.py`` and ``jittor_ops.py`` hold a framework each. The command is `alignment.ops`.
"""

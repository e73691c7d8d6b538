"""The processes that run one side. Only `torch_runner` and `jittor_runner` import a framework; `tasks` is what both do.

The command starts one child a side (`child.run`), which reads a job (JSON), writes bundles, and ends. Nothing else passes between the two.
"""

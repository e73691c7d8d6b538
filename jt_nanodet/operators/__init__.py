"""The operators of a training step in C++, for the CPU: each a `jt.Function` over a C++ file, with a NumPy twin in float64.

`switch` says where they stand in for Jittor's own graph; the twins (`*_reference`) import NumPy alone.
"""

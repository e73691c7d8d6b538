"""The assigner and the suppression as kernels: CUDA and C++ source files, their launchers, and NumPy twins they are held to."""

"""Judging whether the Jittor port computes what the PyTorch reference computes.

The core (every module here except ``runners/``) imports numpy, safetensors and the standard library, never a framework. A runner writes a
bundle (`alignment.bundle`), the core compares two bundles (`alignment.compare`) against measured floors (`alignment.noise`), names the first
module with an error of its own (`alignment.locate`) and writes a ``result.json`` (`alignment.result`).
"""

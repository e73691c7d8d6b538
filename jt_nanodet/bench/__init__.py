"""Measurements of speed: verified first, then timed side by side (``python -m jt_nanodet bench``)."""

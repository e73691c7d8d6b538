"""The reference's processes of `python -m jt_nanodet bench`."""

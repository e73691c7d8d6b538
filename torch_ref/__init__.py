"""The PyTorch reference: NanoDet-Plus as RangiLyu/nanodet at be9b4a9 computes it, in our own words.

Every file here has a twin of the same name in `jt_nanodet`, line for line; `tests/structure/test_mirror.py` holds them together.
"""

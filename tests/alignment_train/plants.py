"""Faults for the port, called in its process by ``--plant``."""

from __future__ import annotations


def ema_ahead() -> None:
    from jt_nanodet.ema import ExpMovingAverager

    original = ExpMovingAverager.factor
    ExpMovingAverager.factor = lambda self, iteration: original(self, iteration + 1)

"""One small detector with lively weights for all tests of the engine: 0.5x, 32 channels, not a square, so that nothing can be confused in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZE = (96, 128)


def small_arch(**changes):
    """The ArchConfig of NanoDet-Plus-m with the smallest backbone; changes: fields of the backbone."""
    from jt_nanodet.config import load_config

    arch = load_config(ROOT / "configs" / "nanodet-plus-m_320.yml").model.arch
    backbone = dataclasses.replace(arch.backbone, model_size="0.5x", **changes)
    fpn = dataclasses.replace(arch.fpn, in_channels=(48, 96, 192))
    return dataclasses.replace(arch, backbone=backbone, fpn=fpn)


def lively_model(arch, seed=0):
    from jt_nanodet.detector import build_model, file_shape, load_state
    from jt_nanodet.weight_rules import lively_weights

    model = build_model(arch)
    load_state(model, lively_weights({k: file_shape(k, v.shape) for k, v in model.state_dict().items()}, seed))
    model.eval()
    return model


def plain(jt, model, images):
    with jt.no_grad():
        return model(jt.array(images)).numpy()


@pytest.fixture(scope="session")
def model(jittor):
    return lively_model(small_arch())


@pytest.fixture(scope="session")
def images():
    return np.random.RandomState(0).randn(3, 3, *SIZE).astype(np.float32)

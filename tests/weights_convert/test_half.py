"""float16: what is kept, what is said, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet.checkpoint import read_weights, write_weights
from jt_nanodet.errors import UserError
from weights_convert import convert

WEIGHTS = {"a": np.array([1, 0.1, 1e-9, -65504], "f4"), "n": np.array(3, "i8"), "h": np.array([0.5], "f2"), "d": np.array([0.25], "f8")}


def test_floats_are_halved_and_whole_numbers_kept(tmp_path):
    write_weights(tmp_path / "a.npz", WEIGHTS)
    done = convert(tmp_path / "a.npz", tmp_path / "b.pkl", fp16=True)
    back = read_weights(tmp_path / "b.pkl")
    assert {name: array.dtype.name for name, array in back.items()} == {"a": "float16", "n": "int64", "h": "float16", "d": "float16"}
    assert np.array_equal(back["a"], WEIGHTS["a"].astype("f2")) and back["n"] == 3
    assert {row.source: row.status for row in done.account} == {"a": "value_converted", "n": "consistent", "h": "consistent", "d": "value_converted"}
    assert any("3 of 5 numbers kept exactly, 1 became zero" in note for note in done.notes)


def test_a_number_beyond_float16_is_refused(tmp_path):
    write_weights(tmp_path / "a.npz", {"big": np.array([1, 7e4], "f4")})
    with pytest.raises(UserError, match="'big'.*70000.*without --fp16"):
        convert(tmp_path / "a.npz", tmp_path / "b.pkl", fp16=True)
    assert not (tmp_path / "b.pkl").exists()


@pytest.mark.torch
def test_both_loaders_take_them(shared, repository, tmp_path, jittor):
    """Real weights as float16 load on both sides, as the same float32 numbers."""
    from jt_nanodet import detector as port
    from jt_nanodet.config import load_config
    from jt_nanodet.tester import read_checkpoint

    source = shared / "data" / "weights" / "ncnn" / "nanodet-plus-m_320.param"
    convert(source, tmp_path / "half.npz", config=repository / "configs" / "nanodet-plus-m_320.yml", fp16=True)
    weights = read_checkpoint(tmp_path / "half.npz")
    model = port.build_model(load_config(repository / "configs" / "nanodet-plus-m_320.yml").model.arch)
    port.load_state(model, weights, training_branch=False)
    loaded = port.state_arrays(model)
    assert all(np.array_equal(loaded[name], array.astype(np.float32)) for name, array in weights.items() if array.dtype.kind == "f")
    assert loaded["head.gfl_cls.0.weight"].dtype == np.float32

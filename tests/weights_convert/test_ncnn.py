"""ncnn files: every convolution finds its name by the graph, the real files give the released weights, damage is one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from jt_nanodet.checkpoint import read_weights
from jt_nanodet.errors import UserError
from tests.weights_convert.ncnn_writer import Writer
from weights_convert import convert, load
from weights_convert.ncnn import EPS, read_ncnn_weights
from weights_convert.ncnn_file import read_ncnn
from weights_convert.ncnn_names import Mismatch, name_layers


@pytest.mark.parametrize("half", [True, False], ids=["float16", "float32"])
@pytest.mark.parametrize("crop", [True, False], ids=["Crop", "Slice"])
def test_every_convolution_finds_its_name(tmp_path, half, crop):
    model = Writer(half=half, crop=crop).model()
    weights, rows = read_ncnn_weights(model.write(tmp_path))
    assert {name: weights[name].tolist() for name in model.truth} == {name: value.tolist() for name, value in model.truth.items()}
    made = set(weights) - set(model.truth)
    assert {name.rsplit(".", 1)[1] for name in made} == {"weight", "running_mean", "running_var", "project"}
    assert weights["head.distribution_project.project"].tolist() == [0, 1, 2, 3]
    assert sorted(row.target for row in rows) == sorted(weights) and all(row.reason for row in rows)
    assert {row.status for row in rows} == ({"value_converted", "renamed"})


def test_the_made_normalisation_changes_nothing(tmp_path):
    weights, _ = read_ncnn_weights(Writer().model().write(tmp_path))
    scale = weights["backbone.conv1.1.weight"] / np.sqrt(weights["backbone.conv1.1.running_var"] + np.float32(EPS))
    assert np.all(scale == 1) and not weights["backbone.conv1.1.running_mean"].any()


@pytest.mark.parametrize("size", [320, 416])
def test_the_real_files_are_the_released_weights(shared, tmp_path, size):
    folder = shared / "data" / "weights"
    want = read_weights(folder / f"nanodet-plus-m_{size}_bnfolded_state.npz")
    loaded = load(folder / "ncnn" / f"nanodet-plus-m_{size}.param")
    assert list(loaded.weights) == list(want), "upstream's names in upstream's order"
    assert [name for name, array in want.items() if not np.array_equal(array, loaded.weights[name])] == []
    assert loaded.source["format"] == "ncnn"


@pytest.mark.torch
def test_the_real_file_fits_its_configuration_only(shared, repository, tmp_path):
    source = shared / "data" / "weights" / "ncnn" / "nanodet-plus-m_320.param"
    done = convert(source, tmp_path / "a.pkl", config=repository / "configs" / "nanodet-plus-m_320.yml")
    assert len(done.weights) == 539 and len(done.account) == 539
    with pytest.raises(UserError, match="misshaped"):
        convert(source, tmp_path / "b.pkl", config=repository / "configs" / "nanodet-plus-m_320_voc.yml")
    assert not (tmp_path / "b.pkl").exists()


def changed(model, before, after, count=1):
    at = [n for n, line in enumerate(model.lines) if before in line]
    assert at, f"{before} is in no line"
    for n in at[:count]:
        model.lines[n] = model.lines[n].replace(before, after)
    return model


PLANTED = {
    "another stride": lambda m: changed(m, "1=5 3=2", "1=5 3=1"),
    "no activation": lambda m: changed(m, " 9=2 -23310=1,0.1", ""),
    "halves swapped": lambda m: changed(m, "Crop", "Crop") and swap_crops(m),
    "a convolution too many": lambda m: m.conv("b0", "x", None, 3, 4) and m,
    "class counts differ": lambda m: changed(m, "-23300=2,3,-233", "-23300=2,4,-233"),
    "another order of a Concat": lambda m: swap_inputs(m, "Concat"),
}


def swap_inputs(model, kind):
    n = next(n for n, line in enumerate(model.lines) if line.startswith(kind))
    words = model.lines[n].split()
    words[4], words[5] = words[5], words[4]
    model.lines[n] = " ".join(words)
    return model


def swap_crops(model):
    for n, line in enumerate(model.lines):
        if line.startswith("Crop"):
            model.lines[n] = line.replace("-23309=1,0", "-23309=1,@").replace("-23309=1,4", "-23309=1,0").replace("-23309=1,@", "-23309=1,4")
    return model


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_another_graph_is_refused(tmp_path, plant):
    path = plant(Writer(crop=True).model()).write(tmp_path)
    with pytest.raises(Mismatch):
        name_layers(read_ncnn(path))
    with pytest.raises(UserError, match="no export of NanoDet-Plus"):
        read_ncnn_weights(path)


def spoil(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


DAMAGE = {
    "no .bin": (lambda p: p.with_suffix(".bin").unlink(), "put the .bin beside it"),
    "cut .bin": (lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes()[:-7]), "copy both"),
    "longer .bin": (lambda p: p.with_suffix(".bin").write_bytes(p.with_suffix(".bin").read_bytes() + b"1234"), "copy both"),
    "quantised": (lambda p: p.with_suffix(".bin").write_bytes(b"\x38\x4b\x0d\0" + p.with_suffix(".bin").read_bytes()[4:]), "quantised"),
    "no magic number": (lambda p: spoil(p, "7767517", "7767518"), "7767517"),
    "a missing line": (lambda p: p.write_text("\n".join(p.read_text().splitlines()[:-1])), "announces"),
    "an unknown layer": (lambda p: spoil(p, "Pooling", "Poling"), "Poling"),
    "a blob from nowhere": (lambda p: spoil(p, " b0 b1", " nowhere b1"), "nowhere"),
    "a parameter that is no number": (lambda p: spoil(p, "1=3", "1=three"), "three"),
    "an impossible size": (lambda p: spoil(p, "0=4", "0=5"), "impossible"),
    "not text": (lambda p: p.write_bytes(b"\xff\xfe\x00"), "no ncnn file"),
    "empty": (lambda p: p.write_bytes(b""), "empty"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_sentence(tmp_path, damage, said):
    path = Writer().model().write(tmp_path)
    damage(path)
    with pytest.raises(UserError, match=said):
        read_ncnn_weights(path)


def test_the_bin_alone_and_a_choice_of_sets_are_refused(tmp_path):
    path = Writer().model().write(tmp_path)
    with pytest.raises(UserError, match="tiny.param"):
        convert(path.with_suffix(".bin"), tmp_path / "a.pkl")
    with pytest.raises(UserError, match="--weights auto"):
        load(path, "ema")
    with pytest.raises(UserError, match="no suffix of a weight format"):
        convert(path, tmp_path / "a.param")

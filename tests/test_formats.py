"""weights_convert.formats: every pair of formats, bit for bit; what PyTorch and Lightning find in what is written."""

import pickle

import numpy as np
import pytest

from jt_nanodet.checkpoint import weights_sha256
from jt_nanodet.errors import UserError
from weights_convert import convert, load
from weights_convert.formats import BFLOAT16_REASON, LIGHTNING_VERSION, format_of

torch = pytest.importorskip("torch", reason="not run: PyTorch writes .pth and .ckpt")
pytestmark = pytest.mark.torch

SUFFIXES = (".pth", ".ckpt", ".npz", ".pkl")


def sample() -> dict:
    draw = np.random.default_rng(3)
    return {
        "backbone.conv1.0.weight": draw.standard_normal((8, 3, 3, 3)).astype("f4"),
        "backbone.conv1.1.running_var": draw.random(8).astype("f4"),
        "backbone.conv1.1.num_batches_tracked": np.array(140_000, "i8"),
        "transposed": np.ascontiguousarray(draw.standard_normal((5, 4)).astype("f4").T),
        "head.scale": np.array(1.25, "f4"),
        "denormal": np.array([1e-45, -0.0], "f4"),
        "empty": np.zeros((0, 3), "f4"),
        "half": draw.random(3).astype("f2"),
        "double": draw.random(3),
        "mask": np.array([True, False]),
        **{f"int.{code}": np.arange(3, dtype=code) for code in ("u1", "i1", "i2", "i4", "u2", "u4", "u8")},
    }


def same(got: dict, wanted: dict) -> bool:
    return [(n, a.dtype, a.shape, a.tobytes()) for n, a in got.items()] == [
        (n, a.dtype, a.shape, a.tobytes()) for n, a in wanted.items()
    ]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The sample in all four formats, from the .npz that NumPy itself writes."""
    folder = tmp_path_factory.mktemp("formats")
    np.savez(folder / "first.npz", **sample())
    for suffix in SUFFIXES:
        convert(folder / "first.npz", folder / f"w{suffix}")
    return folder


@pytest.mark.parametrize("dst", SUFFIXES)
@pytest.mark.parametrize("src", SUFFIXES)
def test_all_pairs_are_bit_equal_there_and_back(sources, tmp_path, src, dst):
    done = convert(sources / f"w{src}", tmp_path / f"there{dst}")
    back = convert(tmp_path / f"there{dst}", tmp_path / f"back{src}")
    assert same(done.weights, sample()) and same(load(tmp_path / f"there{dst}").weights, sample())
    assert same(back.weights, sample()) and back.sha256 == done.sha256 == weights_sha256(sample())
    # Equal weights give equal files, so the way back ends where it began.
    assert (tmp_path / f"back{src}").read_bytes() == (sources / f"w{src}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_released_weights_round_trip(pytestconfig, tmp_path, suffix):
    real = pytestconfig.rootpath.parent / "shared/data/weights/nanodet-plus-m_320_bnfolded_state.npz"
    if not real.is_file():
        pytest.skip("not run: no ../shared")
    with np.load(real) as archive:
        wanted = {name: archive[name] for name in archive.files}
    done = convert(real, tmp_path / f"there{suffix}")
    assert len(wanted) == 539 == len(done.weights) and all(row.target for row in done.account)
    convert(tmp_path / f"there{suffix}", tmp_path / "back.npz")
    with np.load(tmp_path / "back.npz") as archive:
        assert same({name: archive[name] for name in archive.files}, wanted)


def test_torch_reads_the_pth(sources):
    document = torch.load(sources / "w.pth", weights_only=True)
    assert list(document) == ["state_dict"]
    assert same({name: t.numpy() for name, t in document["state_dict"].items()}, sample())


def test_ckpt_has_what_lightning_looks_for(sources):
    document = torch.load(sources / "w.ckpt", weights_only=True)
    assert document["pytorch-lightning_version"] == LIGHTNING_VERSION
    assert (document["epoch"], document["global_step"]) == (0, 0)
    assert same({n.removeprefix("model."): t.numpy() for n, t in document["state_dict"].items()}, sample())
    assert all(name.startswith("model.") for name in document["state_dict"])


def test_pickle_is_a_plain_dict(sources):
    with open(sources / "w.pkl", "rb") as file:
        assert same(pickle.load(file), sample())


def test_transposed_and_shared_tensors_arrive_in_reading_order(tmp_path):
    """The case of Jittor's issue 400: its own loader gives non-contiguous tensors transposed."""
    base = torch.arange(12.0)
    state = {"t": base.view(3, 4).t(), "part": base[2:5], "bf16": torch.tensor([1.5, -2.0]).bfloat16()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    for suffix in (".npz", ".pkl", ".pth", ".ckpt"):
        done = convert(tmp_path / "w.pth", tmp_path / f"out{suffix}")
        assert done.weights["t"].tolist() == state["t"].tolist() and done.weights["t"].shape == (4, 3)
        row = next(row for row in done.account if row.source == "bf16")
        assert (row.status, row.dtype) == ("value_converted", "bfloat16") and BFLOAT16_REASON in row.reason
        assert load(tmp_path / f"out{suffix}").weights["bf16"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("which", ["auto", "raw", "ema"])
def test_lightning_checkpoint_of_upstream(tmp_path, which):
    """Both sets, optimiser, callbacks with a class of theirs: each key is in the account once, with a reason."""
    names = ["backbone.w", "head.b"]
    state = {f"model.{n}": torch.full((2,), 1.0) for n in names}
    state |= {f"avg_model.{n}": torch.full((2,), 2.0) for n in names}
    document = {"epoch": 3, "global_step": 70, "pytorch-lightning_version": "1.9.5", "state_dict": state}
    document["optimizer_states"] = [{"state": {0: {"exp_avg": torch.ones(2)}}}]
    document["callbacks"] = {"x": pytest.ExitCode.OK}
    torch.save(document, tmp_path / "w.ckpt")
    done = convert(tmp_path / "w.ckpt", tmp_path / "w.pkl", which=which)
    assert done.source["selected"] == ("raw" if which == "raw" else "ema")
    assert list(done.weights) == names and done.weights["head.b"][0] == (1.0 if which == "raw" else 2.0)
    assert {row.source for row in done.account} == {*state, *document} - {"state_dict"}
    assert len(done.account) == len(state) + len(document) - 1
    assert all(row.reason for row in done.account)
    prefix = "model." if which == "raw" else "avg_model."
    assert [row.source for row in done.account if row.target] == [prefix + name for name in names]
    assert done.source["foreign_classes"] and "neither imported nor run" in done.notes[0]


def test_bare_state_dict_and_module_prefix(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    assert list(load(tmp_path / "w.pt").weights) == ["weight", "bias"]
    torch.save({"state_dict": torch.nn.DataParallel(torch.nn.Linear(2, 2)).state_dict()}, tmp_path / "w.pth")
    loaded = load(tmp_path / "w.pth")
    assert list(loaded.weights) == ["weight", "bias"] and loaded.account[0].status == "renamed"


def test_whole_model_says_what_to_save(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(UserError, match="pickled 'torch.nn.modules.linear.Linear' and no state dict; .*torch.save"):
        load(tmp_path / "w.pth")


def test_unknown_suffix(tmp_path):
    with pytest.raises(UserError, match=".pth, .pt, .ckpt, .npz, .pkl"):
        format_of(tmp_path / "weights.onnx")

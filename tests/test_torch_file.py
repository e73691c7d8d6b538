"""weights_convert.torch_file: the same values as torch.load, without torch; damage and bombs refused."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from jt_nanodet.errors import UserError
from weights_convert import torch_file
from weights_convert.torch_file import open_torch, tensor_call

torch = pytest.importorskip("torch", reason="not run: PyTorch writes the files of these tests")
pytestmark = pytest.mark.torch

BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(obj, path, zipped=True, **kwargs):
    torch.save(obj, path, _use_new_zipfile_serialization=zipped, **kwargs)
    return path


def arrays(path):
    with open_torch(path) as file:
        return {name: file.array(value, name) for name, value in file.top.items()}


def refusal(path, match):
    with pytest.raises(UserError, match=match) as caught:
        arrays(path)
    assert "\n" not in str(caught.value)


def awkward():
    """Every way of storing a tensor that has misled some reader (see Jittor's issue 400 for the transposed one)."""
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=draw)
    shared = torch.arange(12.0)
    return {
        "transposed": base.t(),
        "permuted": torch.randn(2, 3, 4, 5, generator=draw).permute(3, 1, 0, 2),
        "channels_last": torch.randn(2, 3, 4, 5, generator=draw).to(memory_format=torch.channels_last),
        "every_second": base[:, ::2],
        "offset": base[2:, 1:3],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 5),
        "whole": shared,
        "part": shared[3:7],
        "part_2d": shared.view(3, 4)[:, 1],
        "scalar": torch.tensor(3.5),
        "scalar_of_many": shared[5],
        "counter": torch.tensor(12345678901),
        "empty": torch.empty(0),
        "empty_2d": torch.empty(3, 0, 2),
        "parameter": torch.nn.Parameter(base.clone()),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "bool": torch.tensor([True, False, True])[::2],
        **{str(t): torch.arange(-3, 5).to(t) for t in (torch.int8, torch.int16, torch.int32, torch.int64)},
        **{str(t): torch.arange(8).to(t) for t in (torch.uint8, torch.uint16, torch.uint32, torch.uint64)},
        **{str(t): torch.randn(7, generator=draw).to(t) for t in (torch.float16, torch.float32, torch.float64)},
    }


@BOTH
def test_equals_torch_load(tmp_path, zipped):
    tensors = awkward()
    if not zipped:  # torch.load itself fails on these three in its old format
        tensors = {n: t for n, t in tensors.items() if n not in ("torch.uint16", "torch.uint32", "torch.uint64")}
    path = save(tensors, tmp_path / "w.pth", zipped)
    got = arrays(path)
    wanted = torch.load(path, weights_only=True)
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        array, dtype = got[name]
        assert f"torch.{dtype}" == str(tensor.dtype) and array.shape == tuple(tensor.shape), name
        assert array.tobytes() == tensor.detach().contiguous().numpy().tobytes(), name
        assert array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative


@BOTH
def test_bfloat16_is_widened_exactly(tmp_path, zipped):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    array, dtype = arrays(save({"w": every}, tmp_path / "w.pth", zipped))["w"]
    assert dtype == "bfloat16" and array.dtype == np.float32
    assert array.tobytes() == every.float().numpy().tobytes()  # all 65 536 of them, NaN payloads too


def test_equals_torch_load_for_old_pickle_protocols(tmp_path):
    for protocol in (2, 3, 4, 5):
        path = save({"w": torch.arange(3.0)}, tmp_path / "w.pth", pickle_protocol=protocol)
        assert arrays(path)["w"][0].tolist() == [0, 1, 2]


def test_legacy_storage_views(tmp_path):
    """A part of a storage, as torch before 0.4 wrote it: (view key, offset, length) in the persistent id."""
    save({"w": torch.arange(6.0)}, tmp_path / "w.pth", False)
    with open_torch(tmp_path / "w.pth") as file:
        call = tensor_call(file.top["w"])
        call.args = (torch_file.StorageRef("FloatStorage", call.args[0].key, 6, ("9", 2, 3)), 0, (3,), (1,))
        assert file.array(call, "w")[0].tolist() == [2, 3, 4]
        call.args = (torch_file.StorageRef("FloatStorage", call.args[0].key, 6, ("9", 4, 3)), 0, (3,), (1,))
        with pytest.raises(UserError, match="outside storage"):
            file.array(call, "w")


def rewrite(path, changes):
    """Replace or remove (None) records of a torch zip file; values may be functions of the old bytes."""
    with zipfile.ZipFile(path) as archive:
        records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    for name, value in changes.items():
        records[name] = value(records[name]) if callable(value) else value
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in records.items():
            if value is not None:
                archive.writestr(f"other_name/{name}", value)
    return path


def test_big_endian_file(tmp_path):
    path = save({"w": torch.tensor([1.0, -2.5]), "n": torch.tensor(7)}, tmp_path / "w.pth")
    swap = {"data/0": lambda raw: np.frombuffer(raw, "<f4").astype(">f4").tobytes(), "byteorder": b"big"}
    swap["data/1"] = lambda raw: np.frombuffer(raw, "<i8").astype(">i8").tobytes()
    got = arrays(rewrite(path, swap))
    assert got["w"][0].tolist() == [1.0, -2.5] and got["n"][0] == 7 and got["n"][0].dtype.isnative


def test_file_without_byteorder_mark_is_little_endian(tmp_path):
    path = rewrite(save({"w": torch.tensor([1.5])}, tmp_path / "w.pth"), {"byteorder": None})
    assert arrays(path)["w"][0].tolist() == [1.5]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data/0": b"\0" * 8}, "declares 6 elements but has 8 bytes"),
        ({"data/0": None}, "data/0"),
        ({"data.pkl": None}, "exactly one data.pkl"),
        ({"data.pkl": b""}, "damaged"),
        ({"byteorder": b"middle"}, "middle"),
        ({"code/__torch__.py": b"", "constants.pkl": b""}, "TorchScript"),
    ],
)
def test_parts_that_do_not_fit_together(tmp_path, changes, match):
    refusal(rewrite(save({"w": torch.arange(6.0)}, tmp_path / "w.pth"), changes), match)


def forged(tmp_path, shape, strides, offset=0, storage="FloatStorage", length=6):
    """A torch zip whose one tensor declares what the test says, over 24 bytes of storage."""

    class Call:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Ref(), offset, shape, strides, False, OrderedDict())

    class Ref:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", getattr(torch, storage), "0", "cpu", length) if isinstance(obj, Ref) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"w": Call()})
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", buffer.getvalue())
        archive.writestr("a/data/0", bytes(24))
    return tmp_path / "w.pth"


def test_forged_file_is_otherwise_sound(tmp_path):
    assert arrays(forged(tmp_path, (2, 3), (3, 1)))["w"][0].shape == (2, 3)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"shape": (7,), "strides": (1,)}, "needs 7 elements of a storage that has 6"),
        ({"shape": (2, 3), "strides": (4, 1)}, "needs 7"),
        ({"shape": (6,), "strides": (1,), "offset": 1}, "needs 7"),
        ({"shape": (1 << 20, 1 << 20), "strides": (0, 0)}, "more than 4 GiB"),
        ({"shape": (1 << 62, 4), "strides": (0, 0)}, "more than 4 GiB"),
        ({"shape": (2,), "strides": (-1,), "offset": 3}, "strides"),
        ({"shape": (2,), "strides": (1,), "offset": -3}, "strides"),
        ({"shape": (-2,), "strides": (1,)}, "strides"),
        ({"shape": (2,), "strides": (1, 1)}, "strides"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "strides"),
        ({"shape": (2.0,), "strides": (1,)}, "not integers"),
        ({"shape": (0, 1 << 70), "strides": (1, 1)}, "damaged"),
        ({"shape": (6,), "strides": (1,), "length": 1 << 40}, "but has 24 bytes"),
        ({"shape": (3,), "strides": (1,), "storage": "ComplexFloatStorage"}, "ComplexFloatStorage"),
    ],
)
def test_sizes_that_the_bytes_do_not_bear_out(tmp_path, kwargs, match):
    refusal(forged(tmp_path, **kwargs), match)


def test_zip_bomb_is_refused_before_unpacking(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_BYTES", 1 << 20)
    path = save({"w": torch.zeros(1 << 20)}, tmp_path / "w.pth")
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in records.items():
            archive.writestr(name, value)
    assert path.stat().st_size < 1 << 16
    refusal(path, "GiB|claims")


@BOTH
def test_every_truncation_is_refused(tmp_path, zipped):
    path = save({"w": torch.arange(3.0), "n": torch.tensor(1)}, tmp_path / "w.pth", zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        refusal(path, "empty|cut short")


@BOTH
def test_added_bytes_or_changed_length(tmp_path, zipped):
    path = save({"w": torch.arange(3.0)}, tmp_path / "w.pth", zipped)
    data = path.read_bytes()
    if not zipped:
        path.write_bytes(data + b"x")
        refusal(path, "storages need")
        path.write_bytes(data[:-20] + struct.pack("<q", 1 << 60) + data[-12:])
        refusal(path, "storages need")
    else:
        path.write_bytes(data.replace(np.arange(3, dtype="f4").tobytes(), bytes(12)))
        refusal(path, "CRC")


@pytest.mark.parametrize("data", [b"hello", b"\x80\x02K\x01.", pickle.dumps({"a": 1}), b"\x1f\x8b rest", b"PK\x03\x04"])
def test_other_files(tmp_path, data):
    (tmp_path / "w.pth").write_bytes(data)
    refusal(tmp_path / "w.pth", "no PyTorch checkpoint")


def test_npz_named_pth(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.ones(1))
    (tmp_path / "w.npz").rename(tmp_path / "w.pth")
    refusal(tmp_path / "w.pth", "rename it to end in .npz")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.ones(2).to(torch.float8_e4m3fn),
        lambda: torch._neg_view(torch.ones(2)),
    ],
    ids=["complex", "sparse", "quantised", "meta", "float8", "negative-view"],
)
def test_tensors_that_numpy_cannot_hold_say_so(tmp_path, make):
    refusal(save({"w": make()}, tmp_path / "w.pth"), "'w'")


def test_torch_is_not_imported(tmp_path):
    path = save({"w": torch.arange(3.0)}, tmp_path / "w.pth")
    code = "import sys, weights_convert as w; w.load(sys.argv[1]); assert not {'torch', 'jittor'} & {*sys.modules}"
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=root)

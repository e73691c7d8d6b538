"""jt_nanodet.checkpoint: what it reads, what it refuses unrun, and that a failed write harms nothing."""

import errno
import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from jt_nanodet import checkpoint
from jt_nanodet.checkpoint import check_finite, read_weights, replacing, weights_sha256, write_weights
from jt_nanodet.errors import UserError


def sample() -> dict:
    """One array of each kind that has gone wrong in some loader: transposed, 0-d, empty, half, big-endian, bool."""
    draw = np.random.default_rng(0)
    return {
        "backbone.conv1.0.weight": draw.standard_normal((24, 3, 3, 3)).astype("f4"),
        "transposed": draw.standard_normal((3, 5)).astype("f4").T,
        "bn.num_batches_tracked": np.array(7, dtype="i8"),
        "scale": np.array(1.5, dtype="f4"),
        "empty": np.zeros((0, 4), dtype="f4"),
        "half": np.array([1, 2.5, -0.0], dtype="f2"),
        "big": np.arange(5, dtype=">f8"),
        "mask": np.array([True, False]),
        "file": np.ones(1, dtype="u1"),  # np.savez cannot store this name
    }


def assert_equal(got: dict, wanted: dict) -> None:
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert got[name].shape == array.shape and got[name].dtype == array.dtype.newbyteorder("="), name
        assert got[name].tobytes() == np.ascontiguousarray(array, dtype=got[name].dtype).tobytes(), name


def refusal(path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    return message


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".PKL"])
def test_round_trip_is_bit_equal(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    write_weights(path, sample())
    got = read_weights(path)
    assert_equal(got, sample())
    assert all(a.flags.writeable and a.flags.c_contiguous for a in got.values())
    assert weights_sha256(got) == weights_sha256(sample())
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_equal_weights_give_equal_files(tmp_path, suffix):
    write_weights(tmp_path / f"a{suffix}", sample())
    write_weights(tmp_path / f"b{suffix}", read_weights(tmp_path / f"a{suffix}"))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_plain_numpy_and_pickle_read_what_is_written(tmp_path):
    write_weights(tmp_path / "w.npz", sample())
    write_weights(tmp_path / "w.pkl", sample())
    with np.load(tmp_path / "w.npz", allow_pickle=False) as archive:
        assert_equal({name: archive[name] for name in archive.files}, sample())
    with open(tmp_path / "w.pkl", "rb") as file:
        loaded = pickle.load(file)
    assert type(loaded) is dict
    assert_equal(loaded, sample())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_pickle_protocol(tmp_path, protocol):
    weights = OrderedDict(sample(), number=np.float32(2.5))
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(weights, protocol))
    assert_equal(read_weights(tmp_path / "w.pkl"), {**sample(), "number": np.array(2.5, "f4")})


def test_reads_names_that_numpy_2_writes(tmp_path):
    data = pickle.dumps({"a": np.arange(3)}, 0).replace(b"numpy.core", b"numpy._core")
    (tmp_path / "w.pkl").write_bytes(data)
    assert_equal(read_weights(tmp_path / "w.pkl"), {"a": np.arange(3)})


def test_reads_compressed_npz(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros((100, 100)))
    assert_equal(read_weights(tmp_path / "w.npz"), {"a": np.zeros((100, 100))})


def test_reads_what_jittor_saves_and_checks_its_checksum(tmp_path):
    data = pickle.dumps(sample(), 4)
    data += hashlib.sha1(data).digest() + b"HCAJSLHD"
    (tmp_path / "w.pkl").write_bytes(data)
    assert_equal(read_weights(tmp_path / "w.pkl"), sample())
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    (tmp_path / "w.pkl").write_bytes(changed)
    refusal(tmp_path / "w.pkl", "checksum")


class Touch:
    """A pickle of this creates a file when an ordinary unpickler reads it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["value", "top", "last", "nested"])
def test_malicious_pickle_is_named_and_not_run(tmp_path, protocol, place):
    bomb = Touch(tmp_path / "executed")
    trees = {"value": {"a": bomb}, "top": bomb, "last": {"a": np.ones(1), "b": [bomb]}, "nested": {"a": {"b": bomb}}}
    tree = trees[place]
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(tree, protocol))
    refusal(tmp_path / "w.pkl", f"'{os.system.__module__}.system'", "not run")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(tree, protocol))  # the should-fail twin: the bomb does work
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "builtins getattr", "numpy load", "numpy.core.multiarray fromfile", "os popen"],
)
def test_other_names_are_refused_even_numpy_ones(tmp_path, name):
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02}X\x01\x00\x00\x00ac" + name.replace(" ", "\n").encode() + b"\n)Rs.")
    refusal(tmp_path / "w.pkl", name.replace(" ", "."))


@pytest.mark.parametrize("allowed", sorted(" ".join(pair) for pair in checkpoint._ALLOWED))
def test_build_cannot_alter_the_reader(tmp_path, allowed):
    """BUILD with the state (None, {attribute: value}) sets attributes on what is on the stack: our own classes."""
    before = {pair: dict(vars(thing)) for pair, thing in checkpoint._ALLOWED.items()}
    data = b"\x80\x02c" + allowed.replace(" ", "\n").encode() + b"\nN}X\x0c\x00\x00\x00__defaults__K\x01s\x86b."
    (tmp_path / "w.pkl").write_bytes(data)
    refusal(tmp_path / "w.pkl")
    assert before == {pair: dict(vars(thing)) for pair, thing in checkpoint._ALLOWED.items()}


def test_object_arrays_are_refused(tmp_path):
    odd = np.array([{"a": 1}, None], dtype=object)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": odd}))
    refusal(tmp_path / "w.pkl", "'a'", "object array")
    np.savez(tmp_path / "w.npz", a=odd)
    refusal(tmp_path / "w.npz", "'a'", "object array")
    with pytest.raises(UserError, match="object array"):
        write_weights(tmp_path / "new.npz", {"a": odd})
    assert sorted(os.listdir(tmp_path)) == ["w.npz", "w.pkl"]


@pytest.mark.parametrize("dtype", ["U4", "S4", "c8", "f4,i4", "M8[s]"])
def test_other_dtypes_are_refused(tmp_path, dtype):
    array = np.zeros(2, dtype)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": array}))
    refusal(tmp_path / "w.pkl")
    np.savez(tmp_path / "w.npz", a=array)
    refusal(tmp_path / "w.npz")


ONE = np.ones(1)


@pytest.mark.parametrize("tree", [[ONE], {"a": 1.0}, {"a": [1.0]}, {1: ONE}, {"": ONE}, {"a\x1b[31m": ONE}, {}, None])
def test_what_is_no_dict_of_named_arrays_is_refused(tmp_path, tree):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(tree))
    message = refusal(tmp_path / "w.pkl")
    assert message.isprintable()


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_every_truncation_is_refused(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    write_weights(path, {"a": np.arange(20, dtype="f4"), "b": np.array(1)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refusal(path, "convert it again")


def test_flipped_bit_in_npz_is_found(tmp_path):
    write_weights(tmp_path / "w.npz", {"a": np.arange(200, dtype="f4")})
    data = bytearray((tmp_path / "w.npz").read_bytes())
    data[500] ^= 4
    (tmp_path / "w.npz").write_bytes(data)
    refusal(tmp_path / "w.npz", "CRC")


def test_bytes_after_the_pickle_are_refused(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": np.ones(1)}) + b"more")
    refusal(tmp_path / "w.pkl", "4 foreign bytes")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo number"),  # C unpickler would allocate 16 GiB of slots
        (b"\x80\x02\x82\x01.", "extension"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "bytes"),
        (b"hello, world", ""),
        (b"PK\x03\x04 nothing", ""),
    ],
)
def test_hostile_or_foreign_bytes_are_refused(tmp_path, data, word):
    (tmp_path / "w.pkl").write_bytes(data)
    refusal(tmp_path / "w.pkl", word)


def npy(shape: tuple, payload: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + payload


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 32, 1 << 32), (3,), (-1,)])
def test_npz_that_declares_more_than_it_has_is_refused(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", npy(shape, b"\0" * 8))
    refusal(tmp_path / "w.npz", "declares")


def test_pickle_that_declares_more_than_it_has_is_refused(tmp_path):
    data = pickle.dumps({"a": np.zeros(200, "f4")}, 2).replace(b"K\xc8\x85", b"K\xff\x85")
    (tmp_path / "w.pkl").write_bytes(data)
    refusal(tmp_path / "w.pkl", "declares (255,)")


def test_zip_bomb_is_refused_before_unpacking(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(1 << 20, "f4"))
    assert (tmp_path / "w.npz").stat().st_size < 1 << 16
    refusal(tmp_path / "w.npz", "unpacks to more")


def test_npz_entries_that_are_no_arrays_or_come_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("readme.txt", "x")
    refusal(tmp_path / "w.npz", "readme.txt")
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", npy((1,), b"\0" * 4))
        archive.writestr("a.npy", npy((1,), b"\0" * 4))
    refusal(tmp_path / "w.npz", "a.npy")


def test_places_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.pkl").touch()
    refusal(tmp_path / "empty.pkl", "0 bytes")
    refusal(tmp_path / "absent.npz", "No such file", "ls -l")
    (tmp_path / "folder.npz").mkdir()
    refusal(tmp_path / "folder.npz", "a folder")
    os.mkfifo(tmp_path / "pipe.pkl")
    refusal(tmp_path / "pipe.pkl", "no regular file")
    refusal(tmp_path / "weights.pth", ".npz, .pkl")


def test_check_finite_names_the_first_and_counts():
    weights = sample()
    check_finite(weights)
    weights["half"][1] = np.inf
    weights["scale"] = np.array(np.nan, "f4")
    with pytest.raises(UserError, match=r"2 NaN or infinite values in 2 of 9 arrays, first in 'scale' \(1 values\)"):
        check_finite(weights, "x.pkl")


def test_sha256_depends_on_name_dtype_shape_and_values_only():
    base = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.array(1.0, "f4")}
    known = weights_sha256(base)
    assert known == weights_sha256(dict(reversed(base.items())))
    assert known == weights_sha256({"a": np.asfortranarray(base["a"]), "b": base["b"].astype(">f4")})
    others = [
        {"c": base["a"], "b": base["b"]},
        {**base, "a": base["a"].astype("f8")},
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "b": base["b"].reshape(1)},
        {**base, "b": np.array(1.0000001, "f4")},
        {"a": base["a"]},
    ]
    assert known not in {weights_sha256(other) for other in others}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, failure):
    path = tmp_path / "w.pkl"
    write_weights(path, sample())
    before = path.read_bytes()
    wanted = (UserError, "No space.*df ") if isinstance(failure, OSError) else (KeyboardInterrupt, None)
    with pytest.raises(wanted[0], match=wanted[1]), replacing(path) as file:
        file.write(b"half of it")
        raise failure
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w.pkl"]


def test_write_limit_of_the_system_is_one_sentence(tmp_path):
    """A real short write: the process may not write files above 4 KiB."""
    import resource
    import signal

    old, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        with pytest.raises(UserError, match="cannot write"):
            write_weights(tmp_path / "w.npz", {"a": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent" / "w.pkl", tmp_path / "file" / "w.pkl", tmp_path / ("n" * 300 + ".pkl")):
        with pytest.raises(UserError, match="cannot write"):
            write_weights(path, sample())
    (tmp_path / "w.pkl").mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        write_weights(tmp_path / "w.pkl", sample())


def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(UserError, match="Permission denied"):
            write_weights(tmp_path / "w.pkl", sample())
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)


def test_writing_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "w.pkl").symlink_to(tmp_path / "real" / "w.pkl")
    write_weights(tmp_path / "w.pkl", sample())
    assert (tmp_path / "w.pkl").is_symlink()
    assert_equal(read_weights(tmp_path / "real" / "w.pkl"), sample())

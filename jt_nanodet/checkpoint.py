"""Weights on disk, without a framework: ``.npz`` and ``.pkl`` in, ``dict[str, numpy.ndarray]`` out.

A pickle is a program. The few NumPy names that an array's pickle needs are answered by record classes of this file;
any other name stops the reading, unrun and unimported, and the message says which it was. No array is built before
its declared shape agrees with the bytes that are there. Writing goes to a temporary neighbour first, so that an
interrupted run leaves the old file whole. Names, order and shapes are upstream's (RangiLyu/nanodet); 0-d stays 0-d.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import pickle
import pickletools
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jt_nanodet.errors import UserError

#: Formats of this module, by file name suffix.
SUFFIXES = (".npz", ".pkl")
#: A file that claims more is damaged or means harm.
MAX_BYTES = 4 << 30
#: A pickle of 887 arrays has about 20 000 opcodes.
MAX_OPCODES = 5_000_000
#: What a weight may be: bool, integers, floats. Objects, text and records are refused.
DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

# Jittor's jt.save ends its pickles with SHA-1 (20 bytes) and this mark.
_JITTOR_MARK = b"HCAJSLHD"


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read ``.npz`` or ``.pkl`` weights into ``{name: array}``, in the file's order; arrays as ``tidy`` makes them.

    Raises UserError when the file is missing, empty, cut short, or holds anything but named number arrays.
    """
    path = Path(path)
    read = _read_npz if require_suffix(path, SUFFIXES) == ".npz" else _read_pkl
    weights = read(read_file(path), path)
    if not weights:
        raise UserError(f"'{path}' holds no weights at all; {_again(path)}")
    return weights


def write_weights(path: str | os.PathLike, weights: Mapping[str, np.ndarray]) -> None:
    """Write ``{name: array}`` to ``.npz`` or ``.pkl`` (protocol 4, a plain dict), atomically.

    Plain ``numpy.load``, ``pickle.load`` and ``jt.load`` read the result. Raises UserError for a suffix, name or
    dtype that cannot be stored, and when the folder cannot be written.
    """
    suffix = require_suffix(Path(path), SUFFIXES)
    with replacing(path) as file:
        write_arrays(file, suffix, weights)


def write_arrays(file: BinaryIO, suffix: str, weights: Mapping[str, np.ndarray]) -> None:
    """Write to an open file what ``write_weights`` writes to a path; ``suffix`` is one of SUFFIXES."""
    plain = tidy(weights)
    if suffix == ".pkl":
        pickle.dump(plain, file, protocol=4)
        return
    # Own loop in place of np.savez: that one cannot store an array named "file", and stamps the time of day.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in plain.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def check_finite(weights: Mapping[str, np.ndarray], source: object = "these weights") -> None:
    """Raise UserError naming the first array with NaN or Inf, and how many values are bad in all."""
    bad = {}
    for name, array in weights.items():
        if np.asarray(array).dtype.kind == "f" and not np.isfinite(array).all():
            bad[name] = int(np.size(array) - np.isfinite(array).sum())
    if bad:
        first = next(iter(bad))
        raise UserError(
            f"'{source}' holds {sum(bad.values())} NaN or infinite values in {len(bad)} of {len(weights)} arrays, "
            f"first in '{first}' ({bad[first]} values); use a checkpoint from before the training diverged"
        )


def weights_sha256(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of every array, names sorted; hexadecimal.

    The order of the dict, memory layout and byte order do not change it; a 0-d and a (1,) array differ.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name])
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        digest.update(f"{name!r} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def tidy(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same weights as native, C-contiguous, writable arrays; UserError for what is no weight."""
    plain = {}
    for name, array in weights.items():
        array = np.asarray(array)
        if not is_name(name):
            raise UserError(f"a weight's name must be printable text, not {name!r}; give every array a name")
        _require_dtype(array.dtype.str[1:], name)
        # Not ascontiguousarray: that one turns 0-d arrays into shape (1,).
        array = np.require(array.astype(array.dtype.newbyteorder("="), order="C", copy=False), requirements="W")
        # NumPy's own dtype object, not an equal one: equal weights then give equal pickles, byte for byte.
        plain[name] = array.view(np.dtype(array.dtype.str[1:]))
    return plain


def is_name(name: object) -> bool:
    """Whether ``name`` can name a weight: printable text (it is shown on terminals), not empty."""
    return isinstance(name, str) and name != "" and name.isprintable()


def require_suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """Return the suffix of ``path`` in lower case, or raise UserError when it is not one of ``suffixes``."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"'{path}' has no suffix of a weight format known here; use one of {', '.join(suffixes)}")
    return path.suffix.lower()


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular, non-empty file below the size limit, or raise UserError."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):  # a named pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(info.st_mode) else "no regular file"
            raise UserError(f"'{path}' is {kind}; give the path of a weight file")
        if not 0 < info.st_size <= MAX_BYTES:
            size = "empty (0 bytes)" if info.st_size == 0 else f"larger than {MAX_BYTES >> 30} GiB"
            raise UserError(f"'{path}' is {size}; {_again(path)}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read '{path}' ({error.strerror}); check the path with: ls -l '{path}'") from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike, check: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of ``path`` for writing; it takes ``path``'s place when the block ends well.

    ``check(temporary)`` may still object before that. On any failure the temporary file is removed and an
    existing ``path`` stays as it was. Raises UserError when the folder cannot be written or the disk is full.
    """
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise UserError(f"'{path}' exists and is not a regular file; give the path of a file to write")
    temporary = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}{target.suffix}")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)  # after a success it is gone already
    except OSError as error:
        hint = f"choose another folder, or see what is wrong with: ls -ld '{target.parent}'; df '{target.parent}'"
        raise UserError(f"cannot write '{path}' ({error.strerror or error}); {hint}") from None


def scan_pickle(data: bytes, path: Path, start: int = 0) -> int:
    """Walk the pickle at ``data[start:]`` without running it; return where it ends.

    Raises UserError when it is no whole pickle, or would hurt the unpickler itself: huge memo numbers (that many
    slots are allocated), lengths beyond the file, extension codes, absurdly many steps.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES} steps")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument) > count:
                raise ValueError(f"memo number {argument} at step {count}")
            if opcode.name.startswith("EXT"):
                raise ValueError("extension codes")
    except Exception as error:  # genops documents no closed set of errors for damaged input
        raise _damaged(path, error) from None
    return stream.tell()


def _read_npz(data: bytes, path: Path) -> dict[str, np.ndarray]:
    weights, total = {}, 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = entry.filename[:-4] if entry.filename.endswith(".npy") else None
                if not is_name(name) or name in weights:
                    raise UserError(f"'{path}' holds {entry.filename!r}, not one array of its own; {_again(path)}")
                total += entry.file_size
                if total > MAX_BYTES:
                    raise UserError(f"'{path}' unpacks to more than {MAX_BYTES >> 30} GiB; {_again(path)}")
                with archive.open(entry) as member:
                    weights[name] = _read_npy(name, member, entry.file_size)
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and the header parser raise many kinds on damaged input
        raise _damaged(path, error) from None
    return weights


def _read_npy(name: str, member: BinaryIO, size: int) -> np.ndarray:
    if np.lib.format.read_magic(member) != (1, 0):  # later versions are for records, which no weight is
        raise ValueError(f"'{name}' is no plain array")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    _require_dtype(dtype.str[1:], name)
    # The size is the directory's; read() returns at most that much, whatever the packed data claims.
    return _build(name, member.read(size), dtype, shape, fortran)


def _read_pkl(data: bytes, path: Path) -> dict[str, np.ndarray]:
    if data.endswith(_JITTOR_MARK):
        data, checksum = data[:-28], data[-28:-8]
        if hashlib.sha1(data).digest() != checksum:
            raise UserError(f"'{path}' does not match the checksum Jittor wrote into it; {_again(path)}")
    end = scan_pickle(data, path)
    if end != len(data):
        raise UserError(f"'{path}' has {len(data) - end} foreign bytes after its pickle; {_again(path)}")
    try:
        unpickler = _ArraysOnly(io.BytesIO(data))
        unpickler.path = path
        top = unpickler.load()
        if not isinstance(top, dict):
            raise UserError(f"'{path}' holds a {type(top).__name__}, not a dict of named arrays; {_again(path)}")
        weights = {}
        for name, value in top.items():
            if not is_name(name) or not isinstance(value, _Array):
                raise UserError(f"'{path}' holds {name!r}, which is not a named NumPy array; {_again(path)}")
            weights[name] = value.build(name)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle may raise nearly anything (pickle's documentation)
        raise _damaged(path, error) from None
    return weights


class _Record:
    """Stands in a pickle for a NumPy object. Never a function: BUILD could rewrite a function's defaults for every
    later reading, but not a class that has ``__setstate__``."""

    def __init__(self, *args: object):
        self.args, self.state = args, ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state


class _Dtype(_Record):
    """``numpy.dtype(code, align, copy)``; the state's second field is the byte order."""

    def ready(self, name: str) -> np.dtype:
        """The real dtype, once it is an allowed one."""
        _require_dtype(str(self.args[0]), name)
        return np.dtype(self.args[0]).newbyteorder(self.state[1] if self.state else "=")


class _Array(_Record):
    """``_reconstruct(...)`` with the state of ``ndarray.__setstate__``; the array itself is built later."""

    def build(self, name: str) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        return _build(name, raw, dtype.ready(name), shape, bool(fortran))


class _FromBuffer(_Array):
    """``numpy.core.numeric._frombuffer``: what pickle protocol 5 writes for an array."""

    def __init__(self, raw: bytes, dtype: _Dtype, shape: tuple, order: str):
        self.state = (1, shape, dtype, order == "F", raw)


class _Scalar(_Array):
    """``numpy.core.multiarray.scalar``: read as a 0-d array."""

    def __init__(self, dtype: _Dtype, raw: bytes):
        self.state = (1, (), dtype, False, raw)


class _Latin1(bytes):
    """``_codecs.encode(text, 'latin1')`` and ``bytes()``: how protocols 0 to 2 write bytes."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> _Latin1:
        return super().__new__(cls, text, {"latin1": "latin1"}[encoding])

    __setstate__ = _Record.__setstate__


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _Latin1,
    ("__builtin__", "bytes"): _Latin1,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and NumPy 2
    _ALLOWED |= {(_core + ".multiarray", "_reconstruct"): _Array, (_core + ".multiarray", "scalar"): _Scalar}
    _ALLOWED[_core + ".numeric", "_frombuffer"] = _FromBuffer


class _ArraysOnly(pickle.Unpickler):
    """Answers the names of ``_ALLOWED`` and refuses every other; nothing is ever imported."""

    path: Path  # for the message

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise UserError(
            f"'{self.path}' is not a pickle of NumPy arrays only: it asks for {module + '.' + name!r}, which was not "
            f"run; {_again(self.path)}"
        )


def _require_dtype(code: str, name: str) -> None:
    if code not in DTYPES:
        kind = "an object array" if code.startswith("O") else f"of dtype {code!r:.40}"
        raise UserError(f"array '{name}' is {kind}; save only bool, integer and float arrays")


def _build(name: str, raw: bytes, dtype: np.dtype, shape: tuple, fortran: bool) -> np.ndarray:
    # math.prod: Python integers, so a shape made to overflow 64 bits does not.
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not sizes or len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"'{name}' declares {shape!r:.80} {dtype} but has {len(raw)} bytes")
    array = (np.frombuffer(raw, dtype) if len(raw) else np.empty(0, dtype)).reshape(shape, order="CF"[fortran])
    return np.array(array, dtype=dtype.newbyteorder("="), order="C", copy=True)


def _again(path: Path) -> str:
    return f"copy it again, or convert it again with: python -m weights_convert SOURCE '{path}'"


def _damaged(path: Path, error: Exception) -> UserError:
    reason = "".join(c if c.isprintable() else "?" for c in str(error))[:120] or type(error).__name__
    return UserError(f"'{path}' is cut short, damaged or no weight file ({reason}); {_again(path)}")

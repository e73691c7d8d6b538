"""The files of a folder of dumped tensors, opened without reading their values: .safetensors, .npz (compressed or not), .npy.

Every file is checked as far as its format allows (sizes, overlaps, checksums of .npz) before a tensor of it is handed out. Values are then read, not
mapped: mapped pages count as this process's memory, and a file cut short while it is mapped kills the process that looks at it.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from alignment.blocks import Blocks
from jt_nanodet.errors import UserError

SUFFIXES = (".safetensors", ".npz", ".npy")
#: Types of safetensors that NumPy has; the others are shorter than float16 or brain floats.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
         "BOOL": "?", "C64": "<c8"}
#: A member is copied out of its archive in pieces of so many bytes.
PIECE = 1 << 20


class Folder(Mapping):
    """The tensors of a folder by name, in order of file name and of their places in the file. Nothing is read before a tensor is looked into.

    Each access makes the tensor anew, so that what it holds (its last block, an open archive) goes when its user goes. UserError when the folder
    holds no tensor, a file is cut short or not what its name says, or two files name the same tensor.
    """

    def __init__(self, folder: Path):
        self.path = folder
        self.makers: dict[str, Callable[[], Blocks]] = {}
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            if path.suffix not in SUFFIXES:
                continue
            with readable(path):
                found = list(OPEN[path.suffix](path))
            for name, make in found:
                if name in self.makers:
                    raise UserError(f"{path} names {name!r}, which it or an earlier file of {folder} has already: keep one of them")
                self.makers[name] = make
        if not self.makers:
            raise UserError(f"{folder} holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file with a tensor: give a folder of dumped tensors")

    def __getitem__(self, name: str) -> Blocks:
        return self.makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.makers

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What a damaged file makes its reader raise becomes one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split()) or type(error).__name__}): dump it again") from error


def checked(name: str, shape: tuple[int, ...], dtype: np.dtype, room: int) -> None:
    """ValueError unless so many numbers of a type that can be compared fill the room of so many bytes."""
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise ValueError(f"{name!r} is of type {dtype}, and booleans, integers, float16 to float64 and complex numbers of these can be compared")
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != room:
        raise ValueError(f"{name!r} claims shape {tuple(shape)} of {dtype}, and has {room} bytes")


def tensor(path: Path, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[int, int], np.ndarray]) -> Blocks:
    """Blocks whose reader may meet a file that was changed since it was opened; booleans are 0 or 1."""
    def guarded(start: int, stop: int) -> np.ndarray:
        with readable(path):
            values = read(start, stop)
            if values.size != stop - start:
                raise ValueError("it has become shorter while it was being read")
            if dtype.kind == "b" and values.view(np.uint8).max(initial=0) > 1:
                raise ValueError("a boolean in it is neither 0 nor 1")
            return values
    return Blocks(shape, dtype, guarded)


def in_place(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, fortran: bool = False) -> Blocks:
    """A tensor whose bytes lie in one piece in a file."""
    if fortran and len(shape) > 1:
        return tensor(path, shape, dtype, lambda start, stop: reordered(path, dtype, offset, shape, start, stop))

    def read(start: int, stop: int) -> np.ndarray:
        with open(path, "rb") as file:
            return np.fromfile(file, dtype, stop - start, offset=offset + start * dtype.itemsize)
    return tensor(path, shape, dtype, read)


def reordered(source: Path | BinaryIO, dtype: np.dtype, offset: int, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    """Elements in C order out of a file in Fortran's. Mapped, and anew for each block, so that the pages of one block alone are held."""
    return np.asarray(np.memmap(source, dtype, "r", offset, shape, "F").flat[start:stop])


#: Pairs of a name and what makes its tensor.
Makers = Iterator[tuple[str, Callable[[], Blocks]]]


def open_safetensors(path: Path) -> Makers:
    with safe_open(path, "np") as file:  # it checks sizes, overlaps and holes; where the bytes lie it does not say
        names = set(file.keys())
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries = json.loads(stream.read(length), object_pairs_hook=once)
    entries.pop("__metadata__", None)
    if set(entries) != names:
        raise ValueError("its header names other tensors than it holds")
    for name, about in sorted(entries.items(), key=lambda entry: entry[1]["data_offsets"]):
        if about["dtype"] not in TYPES:
            raise ValueError(f"{name!r} is of type {about['dtype']}, which NumPy does not have; as float32 it can be compared")
        begin, end = about["data_offsets"]
        shape, dtype = tuple(about["shape"]), np.dtype(TYPES[about["dtype"]])
        checked(name, shape, dtype, end - begin)
        yield name, partial(in_place, path, 8 + length + begin, shape, dtype)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header names a tensor twice")
    return found


def npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran's order, type); the stream then stands at the first value. ValueError for what is no array of numbers."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format version is {version}, and arrays of numbers have 1.0 or 2.0")
    return (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)


def open_npy(path: Path) -> Makers:
    with open(path, "rb") as stream:
        shape, fortran, dtype = npy_header(stream)
        offset = stream.tell()
    checked(path.stem, shape, dtype, path.stat().st_size - offset)
    yield path.stem, partial(in_place, path, offset, shape, dtype, fortran)


def open_npz(path: Path) -> Makers:
    """The names of members are names of tensors and never places: nothing is unpacked anywhere."""
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
        if bad is not None:
            raise ValueError(f"the checksum of {bad!r} does not hold")
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                raise ValueError(f"its member {info.filename!r} is no array")
            with archive.open(info) as stream:
                shape, fortran, dtype = npy_header(stream)
                head = stream.tell()
            name = info.filename.removesuffix(".npy")
            checked(name, shape, dtype, info.file_size - head)
            if info.compress_type == zipfile.ZIP_STORED:
                yield name, partial(in_place, path, data_offset(path, info) + head, shape, dtype, fortran)
            elif fortran and len(shape) > 1:
                yield name, partial(compressed, path, shape, dtype, Unpacked, info.filename, head, shape)
            else:
                yield name, partial(compressed, path, shape, dtype, Forwards, info.filename, head)


def compressed(path: Path, shape: tuple[int, ...], dtype: np.dtype, reader: type, *about: Any) -> Blocks:
    return tensor(path, shape, dtype, reader(path, dtype, *about))


def data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its local header, whose two lengths stand at bytes 26 and 28."""
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        return info.header_offset + 30 + int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")


class Unpacked:
    """Reads a compressed member in Fortran's order, which cannot be read forwards, from a temporary file that has no name."""

    def __init__(self, path: Path, dtype: np.dtype, member: str, head: int, shape: tuple[int, ...]):
        self.path, self.dtype, self.member, self.head, self.shape = path, dtype, member, head, shape
        self.file: BinaryIO | None = None

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if self.file is None:
            self.file = tempfile.TemporaryFile()  # closed with the last reference to this reader
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                shutil.copyfileobj(stream, self.file, PIECE)
            self.file.flush()
        return reordered(self.file, self.dtype, self.head, self.shape, start, stop)


class Forwards:
    """Reads a compressed member from front to back, and from the front again when an earlier place is asked for."""

    def __init__(self, path: Path, dtype: np.dtype, member: str, head: int):
        self.path, self.dtype, self.member, self.head = path, dtype, member, head
        self.archive: zipfile.ZipFile | None = None
        self.stream: Any = None
        self.place = 0

    def __call__(self, start: int, stop: int) -> np.ndarray:
        begin, end = (self.head + place * self.dtype.itemsize for place in (start, stop))
        if self.stream is None or begin < self.place:
            self.close()
            self.archive = zipfile.ZipFile(self.path)
            self.stream, self.place = self.archive.open(self.member), 0
        while self.place < begin:
            self.place += len(self.taken(min(PIECE, begin - self.place)))
        data = self.taken(end - begin)
        self.place = end
        return np.frombuffer(data, self.dtype)

    def taken(self, count: int) -> bytes:
        data = self.stream.read(count)
        if len(data) != count:
            raise EOFError("it has become shorter while it was being read")
        return data

    def close(self) -> None:
        for one in (self.stream, self.archive):
            if one is not None:
                one.close()
        self.stream = self.archive = None


OPEN = {".safetensors": open_safetensors, ".npz": open_npz, ".npy": open_npy}

"""A bundle: one run of one side, as a folder holding ``header.json`` and safetensors files.

The header says what was run (hashes of configuration, weights, inputs and code, seed, flags, versions) and lists every tensor with its file, type,
shape and SHA-256, in order of execution. It is written last, and the folder appears under its name only when complete, so a half-written bundle
cannot be mistaken for a whole one. Tensors lie in ``tensors.safetensors`` and, when they are many, in ``tensors-0002.safetensors`` and so on.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from alignment.reasons import Reason
from alignment.result import plain, write_json
from jt_nanodet.errors import UserError

SCHEMA_VERSION = 1
HEADER_FILE = "header.json"
SIDES = ("pytorch", "jittor")
#: numpy types and their safetensors names; anything else is refused on `add`.
TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}
#: Header entries in which a comparable pair agrees, each with its own reason.
AGREE = {
    "kind": Reason.KIND, "config_sha256": Reason.CONFIG_DIFFERS, "weights_sha256": Reason.WEIGHTS_DIFFER, "inputs_sha256": Reason.INPUTS_DIFFER,
    "seed": Reason.SEED_DIFFERS,
}
HASHES = ("config_sha256", "weights_sha256", "inputs_sha256", "code_sha256")


@dataclass(frozen=True)
class Header:
    """What is known about a run. Hashes are hexadecimal SHA-256.

    `kind`: what was run ("layers", "infer"); `side`: "pytorch" or "jittor"; `flags`: what changes numbers (precision, training mode), with the same
    key for the same thing on both sides; `durations` in seconds; `command`: what to type to write the bundle again; `extra`: anything else,
    as JSON.
    """

    kind: str
    side: str
    framework: str
    config_sha256: str
    weights_sha256: str
    inputs_sha256: str
    code_sha256: str
    seed: int
    device: str = "cpu"
    threads: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    command: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Objection:
    """One reason why a run, or a pair of runs, cannot be judged, with a sentence for people."""

    reason: Reason
    text: str


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 over type, shape and little-endian C-order bytes, so that a reshaped copy has another hash."""
    array = np.asarray(array)
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape}\n".encode())
    if array.size:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(memoryview(np.ascontiguousarray(little).reshape(-1).view(np.uint8)))
    return digest.hexdigest()


class BundleWriter:
    """Writes a bundle at `directory`; use as ``with BundleWriter(folder, header) as bundle: bundle.add(name, array)``.

    Arrays are copied by `add` (frameworks reuse their buffers) and leave memory with every full shard. Nothing appears at `directory` before
    `close`; an existing *bundle* there is replaced, any other folder that is not empty is refused. An exception inside ``with`` leaves nothing.
    Raises UserError when the folder cannot be written.
    """

    def __init__(self, directory: str | Path, header: Header, *, shard_bytes: int = 256 << 20):
        if header.side not in SIDES:
            raise ValueError(f"side must be one of {SIDES}, not {header.side!r}")
        self.directory, self.header, self._shard_bytes = Path(directory), header, shard_bytes
        self._partial = self.directory.with_name(f".{self.directory.name}.{os.getpid()}.partial")
        self._shard: dict[str, np.ndarray] = {}
        self._pending = 0
        self._tensors: dict[str, dict[str, Any]] = {}
        self._files: dict[str, int] = {}
        if self.directory.exists() and not (self.directory / HEADER_FILE).exists() and (not self.directory.is_dir() or any(self.directory.iterdir())):
            raise UserError(f"{self.directory} exists and is no bundle; give another folder with --output.")
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> "BundleWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def add(self, name: str, array: np.ndarray) -> None:
        """Append a stage. ValueError for a name that is empty, taken or ``__metadata__``, or for a type outside `TYPES`."""
        array = np.asarray(array)
        if not name or name == "__metadata__" or name in self._tensors:
            raise ValueError(f"the stage name {name!r} is {'taken' if name in self._tensors else 'not allowed'}")
        if array.dtype.name not in TYPES:
            raise ValueError(f"{name}: type {array.dtype} cannot be stored; use one of {', '.join(TYPES)}")
        # order="C" keeps 0-d arrays 0-d, which numpy.ascontiguousarray does not.
        copy = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
        file = "tensors.safetensors" if not self._files else f"tensors-{len(self._files) + 1:04d}.safetensors"
        self._tensors[name] = {"file": file, "dtype": copy.dtype.name, "shape": list(copy.shape), "sha256": array_sha256(copy)}
        self._shard[name] = copy
        self._pending += copy.nbytes
        if self._pending >= self._shard_bytes:
            self._flush()

    def close(self, *, durations: Mapping[str, float] | None = None, peak_memory_mb: float | None = None, extra: Mapping[str, Any] | None = None) -> None:
        """Complete the bundle; the arguments amend the header with what is known only at the end. A second call does nothing."""
        if self._partial is None:
            return
        changes: dict[str, Any] = {}
        if durations is not None:
            changes["durations"] = {**self.header.durations, **durations}
        if peak_memory_mb is not None:
            changes["peak_memory_mb"] = peak_memory_mb
        if extra is not None:
            changes["extra"] = {**self.header.extra, **extra}
        self.header = dataclasses.replace(self.header, **changes)
        self._flush()
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        document = {
            "schema_version": SCHEMA_VERSION, **plain(dataclasses.asdict(self.header)), "created": created, "stages": list(self._tensors),
            "files": self._files, "tensors": self._tensors,
        }
        try:
            write_json(self._partial / HEADER_FILE, document)
            if self.directory.exists():
                shutil.rmtree(self.directory)
            os.replace(self._partial, self.directory)
        except OSError as error:
            self.abort()
            raise self._unwritable(error) from error
        self._partial = None

    def abort(self) -> None:
        """Remove what was written so far."""
        if self._partial is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial, self._shard = None, {}

    def _flush(self) -> None:
        if not self._shard:
            return
        file = self._tensors[next(iter(self._shard))]["file"]
        try:
            save_file(self._shard, self._partial / file)
            self._files[file] = (self._partial / file).stat().st_size
        except Exception as error:  # safetensors reports a full disk with an exception of its own
            self.abort()
            raise self._unwritable(error) from error
        self._shard, self._pending = {}, 0

    def _unwritable(self, error: Exception) -> UserError:
        return UserError(f"{self.directory} cannot be written ({getattr(error, 'strerror', None) or error}); give a folder you can write to with --output.")


class Bundle(Mapping):
    """An opened bundle: a read-only mapping from stage name to a memory-mapped array, in the order in which stages were added."""

    def __init__(self, path: Path, document: Mapping[str, Any], offsets: Mapping[str, tuple[str, int]]):
        self.path = path
        known = {f.name for f in dataclasses.fields(Header)}
        self.header = Header(**{key: value for key, value in document.items() if key in known})
        self.stages: tuple[str, ...] = tuple(document["stages"])
        self.created: str = document["created"]
        self._tensors, self._offsets = document["tensors"], offsets
        self._maps: dict[str, mmap.mmap] = {}

    @classmethod
    def open(cls, directory: str | Path, *, regenerate: str = "") -> "Bundle":
        """Open and validate. UserError, ending with the command to write it again (`regenerate`, else the header's own), when it is missing, of
        another schema version, incomplete or truncated."""
        path = Path(directory)
        again = f"write it again with `{regenerate}`" if regenerate else "run the command that writes it again"
        if not (path / HEADER_FILE).is_file():
            state = "holds no complete bundle" if path.is_dir() else "does not exist"
            raise UserError(f"{path} {state}; {again}.")
        try:
            document = json.loads((path / HEADER_FILE).read_text(encoding="utf-8"))
            version = document["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path / HEADER_FILE} cannot be read ({error}); {again}.") from error
        if isinstance(document.get("command"), str) and document["command"] and not regenerate:
            again = f"write it again with `{document['command']}`"
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, and this program reads {SCHEMA_VERSION}; {again}.")
        try:
            return cls(path, document, _offsets(path, document))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is incomplete ({error}); {again}.") from error

    def __getitem__(self, name: str) -> np.ndarray:
        """The tensor as a read-only view of the file; integers stay integers."""
        about = self._tensors[name]
        shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"]).newbyteorder("<")
        count = int(np.prod(shape, dtype=np.int64))
        if count == 0:
            return np.empty(shape, dtype)
        file, offset = self._offsets[name]
        if file not in self._maps:
            with open(self.path / file, "rb") as stream:
                self._maps[file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._maps[file], dtype, count, offset).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name]["shape"])

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(self._tensors[name]["dtype"])

    def sha256(self, name: str) -> str:
        """The tensor's hash as recorded when it was written."""
        return self._tensors[name]["sha256"]

    def altered(self) -> list[str]:
        """Names of tensors whose bytes no longer have the recorded hash. Reads everything."""
        return [name for name in self if array_sha256(self[name]) != self.sha256(name)]

    def stale(self, **hashes: str) -> list[Objection]:
        """Compare recorded hashes with those of today: ``bundle.stale(code_sha256=..., weights_sha256=...)``. Empty when all agree."""
        unknown = sorted(set(hashes) - set(HASHES))
        if unknown:
            raise ValueError(f"no such hash: {', '.join(unknown)}")
        old = [key for key, value in hashes.items() if getattr(self.header, key) != value]
        again = f"`{self.header.command}`" if self.header.command else "the command that wrote it"
        return [Objection(Reason.STALE, f"{self.path} was made with another {key.split('_')[0]} than today's; run {again} again") for key in old]


def comparable(ref: Bundle, cand: Bundle) -> list[Objection]:
    """Why the two runs may not be compared; empty when they may. Device, threads and code may differ, everything that decides the result may not."""
    if os.path.realpath(ref.path) == os.path.realpath(cand.path):
        return [Objection(Reason.SAME_RUN, f"reference and candidate are the same bundle, {ref.path}")]
    found = []
    for bundle in (ref, cand):
        lacking = [key for key in HASHES if not getattr(bundle.header, key)]
        if lacking:
            found.append(Objection(Reason.UNHASHED, f"{bundle.path} does not record {', '.join(lacking)}"))
    for key, reason in AGREE.items():
        left, right = getattr(ref.header, key), getattr(cand.header, key)
        if left != right:
            found.append(Objection(reason, f"{key} differs: {_short(left)} for the reference, {_short(right)} for the candidate"))
    for key in sorted(ref.header.flags.keys() & cand.header.flags.keys()):
        left, right = ref.header.flags[key], cand.header.flags[key]
        if left != right:
            found.append(Objection(Reason.FLAGS_DIFFER, f"flag {key} differs: {left!r} for the reference, {right!r} for the candidate"))
    return found


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 16 else repr(value)


def _offsets(path: Path, document: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Where each tensor's bytes start. ValueError when header and files do not agree in every particular."""
    tensors, files = document["tensors"], document["files"]
    if list(document["stages"]) != list(tensors):
        raise ValueError("its list of stages is not its list of tensors")
    where: dict[str, tuple[str, int]] = {}
    for file, size in files.items():
        if os.path.basename(file) != file:
            raise ValueError(f"{file} is no plain file name")
        found = (path / file).stat().st_size
        if found != size:
            raise ValueError(f"{file} has {found} bytes instead of {size}")
        with open(path / file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError(f"{file} is no safetensors file")
            entries = json.loads(stream.read(length))
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            about = tensors[name]
            begin, end = entry["data_offsets"]
            count = int(np.prod(about["shape"], dtype=np.int64)) * np.dtype(about["dtype"]).itemsize
            agree = entry["dtype"] == TYPES[about["dtype"]] and entry["shape"] == about["shape"] and about["file"] == file
            if not agree or end - begin != count or not 0 <= begin <= end <= size - 8 - length:
                raise ValueError(f"{file} and {HEADER_FILE} disagree about {name!r}")
            where[name] = (file, 8 + length + begin)
    absent = [name for name in tensors if name not in where]
    if absent:
        raise ValueError(f"{len(absent)} tensors are not in its files, the first is {absent[0]!r}")
    return where

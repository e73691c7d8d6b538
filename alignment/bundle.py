"""A bundle: one run of one side, as a folder holding ``header.json`` and safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.reasons import Reason

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Header:
    """What is known about a run. Hashes are hexadecimal SHA-256. `command` is what to type to write the bundle again."""

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


class BundleWriter:
    """Writes a bundle at `directory`; use as ``with BundleWriter(folder, header) as bundle: bundle.add(name, array)``.

    Arrays are copied on `add` and leave memory with every full shard. Nothing appears at `directory` before `close`.
    `close(durations=..., peak_memory_mb=..., extra=...)` may amend these header fields. An exception inside ``with`` leaves nothing behind.
    """

    def __init__(self, directory: str | Path, header: Header, *, shard_bytes: int = 256 << 20): ...
    def add(self, name: str, array: np.ndarray) -> None: ...
    def close(self, *, durations=None, peak_memory_mb=None, extra=None) -> None: ...
    def abort(self) -> None: ...


class Bundle:
    """An opened bundle: a read-only mapping from stage name to a memory-mapped array, in the order in which stages were added."""

    path: Path
    header: Header
    stages: tuple[str, ...]
    created: str

    @classmethod
    def open(cls, directory: str | Path, *, regenerate: str = "") -> "Bundle": ...
    def __getitem__(self, name: str) -> np.ndarray: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> np.dtype: ...
    def sha256(self, name: str) -> str: ...
    def altered(self) -> list[str]: ...
    def stale(self, **hashes: str) -> list[Objection]: ...


def comparable(ref: Bundle, cand: Bundle) -> list[Objection]:
    """Why the two runs may not be compared; empty when they may."""
    raise NotImplementedError

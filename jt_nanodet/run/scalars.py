"""Scalars for TensorBoard, written without TensorBoard.

An event file is a sequence of TFRecords (length, masked CRC-32C of it, payload, masked CRC-32C of that) whose payload is the protocol
buffer ``Event``: wall_time 1, step 2, file_version 3, summary 5 with values of tag 1 and simple_value 2.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def _table() -> list[int]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return rows


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


class ScalarWriter:
    """One event file in ``folder``; every record is flushed, so that an interrupted run keeps its points."""

    def __init__(self, folder: str | os.PathLike):
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self.file = open(Path(folder) / name, "ab")  # noqa: SIM115 — closed by close()
        self._record(b"\x09" + struct.pack("<d", now) + _bytes_field(3, b"brain.Event:2"))

    def add(self, values: dict[str, float], step: int) -> None:
        """Every tag of ``values`` at ``step``."""
        summary = b"".join(
            _bytes_field(1, _bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
        )
        self._record(b"\x09" + struct.pack("<d", time.time()) + b"\x10" + _varint(step) + _bytes_field(5, summary))

    def _record(self, payload: bytes) -> None:
        length = struct.pack("<Q", len(payload))
        self.file.write(length + struct.pack("<I", masked_crc(length)) + payload + struct.pack("<I", masked_crc(payload)))
        self.file.flush()

    def close(self) -> None:
        self.file.close()

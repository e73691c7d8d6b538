"""Reading TensorBoard event files without TensorBoard.

An event file is a sequence of TFRecords (length, check sum of the length, payload, check sum of the payload); the payload is a protocol buffer
``Event``. Only the scalars are wanted: ``wall_time`` (field 1), ``step`` (2) and in ``summary`` (5) the values' ``tag`` (1), ``simple_value`` (2)
or, from newer writers, a float ``tensor`` (8).
"""

from __future__ import annotations

import struct
from pathlib import Path

from alignment.log_reader.model import Run
from alignment.log_reader.rows import Table, collect
from jt_nanodet.errors import UserError


def is_event_file(path: Path) -> bool:
    return "tfevents" in path.name


def read_events(paths: list[Path], label: Path) -> Run:
    """Read the event files of one run, in the order of their first time stamps. UserError when a file is not an event file."""
    run = Run(str(label), "tensorboard")
    tables: dict[str, Table] = {}
    rows: list[tuple[float, str, int, float]] = []
    total = 0
    for path in paths:
        records, cut = _records(path)
        run.cut |= cut
        total += len(records)
        for record in records:
            rows += _scalars(record)
    rows.sort(key=lambda row: row[0])
    for number, (_, tag, step, value) in enumerate(rows, 1):
        table = tables.setdefault(tag, Table(["step", ("value", tag)], "train", True))
        table.rows.extend((float(step), value))
        table.numbers.append(number)
    run.total_lines = total
    run.lines = {"scalars": len(rows)} | ({"cut": 1} if run.cut else {})
    collect(run, list(tables.values()))
    return run


def _records(path: Path) -> tuple[list[bytes], bool]:
    """The payloads of a file, and whether its last record is cut off."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check the path and its permissions.") from error
    found, at = [], 0
    while at < len(data):
        if at + 12 > len(data):
            return found, True
        length, check = struct.unpack_from("<QI", data, at)
        if _masked_crc(data[at:at + 8]) != check:
            raise UserError(f"{path} is damaged at byte {at} or is not a TensorBoard event file; name the log of the run instead.")
        if at + 16 + length > len(data):
            return found, True
        found.append(data[at + 12:at + 12 + length])
        at += 16 + length
    return found, False


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C in the masked form that TFRecord uses."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _fields(data: bytes):
    """(number, wire type, value) of every field of a protocol buffer message. A varint is an int, the rest are bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 1:
            value, at = data[at:at + 8], at + 8
        elif wire == 5:
            value, at = data[at:at + 4], at + 4
        elif wire == 2:
            length, at = _varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            return
        yield number, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while at < len(data):
        byte = data[at]
        result |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return result, at


def _scalars(record: bytes) -> list[tuple[float, str, int, float]]:
    wall, step, values = 0.0, 0, []
    for number, wire, value in _fields(record):
        if number == 1 and wire == 1:
            wall = struct.unpack("<d", value)[0]
        elif number == 2 and wire == 0:
            step = value
        elif number == 5 and wire == 2:
            values += [entry for n, w, entry in _fields(value) if n == 1 and w == 2]
    found = []
    for entry in values:
        tag, scalar = "", None
        for number, wire, value in _fields(entry):
            if number == 1 and wire == 2:
                tag = value.decode("utf-8", "replace")
            elif number == 2 and wire == 5:
                scalar = struct.unpack("<f", value)[0]
            elif number == 8 and wire == 2:
                scalar = _tensor(value)
        if tag and scalar is not None:
            found.append((wall, tag, step, scalar))
    return found


def _tensor(data: bytes) -> float | None:
    """The number in a one-element float or double TensorProto, else None (histograms, images and text are tensors too)."""
    kind, content = 0, b""
    for number, wire, value in _fields(data):
        if number == 1 and wire == 0:
            kind = value
        elif number in (4, 5, 6) and wire in (1, 2, 5):
            content = value
    if kind == 1 and len(content) == 4:
        return struct.unpack("<f", content)[0]
    return struct.unpack("<d", content)[0] if kind == 2 and len(content) == 8 else None

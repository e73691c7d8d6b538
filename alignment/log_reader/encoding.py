"""Opening a log whose encoding nobody wrote down: UTF-8, UTF-8 with a byte order mark, UTF-16, GBK.

GBK is read as GB18030, its superset. The order of the guesses is safe: text in GBK with a Chinese character in it is hardly ever valid UTF-8,
while almost anything is valid GB18030, so UTF-8 is tried first and the whole file must obey it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from jt_nanodet.errors import UserError

_CHUNK = 1 << 20


def detect(path: Path) -> str:
    """The name of the encoding of `path`, for `open_text`. The file is read once, a chunk at a time. UserError when it cannot be read as text."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            if head.startswith(codecs.BOM_UTF8):
                return _valid(file, head, "utf-8-sig")
            if b"\0" in head:
                # UTF-16 without a mark: much of a log is ASCII, so many bytes in odd or in even places are zero, and hardly any in the others.
                odd, even = head[1::2].count(0), head[0::2].count(0)
                for name, many, few in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
                    if many > 0.2 * len(head) / 2 and few < 0.1 * many and _decodes(head, name):
                        return name
                raise UserError(f"{path} is a binary file, not a log; name a text, CSV, JSON lines or TensorBoard event file.")
            return _valid(file, head, "utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check the path and its permissions.") from error


def _decodes(head: bytes, encoding: str) -> bool:
    text = head[: len(head) // 2 * 2 - 2].decode(encoding, "replace")
    return "\ufffd" not in text and "\n" in text and sum(c.isprintable() or c.isspace() for c in text) > 0.98 * len(text)


def _valid(file, head: bytes, first: str) -> str:
    """`first` when the whole file obeys it or all but a few of its characters do, else gb18030 when it obeys that, else "utf-8 with errors"."""
    file.seek(0)
    broken, fine = _utf8_errors(file)
    if not broken:
        return first
    # A log cut in the middle of a character, or two programs writing at once, spoils a few characters; GBK read as UTF-8 spoils most of them.
    if broken <= 0.1 * fine:
        return "utf-8 with errors"
    decoder = codecs.getincrementaldecoder("gb18030")("strict")
    file.seek(0)
    try:
        while chunk := file.read(_CHUNK):
            decoder.decode(chunk)
        return "gb18030"
    except UnicodeDecodeError:
        return "utf-8 with errors"


def _utf8_errors(file) -> tuple[int, int]:
    """How many characters of `file` are broken as UTF-8, and how many beyond ASCII are fine."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    broken = fine = 0
    while chunk := file.read(_CHUNK):
        # ASCII is the common case and needs no decoding to be judged.
        if chunk.isascii() and not decoder.getstate()[0]:
            continue
        text = decoder.decode(chunk)
        bad = text.count("\ufffd")
        broken += bad
        fine += sum(not c.isascii() for c in text) - bad
    return broken, fine


def open_text(path: Path, encoding: str) -> TextIO:
    """Open `path` for reading lines. A carriage return alone ends a line too, because progress bars write them."""
    if encoding == "utf-8 with errors":
        return open(path, encoding="utf-8", errors="replace", newline=None)
    # errors="replace" only matters for a character cut off at the very end; `detect` has checked the rest.
    return open(path, encoding=encoding, errors="replace", newline=None)


def raw_lines(path: Path, encoding: str) -> Iterator[bytes]:
    """The lines of `path` as bytes with their ends, in UTF-8, or in GB18030 where that is the encoding. A byte order mark is taken off."""
    if encoding.startswith("utf-16"):
        with open_text(path, encoding) as file:
            yield from (line.encode("utf-8", "replace") for line in file)
        return
    with open(path, "rb") as file:
        if encoding == "utf-8-sig":
            file.read(len(codecs.BOM_UTF8))
        yield from file

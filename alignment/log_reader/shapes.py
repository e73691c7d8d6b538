"""Recognising a line by its shape, fast.

Two lines have the same shape when they are equal after their digits, points and signs are removed. For a shape seen before it is known which
of the line's free-standing numbers are wanted, so a line costs two passes of `bytes.translate`, one split and a few `float` calls. Anything
doubtful (a number glued to a letter, another count of numbers, a NaN) is left to the slow path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter

from alignment.log_reader.rows import Table

#: Line ends go too, so that the last line has the shape of the others.
DELETE = b"0123456789.+-\r\n"
NUMBERS = bytes(c if chr(c) in "0123456789.+-eE" else 32 for c in range(256))
#: Shapes remembered. A log has a handful; the bound keeps a file of unrelated text from filling the memory.
MAX_SHAPES = 4096


class Plan:
    """What to do with lines of one shape. `pick` takes the wanted numbers out of the split line, `count` is how many numbers it must have,
    `fixed` are numbers that belong to names and may not change; None when there is none."""

    __slots__ = ("pick", "count", "fixed", "fixed_values", "table", "category", "stamp", "taken")

    def __init__(self, pick: Callable, count: int, fixed: Callable | None, fixed_values: object, table: Table, category: str, stamp) -> None:
        self.pick, self.count, self.fixed, self.fixed_values = pick, count, fixed, fixed_values
        self.table, self.category, self.stamp, self.taken = table, category, stamp, 0


def skeleton(line: bytes) -> bytes:
    return line.translate(None, DELETE)


def numbers(line: bytes) -> list[bytes]:
    return line.translate(NUMBERS).split()


def learn(line: bytes, spans: list[tuple[int, int]], table: Table, category: str, stamp: slice | None) -> Plan | None:
    """The plan for lines like `line`, whose wanted numbers lie at the byte `spans`, in this order; None when they cannot be told by place."""
    tokens = [match.span() for match in re.finditer(rb"\S+", line.translate(NUMBERS))]
    place = {span: index for index, span in enumerate(tokens)}
    wanted = [place.get(span) for span in spans]
    if None in wanted or len(wanted) < 1:
        return None
    # A number glued to the end of a word (AP_50) is part of a name: another number there makes another name.
    fixed = [
        index for index, (start, end) in enumerate(tokens)
        if index not in wanted and start and re.match(rb"[A-Za-z_@\x80-\xff]", line[start - 1:start]) and re.search(rb"\d", line[start:end])
        # The T of an ISO time belongs to no name.
        and not re.search(rb"\d\d-\d\dT$", line[max(0, start - 6):start])
    ]
    split = numbers(line)
    getter = itemgetter(*fixed) if fixed else None
    pick = itemgetter(*wanted) if len(wanted) > 1 else (lambda tokens, index=wanted[0]: (tokens[index],))
    return Plan(pick, len(tokens), getter, getter(split) if getter else None, table, category, stamp)

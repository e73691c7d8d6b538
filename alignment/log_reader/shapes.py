"""Recognising a line by its shape, fast.

Two lines have the same shape when they are equal after their digits, points and signs are removed. For a shape seen before it is known which
of the line's free-standing numbers are wanted, so a line costs two passes of `bytes.translate`, one split and a few `float` calls. Anything
doubtful (a number glued to a letter, another count of numbers, a NaN) is left to the slow path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter, le

import numpy as np

from alignment.log_reader.rows import Table

#: Line ends go too, so that the last line has the shape of the others.
DELETE = b"0123456789.+-\r\n"
_DELETE_IN_LINE = b"0123456789.+-"
#: Lines tried together.
BLOCK = 512
NUMBERS = bytes(c if chr(c) in "0123456789.+-eE" else 32 for c in range(256))
#: Shapes remembered. A log has a handful; the bound keeps a file of unrelated text from filling the memory.
MAX_SHAPES = 4096


class Plan:
    """What to do with lines of one shape. `pick` takes the wanted numbers out of the split line, `count` is how many numbers it must have, `fixed`
    takes out those that belong to names and may not change (None when there is none)."""

    __slots__ = ("pick", "places", "count", "fixed", "fixed_places", "fixed_values", "table", "category", "stamp", "taken")

    def __init__(self, places: list[int], tokens: list[bytes], fixed: list[int], table: Table, category: str, stamp: slice | None) -> None:
        self.places, self.count, self.fixed_places = places, len(tokens), fixed
        self.pick = itemgetter(*places) if len(places) > 1 else (lambda tokens, index=places[0]: (tokens[index],))
        self.fixed = itemgetter(*fixed) if fixed else None
        self.fixed_values = self.fixed(tokens) if fixed else None
        self.table, self.category, self.stamp, self.taken = table, category, stamp, 0

    def take_block(self, lines: list[bytes], number: int) -> bool:
        """Take `lines`, the first of which is line `number`, if all of them have this shape; else take none and return False.

        The same checks as for one line, made for all of them at once.
        """
        count = len(lines)
        together = b"".join(lines)
        if together.translate(None, _DELETE_IN_LINE) != lines[0].translate(None, _DELETE_IN_LINE) * count:
            return False
        tokens = numbers(together)
        if len(tokens) != count * self.count:
            return False
        first = numbers(lines[0])
        for place in self.fixed_places:
            if tokens[place::self.count].count(first[place]) != count:
                return False
        if self.fixed and self.fixed(first) != self.fixed_values:
            return False
        if self.stamp is not None:
            stamps = [line[self.stamp] for line in lines]
            if not all(map(le, stamps, stamps[1:])):
                return False
        rows = np.empty((count, len(self.places)))
        try:
            for column, place in enumerate(self.places):
                rows[:, column] = np.fromiter(map(float, tokens[place::self.count]), np.float64, count)
        except ValueError:
            return False
        self.table.rows.frombytes(rows.tobytes())
        self.table.numbers.extend(range(number, number + count))
        self.taken += count
        return True


def blocks(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """`lines` in lists of `BLOCK`."""
    while block := list(islice(lines, BLOCK)):
        yield block


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
    return Plan(wanted, numbers(line), fixed, table, category, stamp)

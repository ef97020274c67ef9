"""Splits the bytes of a log into lines, and finds its last lines."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

# A line may be as long as its log. Longer lines are split into pieces that fit in memory.
PIECE = 1 << 20
_READ_BYTES = 1 << 20


class Place(NamedTuple):
    """Where a line begins: the offset of its first byte, and its number, from 1.

    `inside`: this is a further piece of a long line.
    """

    offset: int = 0
    number: int = 1
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or a piece of one; `data` includes the line feed, if there is one."""

    place: Place
    data: bytes


class LineSplitter:
    """Splits bytes into lines. `place` is where the next line begins."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._left = b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that end in these bytes."""
        data = self._left + data
        at = 0
        while end := _end_of_line(data, at):
            yield self._line(data[at:end])
            at = end
        self._left = data[at:]

    def end(self) -> Iterator[Line]:
        """What follows the last line feed, if anything."""
        if self._left:
            yield self._line(self._left)
            self._left = b""

    def _line(self, data: bytes) -> Line:
        place = self.place
        ended = data.endswith(b"\n")
        self.place = Place(place.offset + len(data), place.number + ended, not ended)
        return Line(place, data)


def _end_of_line(data: bytes, at: int) -> int:
    """The end of the line, or piece, that begins at `at`; 0 if it has not ended."""
    if end := data.find(b"\n", at, at + PIECE) + 1:
        return end
    end = at + PIECE
    if end >= len(data):
        return 0
    # Do not split a character.
    while end > at + PIECE - 3 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def find_last_lines(file: int, count: int, *, numbered: bool) -> Place:
    """Where the last `count` lines of an open log begin; with `numbered`, also the line number."""
    size = os.fstat(file).st_size
    offset = _find_last_lines(file, size, count)
    number = 1
    if numbered:
        for at in range(0, offset, _READ_BYTES):
            number += os.pread(file, min(_READ_BYTES, offset - at), at).count(b"\n")
    return Place(offset, number)


def _find_last_lines(file: int, size: int, count: int) -> int:
    end = size
    while end > 0:
        start = max(0, end - _READ_BYTES)
        read = os.pread(file, end - start, start)
        # A final line feed ends its line, and begins no other.
        at = len(read) - (end == size)
        while (at := read.rfind(b"\n", 0, at)) >= 0:
            count -= 1
            if count == 0:
                return start + at + 1
        end = start
    return 0


def find_last_matches(file: int, count: int, matches: Callable[[Line], bool]) -> Place:
    """Where the last `count` matching lines begin; after the last line if none matches."""
    found: deque[Place] = deque(maxlen=count)
    lines = LineSplitter(Place())
    at = 0
    while read := os.pread(file, _READ_BYTES, at):
        at += len(read)
        found.extend(line.place for line in lines.feed(read) if matches(line))
    last = lines.place  # of a line that may still be written
    found.extend(line.place for line in lines.end() if matches(line))
    return found[0] if found else last

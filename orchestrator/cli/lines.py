"""Whole lines out of pieces of a log."""

from __future__ import annotations

from collections.abc import Iterator

# A line that is longer is shown in pieces of this size.
MAX_LINE = 1 << 16


class Lines:
    """Takes the pieces of one log, and gives its lines without their ends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in this piece."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        while len(self._rest) > MAX_LINE:
            yield self._rest[:MAX_LINE]
            self._rest = self._rest[MAX_LINE:]

    def end(self) -> Iterator[bytes]:
        """The last line, when it has no end of its own."""
        if self._rest:
            yield self._rest
        self._rest = b""

"""How `pikaci logs` prints one line: as text, or as JSON."""

from __future__ import annotations

import sys
from datetime import datetime

from orchestrator.cli.output import json_bytes
from orchestrator.log_lines import PIECE, Line
from orchestrator.log_times import rfc3339
from orchestrator.terminal import ESC, RESET, last_state

# Stands where a time does, and is as wide.
UNKNOWN_TIME = "-".ljust(24)


class TextForm:
    """The line's own bytes, behind its time when that is wanted.

    On a terminal what is harmless of them: of a progress bar the last state, as a return would
    put the rest over the time.
    """

    numbered = False

    def __init__(self, *, timed: bool) -> None:
        self.timed = timed
        self._terminal = sys.stdout.isatty()
        # Where what was printed ends, if that is within a line.
        self._within: int | None = None

    def show(self, line: Line, at: datetime | None) -> bytes:
        """The line; further pieces of a long one follow without a break."""
        place, data = line.place, line.data
        time = f"{rfc3339(at) if at else UNKNOWN_TIME} " if self.timed else ""
        if self._terminal:
            text = last_state(data, colours=True, most=PIECE)
            return f"{time}{text}{RESET if ESC in text else ''}\n".encode()
        further = place.inside and self._within == place.offset
        broken = self._within is not None and not further
        self._within = None if data.endswith(b"\n") else place.offset + len(data)
        return b"\n" * broken + (b"" if further else time.encode()) + data

    def end(self) -> bytes:
        """Nothing."""
        return b""


class JsonForm:
    """An object a line; of an `array`, one document of them all."""

    numbered = True
    timed = True

    def __init__(self, *, array: bool) -> None:
        self._array = array
        self._empty = True

    def show(self, line: Line, at: datetime | None) -> bytes:
        """The object. A long line is several, of one number."""
        data = json_bytes(
            {
                "line": line.place.number,
                "at": rfc3339(at) if at else None,
                "text": line.data.removesuffix(b"\n").decode("utf-8", "replace"),
            }
        )
        if not self._array:
            return data + b"\n"
        before = b"[\n" if self._empty else b",\n"
        self._empty = False
        return before + data

    def end(self) -> bytes:
        """The document's end."""
        if not self._array:
            return b""
        return b"[]\n" if self._empty else b"\n]\n"

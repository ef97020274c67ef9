"""Converts between lines and bytes of a log, for clients that read it in parts."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.log_end import read_log_end
from orchestrator.service.types import Place
from states.log_reasons import MAX_LINES, find_error

_CHUNK = 1 << 20


def place_of_byte(file: int, byte: int) -> Place:
    """The line that holds the byte; the last line if the byte is past the end of the log."""
    line, begin, read = 1, 0, 0
    while chunk := os.pread(file, min(_CHUNK, byte - read), read):
        if breaks := chunk.count(b"\n"):
            line += breaks
            begin = read + chunk.rindex(b"\n") + 1
        read += len(chunk)
    return Place(line=line, byte=begin)


def place_of_error(log: Path) -> Place | None:
    """The line of a log that says why its job failed; None if it is not clear.

    Only the last lines are looked at, as for the job's reason.
    """
    end = read_log_end(log, lines=MAX_LINES)
    found = find_error(end.lines)
    if found is None:
        return None
    file = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        last = place_of_byte(file, end.size - 1).line
        return place_of_line(file, last - (len(end.lines) - 1 - found))
    finally:
        os.close(file)


def place_of_line(file: int, line: int) -> Place:
    """Where the line begins; past the last line, where the log ends."""
    reached, begin, read = 1, 0, 0
    while reached < line and (chunk := os.pread(file, _CHUNK, read)):
        breaks = chunk.count(b"\n")
        if reached + breaks < line:
            reached += breaks
            read += len(chunk)
            begin = read
            continue
        at = -1
        for _ in range(line - reached):
            at = chunk.index(b"\n", at + 1)
        return Place(line=line, byte=read + at + 1)
    return Place(line=reached, byte=begin)

"""A trace: one job's entries as JSON lines, below a header. It replays without Incus."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from states.errors import IllegalEvent, SpecError, TraceError
from states.events import Entry, Event
from states.job import Job, step

FORMAT = 1


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="trace"):
    """The first line: the format's version, and whose trace it is."""

    format: int
    job: str


# What msgspec raises for bytes that are no JSON, no UTF-8, or nested without end.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_HEADER = b'{"type":"trace"'
_line_decoder = msgspec.json.Decoder(Entry)
_header_decoder = msgspec.json.Decoder(Header)


def encode(job: str, entries: Iterable[Entry]) -> bytes:
    """The entries of one job, in the order of the journal, as a trace."""
    lines = [msgspec.json.encode(Header(format=FORMAT, job=job))]
    lines += [msgspec.json.encode(entry) for entry in entries]
    return b"\n".join(lines) + b"\n"


def split(data: bytes) -> list[bytes]:
    """The traces of a file that has one behind the other, each with its header."""
    parts: list[list[bytes]] = []
    for line in data.splitlines(keepends=True):
        if not parts or line.startswith(_HEADER):
            parts.append([])
        parts[-1].append(line)
    return [b"".join(part) for part in parts] or [b""]


def decode(data: bytes) -> list[Entry]:
    """The entries of a trace; `TraceError` names the line that can't be read."""
    first, *rest = data.splitlines() or [b""]
    try:
        header = _header_decoder.decode(first)
    except _UNREADABLE as error:
        raise TraceError(f"line 1 is not the header of a trace: {error}") from None
    if header.format != FORMAT:
        raise TraceError(
            f"the trace has format {header.format}; this pikaci reads format {FORMAT}",
            resolution="replay it with the pikaci that wrote it, or a newer one",
        )
    entries: list[Entry] = []
    for number, line in enumerate(rest, start=2):
        try:
            entry = _line_decoder.decode(line)
        except _UNREADABLE as error:
            raise TraceError(f"line {number} is not an entry of a trace: {error}") from None
        if entry.job != header.job:
            raise TraceError(f"line {number} belongs to job {entry.job}, not {header.job}")
        entries.append(entry)
    return entries


def replay(data: bytes) -> Job:
    """The job that a trace tells of, by today's table; `TraceError` names the first wrong line."""
    job = Job()
    for number, entry in enumerate(decode(data), start=2):
        if not isinstance(entry, Event):
            continue
        try:
            job = step(job, entry)
        except (IllegalEvent, SpecError) as error:
            raise TraceError(f"line {number}: {error.brief}") from None
    return job

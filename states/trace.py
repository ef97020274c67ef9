"""A trace: a header, then one job's entries as JSON lines. It can be replayed without Incus."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from states import recorded
from states.errors import EntryError, IllegalEvent, TraceError
from states.events import Cancelled, Entry, Event, Failed, Lost, Retried, tag
from states.job import Job, step
from states.lifecycle import TABLE, State

FORMAT = 1


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="trace"):
    """The first line: the format's version, the job, and how many entries follow.

    Traces of older versions do not have `entries`.
    """

    format: int
    job: str
    entries: int | None = None


_HEADER = b'{"type":"trace"'
_header_decoder = msgspec.json.Decoder(Header)
_EXPORT = "`pikaci trace export JOB` writes a trace"
_WHOLE = "export the trace again"


def encode(job: str, entries: Sequence[Entry]) -> bytes:
    """A trace of one job's entries, in the order of the journal."""
    return join(job, [recorded.encode(entry) for entry in entries])


def join(job: str, bodies: Sequence[bytes]) -> bytes:
    """A trace of entries in stored form; includes those that only a newer pikaci can read."""
    header = Header(format=FORMAT, job=job, entries=len(bodies))
    return b"\n".join([msgspec.json.encode(header), *bodies]) + b"\n"


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Split a file of concatenated traces; returns each with the number of its first line."""
    parts: list[tuple[int, list[bytes]]] = []
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if not parts or line.startswith(_HEADER):
            parts.append((number, []))
        parts[-1][1].append(line)
    return [(number, b"".join(lines)) for number, lines in parts] or [(1, b"")]


def decode(data: bytes, *, line: int = 1) -> list[Entry]:
    """The entries of a trace; `TraceError` names the line that cannot be read.

    `line` is the number of the trace's first line in its file.
    """
    first, *rest = data.splitlines() or [b""]
    header = _header(data, first, line)
    broken_off = bool(data) and not data.endswith(b"\n")
    entries: list[Entry] = []
    for number, text in enumerate(rest, start=line + 1):
        try:
            entry = recorded.decode(text)
        except EntryError as error:
            if broken_off and number == line + len(rest):
                raise TraceError(
                    f"line {number} breaks off: the trace was cut short there", resolution=_WHOLE
                ) from None
            raise TraceError(
                f"line {number} is not a trace entry: {error.brief}",
                resolution=error.resolution or "the line was changed: export the trace again",
            ) from None
        if entry.job != header.job:
            raise TraceError(
                f"line {number} belongs to job {entry.job}, but the trace to {header.job}",
                resolution="two traces were mixed: export each again",
            )
        entries.append(entry)
    return entries


def _header(data: bytes, first: bytes, line: int) -> Header:
    if not data.strip():
        raise TraceError("the file is empty", resolution=_EXPORT)
    try:
        header = _header_decoder.decode(first)
    except recorded.UNREADABLE as error:
        raise TraceError(
            f"this is not a trace: line {line} is not a trace header: {error}", resolution=_EXPORT
        ) from None
    if header.format != FORMAT:
        raise TraceError(
            f"the trace has format {header.format}; this pikaci reads format {FORMAT}",
            resolution="replay it with the pikaci that wrote it, or a newer one",
        )
    return header


def replay(data: bytes, *, line: int = 1) -> Job:
    """The job after all events of a trace, by today's table.

    Raises `TraceError` at the first entry that is missing, or that differs from what was recorded.
    `line` is the number of the trace's first line in its file.
    """
    entries = decode(data, line=line)
    job = Job()
    for number, entry in enumerate(entries, start=line + 1):
        if isinstance(entry, Event):
            _check_turn(job, entry, entries, number)
            _check_phase(job, entry, number)
            job = _step(job, entry, number)
    promised = _header(data, data.splitlines()[0], line).entries
    if promised is not None and promised != len(entries):
        what = "some are missing" if len(entries) < promised else "some were added"
        raise TraceError(
            f"the header promises {promised} lines, but {len(entries)} follow: {what}",
            resolution=_WHOLE,
        )
    if not job.id:
        raise TraceError("the trace has no event of its job", resolution=_WHOLE)
    return job


def _check_turn(job: Job, event: Event, entries: Sequence[Entry], number: int) -> None:
    """Raise unless the event's number is the next one."""
    due = job.seq + 1
    if event.seq == due:
        return
    name = tag(type(event))
    if event.seq < due:
        raise TraceError(
            f"line {number}: event {event.seq} ({name}) is repeated where event {due} is due",
            resolution="a line is repeated or out of order: export the trace again",
        )
    missing = f"event {due} is" if event.seq == due + 1 else f"events {due} to {event.seq - 1} are"
    later = any(isinstance(entry, Event) and entry.seq == due for entry in entries)
    what = "out of order: they come later" if later else "missing"
    if later and event.seq == due + 1:
        what = "out of order: it comes later"
    raise TraceError(
        f"line {number}: event {event.seq} ({name}) comes where event {due} is due:"
        f" {missing} {what}",
        resolution=_WHOLE,
    )


def _check_phase(job: Job, event: Event, number: int) -> None:
    """Raise when the job's state by today's table is not the recorded one."""
    match event:
        case Failed() | Retried() | Lost():
            state = job.state
        case Cancelled() if len(job.phases) > 1:
            state = job.phases[-2].state
        case _:
            return
    if event.failure.phase != state:
        raise TraceError(
            f"line {number}: {tag(type(event))} was recorded in the state {event.failure.phase};"
            f" by today's table the job is {state.value} at that point",
            resolution="the table or the line has changed since",
        )


def _step(job: Job, event: Event, number: int) -> Job:
    try:
        return step(job, event)
    except IllegalEvent:
        legal = [trigger for trigger, sources, _ in TABLE if job.state in sources]
        raise TraceError(
            f"line {number}: the next recorded event is {tag(type(event))}; by today's table a job"
            f" that is {_in_words(job.state)} cannot take it",
            resolution=f"it takes {' or '.join(legal)}"
            if legal
            else "it has ended, and takes no event",
        ) from None


def _in_words(state: State) -> str:
    return "not known yet" if state is State.NEW else state.value

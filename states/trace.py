"""A trace: one job's entries as JSON lines, below a header. It replays without Incus."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from states import recorded
from states.errors import EntryError, IllegalEvent, TraceError
from states.events import Cancelled, Entry, Event, Failed, Retried, tag
from states.job import Job, step
from states.lifecycle import TABLE, State

FORMAT = 1


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="trace"):
    """The first line: the format's version, whose trace it is, and how many lines follow.

    Traces of old do not have their number of `entries`.
    """

    format: int
    job: str
    entries: int | None = None


_HEADER = b'{"type":"trace"'
_header_decoder = msgspec.json.Decoder(Header)
_EXPORT = "`pikaci trace export JOB` writes a trace"
_WHOLE = "export it again, whole"


def encode(job: str, entries: Sequence[Entry]) -> bytes:
    """The entries of one job, in the order of the journal, as a trace."""
    return join(job, [recorded.encode(entry) for entry in entries])


def join(job: str, bodies: Sequence[bytes]) -> bytes:
    """A trace of entries as they are stored: what only a newer pikaci can read is in it too."""
    header = Header(format=FORMAT, job=job, entries=len(bodies))
    return b"\n".join([msgspec.json.encode(header), *bodies]) + b"\n"


def split(data: bytes) -> list[tuple[int, bytes]]:
    """The traces of a file that has one behind the other, with the lines that they begin at."""
    parts: list[tuple[int, list[bytes]]] = []
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if not parts or line.startswith(_HEADER):
            parts.append((number, []))
        parts[-1][1].append(line)
    return [(number, b"".join(lines)) for number, lines in parts] or [(1, b"")]


def decode(data: bytes, *, line: int = 1) -> list[Entry]:
    """The entries of a trace; `TraceError` names the line that can't be read.

    `line` is the number of its first one in the file.
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
                f"line {number} is not an entry of a trace: {error.brief}",
                resolution=error.resolution or "the line was changed: export the trace again",
            ) from None
        if entry.job != header.job:
            raise TraceError(
                f"line {number} belongs to job {entry.job}, and the trace to {header.job}",
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
            f"this is no trace: line {line} is not the header of one: {error}", resolution=_EXPORT
        ) from None
    if header.format != FORMAT:
        raise TraceError(
            f"the trace has format {header.format}; this pikaci reads format {FORMAT}",
            resolution="replay it with the pikaci that wrote it, or a newer one",
        )
    return header


def replay(data: bytes, *, line: int = 1) -> Job:
    """The job that a trace tells of, by today's table.

    `TraceError` says in words where it first is not what was recorded, or not whole. `line` is
    the number of its first line in the file.
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
        what = "some are missing" if len(entries) < promised else "some came to it"
        raise TraceError(
            f"the header says that {promised} lines follow, and there are {len(entries)}: {what}",
            resolution=_WHOLE,
        )
    if not job.id:
        raise TraceError("the trace has no event of its job", resolution=_WHOLE)
    return job


def _check_turn(job: Job, event: Event, entries: Sequence[Entry], number: int) -> None:
    """Raise when the event's number is not the one that is due."""
    due = job.seq + 1
    if event.seq == due:
        return
    name = tag(type(event))
    if event.seq < due:
        raise TraceError(
            f"line {number}: event {event.seq} ({name}) comes again, where event {due} is due",
            resolution="a line stands there twice, or out of its order: export it again",
        )
    missing = f"event {due} is" if event.seq == due + 1 else f"events {due} to {event.seq - 1} are"
    later = any(isinstance(entry, Event) and entry.seq == due for entry in entries)
    what = "not in their order: they come later" if later else "missing"
    if later and event.seq == due + 1:
        what = "not in its order: it comes later"
    raise TraceError(
        f"line {number}: event {event.seq} ({name}) comes where event {due} is due:"
        f" {missing} {what}",
        resolution=_WHOLE,
    )


def _check_phase(job: Job, event: Event, number: int) -> None:
    """Raise when today's table has the job in another state than the one that was recorded."""
    match event:
        case Failed() | Retried():
            state = job.state
        case Cancelled() if len(job.phases) > 1:
            state = job.phases[-2].state
        case _:
            return
    if event.failure.phase != state:
        raise TraceError(
            f"line {number}: {tag(type(event))} was recorded in the state {event.failure.phase};"
            f" by today's table the job is {state.value} there",
            resolution="the table or the line was changed since",
        )


def _step(job: Job, event: Event, number: int) -> Job:
    try:
        return step(job, event)
    except IllegalEvent:
        legal = [trigger for trigger, sources, _ in TABLE if job.state in sources]
        raise TraceError(
            f"line {number}: the recording goes on with {tag(type(event))}; by today's table a job"
            f" that is {_called(job.state)} cannot take the event {tag(type(event))}",
            resolution=f"it takes {' or '.join(legal)}"
            if legal
            else "nothing can happen to it any more",
        ) from None


def _called(state: State) -> str:
    return "not known yet" if state is State.NEW else state.value

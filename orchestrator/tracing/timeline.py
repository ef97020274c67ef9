"""What a job did when: its states one after the other, and the incus calls in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from states import events as ev
from states.job import Job, step
from states.lifecycle import State
from states.outcome import Failure, Verdict


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time; `detail` is more of it, on one line. `ok` is False for a fault."""

    name: str
    begin: datetime
    end: datetime
    attempt: int
    detail: str = ""
    ok: bool = True

    @property
    def secs(self) -> float:
        """How long it took."""
        return (self.end - self.begin).total_seconds()


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """One job. `states` follow each other without a gap; `calls` are incus commands."""

    id: str
    name: str
    run: str
    verdict: Verdict | None
    failure: Failure | None
    states: tuple[Span, ...]
    calls: tuple[Span, ...]

    @property
    def begin(self) -> datetime:
        """When it was submitted."""
        return self.states[0].begin

    @property
    def end(self) -> datetime:
        """When the last thing that is known of it ended."""
        return max(span.end for span in (*self.states, *self.calls))


def timeline(entries: Iterable[ev.Entry]) -> Timeline:
    """The timeline of a job's entries, from its first. A state that lasts ends with the last."""
    job = Job()
    states: list[Span] = []
    calls: list[Span] = []
    last: datetime | None = None
    for entry in entries:
        # Clocks may be set back; nothing takes less than no time.
        last = entry.at if last is None else max(last, entry.at)
        if isinstance(entry, ev.Event):
            if states:
                states[-1] = msgspec.structs.replace(states[-1], end=last)
            job = step(job, entry)
            states.append(
                Span(
                    name=job.state.value,
                    begin=last,
                    end=last,
                    attempt=max(1, job.attempt),
                    detail=_told(entry),
                    ok=not isinstance(entry, ev.Failed | ev.Retried | ev.Restarted),
                )
            )
        elif isinstance(entry, ev.Called):
            calls.append(_call(entry, last, max(1, job.attempt)))
    assert last is not None
    if job.state is State.NEW or not job.ended:
        states[-1] = msgspec.structs.replace(states[-1], end=last)
    return Timeline(
        id=job.id,
        name=job.name,
        run=job.run,
        verdict=job.verdict,
        failure=job.failure,
        states=tuple(states),
        calls=tuple(calls),
    )


def _call(entry: ev.Called, end: datetime, attempt: int) -> Span:
    words = [word for word in entry.argv[1:] if not word.startswith("-")]
    return Span(
        name=f"incus {words[0]}" if words else "incus",
        begin=end - timedelta(milliseconds=max(0.0, entry.duration_ms)),
        end=end,
        attempt=attempt,
        detail=" ".join(shlex.join(entry.argv).split()),
        ok=entry.exit_code is not None and not entry.error,
    )


def _told(entry: ev.Event) -> str:
    match entry:
        case ev.ResultCollected():
            text = entry.message
        case ev.Failed() | ev.Cancelled() | ev.Rejected() | ev.Retried():
            text = entry.failure.message
        case ev.CancelRequested():
            text = entry.reason
        case _:
            text = ""
    return " ".join(text.split())

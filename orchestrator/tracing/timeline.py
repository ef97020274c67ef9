"""What a job did when: its states in order, the incus calls in them, and its waits."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from orchestrator.tracing.effects import OF_STATE, command_of
from orchestrator.units import duration
from states import events as ev
from states.job import Job, step, why
from states.lifecycle import State
from states.outcome import Failure, Verdict

# Names of waits and parts, in addition to the values of `WaitFor`.
INCUS, DELAY, HOST = "incus", "delay", "host"
# What all of Incus's words have for a VM that does not take an exec yet.
_AGENT = " agent"
_HOLD_UP = (ev.WaitFor.PLACE, ev.WaitFor.INPUT, ev.WaitFor.OUTPUT)


class Kind(enum.StrEnum):
    """The kind of a span."""

    STATE = "state"
    CALL = "call"
    WAIT = "wait"
    HOST = "host"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time.

    For a call, `command` is the incus command in short, `detail` the full command, and `error`
    Incus's error. For a state, `detail` is the message of the event that entered it, on one line.
    `ok` is False for a fault; an exec that a VM does not take while it boots is none, in spite of
    its `error`. `after` is the job that ended a wait: it freed the slot, or was needed.
    `continued` is the rest of a call that another one was cut out of, or the time up to the next
    try of such an exec.
    """

    name: str
    kind: Kind
    begin: datetime
    end: datetime
    attempt: int
    command: str = ""
    detail: str = ""
    error: str = ""
    after: str = ""
    ok: bool = True
    continued: bool = False

    @property
    def secs(self) -> float:
        """How long it took."""
        return (self.end - self.begin).total_seconds()


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """One job. `states` are consecutive; `calls` and `waits` are within them.

    `warnings` are the noted ones, without those of the result. `connections` and `gaps` are
    those of its `egress`. `missing` says why no output could be reused, "" if the job had none
    before; None if nothing is known of that.
    """

    job: Job
    states: tuple[Span, ...]
    calls: tuple[Span, ...]
    waits: tuple[Span, ...]
    warnings: tuple[str, ...]
    connections: tuple[ev.Connected, ...] = ()
    gaps: tuple[ev.EgressGap, ...] = ()
    missing: str | None = None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def run(self) -> str:
        return self.job.run

    @property
    def verdict(self) -> Verdict | None:
        return self.job.verdict

    @property
    def failure(self) -> Failure | None:
        return self.job.failure

    @property
    def place(self) -> Span | None:
        """Its last wait for a slot."""
        return next((wait for wait in self.waits[::-1] if wait.name == ev.WaitFor.PLACE), None)

    @property
    def held_up(self) -> Span | None:
        """Its last wait for a slot, for jobs that it needs, or for its output."""
        waits = [wait for wait in self.waits if wait.name in _HOLD_UP]
        return max(waits, key=lambda wait: wait.end, default=None)

    @property
    def begin(self) -> datetime:
        """When it was submitted."""
        return self.states[0].begin

    @property
    def settled(self) -> datetime:
        """When it had its verdict; the last known time for a job without one."""
        return self.states[-1].end

    @property
    def end(self) -> datetime:
        """When the last known part of it ended: usually its guest's release."""
        return max(span.end for span in (*self.states, *self.calls))


def timeline(entries: Iterable[ev.Entry], *, until: datetime | None = None) -> Timeline:
    """The timeline of a job, from all of its entries.

    The state of an unfinished job lasts `until` this time, or until the last entry.
    """
    job = Job()
    states: list[Span] = []
    calls: list[Span] = []
    waits: list[Span] = []
    warnings: list[str] = []
    connections: list[ev.Connected] = []
    gaps: list[ev.EgressGap] = []
    missing: str | None = None
    last: datetime | None = None
    for entry in entries:
        # The clock may be set back; durations must not become negative.
        last = entry.at if last is None else max(last, entry.at)
        attempt = max(1, job.attempt)
        match entry:
            case ev.Event():
                if states:
                    states[-1] = msgspec.structs.replace(states[-1], end=last)
                job = step(job, entry)
                states.append(_state(job, entry, last))
                if isinstance(entry, ev.Retried):
                    waits.append(_delay(entry, last, max(1, job.attempt)))
            case ev.Called():
                call = _call(entry, last, attempt)
                if job.state is State.DEVICES_CONFIGURED and _AGENT in call.error:
                    call = msgspec.structs.replace(call, ok=True)
                calls.append(call)
            case ev.Waited():
                waits.append(_wait(entry, last, attempt))
            case ev.Warned():
                warnings.append(entry.message)
            case ev.Connected():
                connections.append(entry)
            case ev.EgressGap():
                gaps.append(entry)
            case ev.OutputMissing():
                missing = entry.reason
    assert last is not None
    if not job.ended:
        states[-1] = msgspec.structs.replace(states[-1], end=max(last, until or last))
    return Timeline(
        job=job,
        states=tuple(states),
        calls=tuple(calls),
        waits=tuple(sorted((*waits, *_again(calls)), key=lambda span: span.begin)),
        warnings=tuple(warnings),
        connections=tuple(connections),
        gaps=tuple(gaps),
        missing=missing,
    )


def _state(job: Job, entry: ev.Event, at: datetime) -> Span:
    return Span(
        name=job.state.value,
        kind=Kind.STATE,
        begin=at,
        end=at,
        attempt=max(1, job.attempt),
        detail=_told(entry),
        ok=not isinstance(entry, ev.Failed | ev.Retried | ev.Restarted | ev.Lost),
    )


def _call(entry: ev.Called, end: datetime, attempt: int) -> Span:
    return Span(
        name=entry.effect or command_of(entry.argv),
        kind=Kind.CALL,
        begin=end - timedelta(milliseconds=max(0.0, entry.duration_ms)),
        end=end,
        attempt=attempt,
        command=command_of(entry.argv),
        detail=" ".join(shlex.join(entry.argv).split()),
        error=entry.error,
        # Cut off without an error: the call was cancelled.
        ok=not entry.error,
    )


def _wait(entry: ev.Waited, end: datetime, attempt: int) -> Span:
    return Span(
        name=entry.what.value,
        kind=Kind.WAIT,
        begin=end - timedelta(milliseconds=max(0.0, entry.duration_ms)),
        end=end,
        attempt=attempt,
        after=entry.after,
    )


def _delay(entry: ev.Retried, begin: datetime, attempt: int) -> Span:
    end = begin + timedelta(seconds=max(0.0, entry.delay_secs))
    return Span(name=DELAY, kind=Kind.WAIT, begin=begin, end=end, attempt=attempt)


def _again(calls: Sequence[Span]) -> list[Span]:
    """Waits between a failed call and its retry in the same attempt: for Incus, or a VM's boot."""
    failed: dict[tuple[str, int], Span] = {}
    waits = []
    for call in calls:
        before = failed.pop((call.name, call.attempt), None)
        if before is not None and before.end < call.begin:
            wait = Span(
                name=INCUS,
                kind=Kind.WAIT,
                begin=before.end,
                end=call.begin,
                attempt=call.attempt,
            )
            if before.ok:  # the calls and what is between them are one wait for the guest
                ready = OF_STATE[State.DEVICES_CONFIGURED]
                wait = msgspec.structs.replace(
                    wait, name=ready, command=before.command, continued=True
                )
            waits.append(wait)
        if call.error:
            failed[call.name, call.attempt] = call
    return waits


def _told(entry: ev.Event) -> str:
    match entry:
        case ev.ResultCollected():
            text = why(entry)
        case ev.Failed() | ev.Cancelled() | ev.Rejected() | ev.Retried() | ev.Lost() | ev.Skipped():
            text = entry.failure.message
        case ev.Reused():
            text = f"made by {entry.output.job}"
        case ev.ArtifactsReset() if entry.inputs:
            used = (f"{name} of {output.job}" for name, output in entry.inputs.items())
            text = f"uses {', '.join(used)}"
        case ev.CancelRequested():
            text = entry.reason
        case ev.DevicesConfigured():
            text = describe_guest(entry)
        case ev.Restarted():
            text = entry.reason or "the process that drove it died"
        case _:
            text = ""
    return " ".join(text.split())


def describe_guest(entry: ev.DevicesConfigured) -> str:
    """Where an attempt's guest is, and whether it was warm; "" if there is nothing to say."""
    on = f"on the member {entry.member}" if entry.member else ""
    return "; ".join(filter(None, (on, describe_warm(entry.warm_ms))))


def describe_warm(boot_ms: float | None) -> str:
    """Whether a guest was warm, in words, and what that saved; "" if it was not."""
    if boot_ms is None:
        return ""
    return f"in a warm guest (its create and boot took {duration(boot_ms / 1000)})"

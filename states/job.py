"""A job as the fold of its events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import reduce

import msgspec

from states import events as ev
from states.errors import IllegalEvent
from states.lifecycle import TERMINAL, State, destination
from states.outcome import Failure, FailureKind, Outcome, Verdict
from states.spec import JobSpec


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A state that the job was in; `duration_ms` is None while it is, and in the last one."""

    state: State
    entered_at: datetime
    duration_ms: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job. `attempt` counts from 1; `seq` is its last event's number.
    `retries` are the attempts that a fault, and no death of ours, ended.

    `instance`, `image` and `artifacts` are those of the current attempt. `boot` is the boot of the
    host that `monotonic` counts from. `damage` says why the events cannot be read, when they
    cannot; then only what else is known of the job is here.
    """

    id: str = ""
    state: State = State.NEW
    seq: int = 0
    run: str = ""
    name: str = ""
    spec: JobSpec | None = None
    workspace: str = ""
    snapshot: ev.SnapshotRef | None = None
    contract: int | None = None
    attempt: int = 0
    retries: int = 0
    artifacts: str | None = None
    instance: str | None = None
    image: ev.ImageRef | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    message: str = ""
    hint: str = ""
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    monotonic: float = 0.0
    boot: str = ""
    damage: str = ""

    @property
    def queued_ms(self) -> float:
        """Milliseconds in the queue, until the job got its slot; 0 while it is queued."""
        return (self.phases[0].duration_ms or 0.0) if self.phases else 0.0

    @property
    def run_ms(self) -> float:
        """Milliseconds from getting the slot to the last event: what a person calls its time."""
        return sum(phase.duration_ms or 0.0 for phase in self.phases[1:])

    @property
    def ended(self) -> bool:
        """Whether no event can move the job any more."""
        return self.state in TERMINAL

    @property
    def verdict(self) -> Verdict | None:
        """How the job ended, in one word; None while it has not."""
        if self.damage:
            return Verdict.INFRASTRUCTURE if self.ended else None
        if self.state is State.RESULT_COLLECTED:
            return Verdict(self.outcome) if self.outcome else None
        return _VERDICTS.get(self.state)


_VERDICTS = {
    State.REJECTED: Verdict.REJECTED,
    State.FAILED: Verdict.INFRASTRUCTURE,
    State.CANCELLED: Verdict.CANCELLED,
}
_ENDINGS = {
    ev.Rejected: Verdict.REJECTED,
    ev.Failed: Verdict.INFRASTRUCTURE,
    ev.Cancelled: Verdict.CANCELLED,
}
_RESULT_KINDS = {Outcome.FAILED: FailureKind.TEST, Outcome.TIMED_OUT: FailureKind.TIMEOUT}


def verdict_of(event: ev.Event) -> Verdict | None:
    """The verdict that a job has from this event on; None when it has not ended."""
    if isinstance(event, ev.ResultCollected):
        return Verdict(event.outcome)
    return _ENDINGS.get(type(event))


def step(job: Job, event: ev.Event) -> Job:
    """The job after the event.

    Raises `IllegalEvent`, and changes nothing, when the table has no such transition, or when the
    event is another job's or out of turn. The spec of what was submitted is not judged: that was
    done when it came in, by the rules of that day.
    """
    state = destination(job.state, type(event))
    if job.state is not State.NEW and event.job != job.id:
        raise IllegalEvent(
            f"the event {ev.tag(type(event))} belongs to job {event.job}, not {job.id}"
        )
    if event.seq != job.seq + 1:
        raise IllegalEvent(
            f"the event {ev.tag(type(event))} has number {event.seq} where {job.seq + 1} is due"
        )
    moved = msgspec.structs.replace(
        job,
        id=event.job,
        state=state,
        seq=event.seq,
        monotonic=event.monotonic,
        boot=job.boot if event.boot is msgspec.UNSET else event.boot,
        phases=_next_phases(job, state, event),
    )
    return _learn(moved, event)


def fold(events: Iterable[ev.Event]) -> Job:
    """The job that these events, all of one job and from its first, make."""
    return reduce(step, events, Job())


def _next_phases(job: Job, state: State, event: ev.Event) -> tuple[Phase, ...]:
    entered = Phase(state=state, entered_at=event.at)
    if not job.phases:
        return (entered,)
    *before, last = job.phases
    spent = max(0.0, _secs_since(job, last, event) * 1000)
    return (*before, msgspec.structs.replace(last, duration_ms=round(spent, 3)), entered)


def _secs_since(job: Job, last: Phase, event: ev.Event) -> float:
    """How long the job was in its last phase."""
    secs = event.monotonic - job.monotonic
    if secs < 0 or event.boot not in (msgspec.UNSET, job.boot):
        # The host was started anew, and its monotonic clock with it.
        return (event.at - last.entered_at).total_seconds()
    return secs


def _learn(job: Job, event: ev.Event) -> Job:
    """The job with what the event tells beyond its type."""
    replace = msgspec.structs.replace
    match event:
        case ev.Submitted() | ev.Rejected():
            begun = replace(
                job, run=event.run, name=event.name, spec=event.spec, workspace=event.workspace
            )
            if isinstance(event, ev.Rejected):
                return replace(begun, failure=event.failure)
            return replace(begun, snapshot=event.snapshot, contract=event.contract, attempt=1)
        case ev.ArtifactsReset():
            return replace(job, artifacts=event.artifacts)
        case ev.DevicesConfigured():
            return replace(job, instance=event.instance, image=event.image)
        case ev.ResultCollected():
            kind = _RESULT_KINDS.get(event.outcome)
            return replace(
                job,
                outcome=event.outcome,
                exit_code=event.exit_code,
                message=event.message,
                hint=event.hint,
                warnings=event.warnings,
                failure=kind
                and Failure(
                    kind=kind, phase=State.RUNNING, message=event.message, resolution=event.hint
                ),
            )
        case ev.Retried() | ev.Restarted():
            used = job.retries + isinstance(event, ev.Retried)
            anew = replace(job, attempt=job.attempt + 1, retries=used)
            return replace(anew, artifacts=None, instance=None, image=None)
        case ev.Cancelled() | ev.Failed():
            return replace(job, failure=event.failure)
    return job

"""A job as the fold of its events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from typing import Any

import msgspec

from states import events as ev
from states.errors import IllegalEvent
from states.lifecycle import TERMINAL, State, destination
from states.outcome import Failure, FailureKind, Flake, Outcome, Verdict, counted
from states.spec import JobSpec
from states.testcases import CaseReport, below_headline, headline
from states.usage import Usage

# The name of the local host among those of a choice; alone it is "".
LOCAL = "local"


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A state that the job entered; `duration_ms` is None for the current or last one."""

    state: State
    entered_at: datetime
    duration_ms: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about a job.

    `attempt` counts from 1; `seq` is the number of its last event. `retries` counts the attempts
    that ended in an infrastructure fault, `losses` those that were lost with a member of a cluster
    while their command ran; attempts that ended because pikaci itself died are in neither.
    `instance`, `member`, `image`, `artifacts` and `inputs` belong to the current attempt, and so
    does `warm_ms`: how long the create and the boot of its guest took, if it was warm. `needs` and
    `inputs` are the jobs that it waits for and the outputs that it uses, by name. `host` names the
    host that the current attempt runs on, "" for the local one, and `member` the member of its
    cluster. `choice` are the names of the hosts that a job with a choice may run on, and `hosts`
    the same until an attempt begins on one of them, the best first; both are empty if there is no
    choice. `because` is the job that did not pass, if this one was skipped or cancelled for that.
    `reason` is why the command failed, in one line: the tests that failed, a line of its log, or
    what its guest had used up; "" if that is not clear. `boot` identifies the host's boot from
    which `monotonic` counts. `flake` is not of its events: the journal adds it, if the job ended in
    another way with the same inputs. When the events cannot be read, `damage` says why, and the
    other fields hold what is known from elsewhere.
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
    losses: int = 0
    needs: dict[str, str] = {}
    fresh: bool = False
    fail_fast: bool = False
    host: str = ""
    hosts: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()
    because: str = ""
    artifacts: str | None = None
    inputs: dict[str, ev.OutputRef] = {}
    instance: str | None = None
    member: str = ""
    image: ev.ImageRef | None = None
    warm_ms: float | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    message: str = ""
    reason: str = ""
    hint: str = ""
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    output: ev.OutputRef | None = None
    tests: CaseReport | None = None
    usage: Usage | None = None
    phases: tuple[Phase, ...] = ()
    monotonic: float = 0.0
    boot: str = ""
    flake: Flake | None = None
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
        """Whether the job is in a terminal state."""
        return self.state in TERMINAL

    @property
    def verdict(self) -> Verdict | None:
        """How the job ended, in one word; None while it is unfinished."""
        if self.damage:
            return Verdict.INFRASTRUCTURE if self.ended else None
        if self.state is State.RESULT_COLLECTED:
            return Verdict(self.outcome) if self.outcome else None
        if self.state is State.FAILED:
            return _verdict_of_failed(self.failure)
        return _VERDICTS.get(self.state)

    @property
    def verdict_for_run(self) -> Verdict | None:
        """The verdict as it counts for the run's: `skipped` if another job stopped this one."""
        return counted(self.verdict, self.because)


_VERDICTS = {
    State.REJECTED: Verdict.REJECTED,
    State.CANCELLED: Verdict.CANCELLED,
    State.REUSED: Verdict.PASSED,
    State.SKIPPED: Verdict.SKIPPED,
}
_ENDINGS = {
    ev.Rejected: Verdict.REJECTED,
    ev.Cancelled: Verdict.CANCELLED,
    ev.Reused: Verdict.PASSED,
    ev.Skipped: Verdict.SKIPPED,
}
_BEGUN = (State.RUNNING, State.PUBLISHING)
_RESULT_KINDS = {Outcome.FAILED: FailureKind.TEST, Outcome.TIMED_OUT: FailureKind.TIMEOUT}


def verdict_of(event: ev.Event) -> Verdict | None:
    """The verdict that this event gives a job; None if it does not end the job."""
    if isinstance(event, ev.ResultCollected):
        return Verdict(event.outcome)
    if isinstance(event, ev.Failed):
        return _verdict_of_failed(event.failure)
    return _ENDINGS.get(type(event))


def _verdict_of_failed(failure: Failure | None) -> Verdict:
    """`rejected` for a job that another version of pikaci accepted: its author must change it."""
    refused = failure is not None and failure.kind is FailureKind.CONFIG
    return Verdict.REJECTED if refused else Verdict.INFRASTRUCTURE


def why(event: ev.ResultCollected) -> str:
    """Why a command did not pass, in one line: its `_reason` if that is known."""
    return _reason(event) or event.message


def _reason(event: ev.ResultCollected) -> str:
    """The tests that failed, if a report names them; else the line of the log that says why."""
    if event.outcome is not Outcome.FAILED:
        return ""
    return headline(event.tests) or event.reason


def _why_tests(event: ev.ResultCollected) -> list[str]:
    return below_headline(event.tests) if event.outcome is Outcome.FAILED else []


def step(job: Job, event: ev.Event) -> Job:
    """The job after the event.

    Raises `IllegalEvent`, and changes nothing, when the table has no such transition, or when the
    event belongs to another job or is out of order. A submitted spec is not checked: that was done
    when it was submitted, by the rules of that day.
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


def _choose_again(job: Job) -> dict[str, Any]:
    """A job with a choice of hosts has it again: the one that the attempt failed on comes last."""
    if not job.choice:
        return {}
    last = job.host or LOCAL
    others = tuple(name for name in job.choice if name != last)
    return {"host": "", "hosts": (*others, last)}


def fold(events: Iterable[ev.Event]) -> Job:
    """The job after these events: all of them, from the first, and all of one job."""
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
        # The host has rebooted, and its monotonic clock started over.
        return (event.at - last.entered_at).total_seconds()
    return secs


def _learn(job: Job, event: ev.Event) -> Job:
    """The job with the data that the event carries."""
    replace = msgspec.structs.replace
    match event:
        case ev.Submitted() | ev.Rejected():
            begun = replace(
                job, run=event.run, name=event.name, spec=event.spec, workspace=event.workspace
            )
            if isinstance(event, ev.Rejected):
                return replace(begun, failure=event.failure)
            return replace(
                begun,
                snapshot=event.snapshot,
                contract=event.contract,
                attempt=1,
                needs=event.needs,
                fresh=event.fresh,
                fail_fast=event.fail_fast,
                host=event.host,
                hosts=event.hosts,
                choice=event.hosts,
            )
        case ev.Reused():
            return replace(job, output=event.output)
        case ev.ArtifactsReset():
            return replace(
                job, artifacts=event.artifacts, inputs=event.inputs, host=event.host, hosts=()
            )
        case ev.DevicesConfigured():
            return replace(
                job,
                instance=event.instance,
                image=event.image,
                member=event.member,
                warm_ms=event.warm_ms,
            )
        case ev.Publishing():
            return replace(job, warnings=event.warnings, tests=event.tests, usage=event.usage)
        case ev.ResultCollected():
            kind = _RESULT_KINDS.get(event.outcome)
            return replace(
                job,
                outcome=event.outcome,
                exit_code=event.exit_code,
                message=event.message,
                reason=_reason(event),
                hint=event.hint,
                warnings=event.warnings,
                output=event.output,
                tests=event.tests,
                usage=event.usage,
                failure=kind
                and Failure(
                    kind=kind,
                    phase=State.RUNNING,
                    message="\n".join((why(event), *_why_tests(event))),
                    # A hint may begin with what the guest had used up, which is then the reason.
                    resolution=event.hint.removeprefix(f"{why(event)}; "),
                ),
            )
        case ev.Retried() | ev.Restarted() | ev.Lost():
            return replace(
                job,
                attempt=job.attempt + 1,
                retries=job.retries + isinstance(event, ev.Retried),
                losses=job.losses + (isinstance(event, ev.Lost) and event.failure.phase in _BEGUN),
                artifacts=None,
                inputs={},
                instance=None,
                member="",
                image=None,
                warm_ms=None,
                warnings=(),
                tests=None,
                usage=None,
                **({} if isinstance(event, ev.Restarted) else _choose_again(job)),
            )
        case ev.Skipped():
            return replace(job, failure=event.failure, because=event.because)
        case ev.CancelRequested():
            return replace(job, because=event.because)
        case ev.Cancelled():
            return replace(job, failure=event.failure, usage=event.usage or job.usage)
        case ev.Failed():
            return replace(job, failure=event.failure)
    return job

"""The story of a job or a run: where the time went, and why it did not pass.

`pikaci trace --json` prints these structures; without `--json` it shows the same to people.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from orchestrator.silence import Silence
from orchestrator.tracing.egress import Egress, egress
from orchestrator.tracing.parts import Share, afterwards, parts, summed
from orchestrator.tracing.path import Link, path_of_job, path_of_run
from orchestrator.tracing.timeline import Kind, Span, Timeline
from states.events import OutputRef, SnapshotRef
from states.lifecycle import State
from states.outcome import Failure, Verdict
from states.testcases import CaseReport
from states.usage import Usage

# No faults: a delete that finds nothing, and a refused stop, after which a delete comes. One that
# fails adds a warning.
_RELEASES = ("delete", "make ephemeral", "stop ephemeral")


class StateStory(msgspec.Struct, frozen=True, kw_only=True):
    """A state: its begin, in seconds after the submission, its duration, and its parts."""

    state: str
    attempt: int
    begin: float
    secs: float
    detail: str
    parts: tuple[Share, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A failed incus command, in full, with Incus's error."""

    attempt: int
    name: str
    secs: float
    command: str
    error: str


class JobStory(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `secs` is the time to its verdict, or until now; `release` is what came after it.

    `path` is the critical path: its steps add up to `secs`. `artifacts` is the directory of the
    last attempt on the host; the log is `guest.log` in it. `silence` is the longest time in which
    that attempt's command printed nothing, None when it is short or not known. `egress` is what it
    reached outside, None for a job without that key. `needs` are the jobs that this one waited for,
    `inputs` the outputs that it used, by name. `missing` says why its `output` was not reused but
    made, "" if it had none before. `tests` is what its test reports say. `reason` is
    why its command failed, in one line, "" if that is not clear. `usage` is what it used. `host` is
    the name of the host of its last attempt, "" for the local one, `member` the member of its
    cluster, "" if it is none. `warm_secs` is how long the create and the boot of its guest took
    before the job, None for a guest that was made for it.
    """

    id: str
    name: str
    run: str
    state: State
    verdict: Verdict | None
    secs: float
    attempts: int
    states: tuple[StateStory, ...]
    release: tuple[Share, ...]
    path: tuple[Share, ...]
    waited: tuple[Share, ...]
    exit_code: int | None
    failure: Failure | None
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    artifacts: str | None
    snapshot: SnapshotRef | None
    silence: Silence | None
    egress: Egress | None = None
    needs: dict[str, str] = {}
    inputs: dict[str, OutputRef] = {}
    output: OutputRef | None = None
    missing: str | None = None
    tests: CaseReport | None = None
    reason: str = ""
    host: str = ""
    member: str = ""
    usage: Usage | None = None
    warm_secs: float | None = None


class JobLine(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a run: `begin` is when it was submitted, `place` when it got its slot.

    `host` and `member` are those of `JobStory`.
    """

    id: str
    name: str
    state: State
    verdict: Verdict | None
    begin: float
    place: float
    secs: float
    host: str = ""
    member: str = ""


class RunStory(msgspec.Struct, frozen=True, kw_only=True):
    """A run: `secs` is the time to its last verdict, or until now."""

    run: str
    secs: float
    jobs: tuple[JobLine, ...]
    path: tuple[Link, ...]
    together: tuple[Share, ...]


def job_story(job: Timeline, *, silence: Silence | None = None) -> JobStory:
    """The story of a job; `silence` is its log's."""
    pieces = [(state, parts(job, state)) for state in job.states]
    waited = [part for _, cut in pieces for part in cut if part.kind is Kind.WAIT or _ready(part)]
    return JobStory(
        id=job.id,
        name=job.name,
        run=job.run,
        state=job.job.state,
        verdict=job.verdict,
        secs=_secs(job),
        attempts=job.job.attempt,
        states=tuple(
            StateStory(
                state=state.name,
                attempt=state.attempt,
                begin=(state.begin - job.begin).total_seconds(),
                secs=state.secs,
                detail=state.detail,
                parts=tuple(summed(cut)),
            )
            for state, cut in pieces
        ),
        release=tuple(summed(afterwards(job))),
        path=tuple(path_of_job(job)),
        waited=tuple(summed(waited)),
        exit_code=job.job.exit_code,
        failure=job.failure,
        faults=tuple(
            Fault(
                attempt=call.attempt,
                name=call.name,
                secs=call.secs,
                command=call.detail,
                error=call.error,
            )
            for call in job.calls
            if not call.ok and call.name not in _RELEASES
        ),
        warnings=(*job.job.warnings, *job.warnings),
        artifacts=job.job.artifacts,
        snapshot=job.job.snapshot,
        silence=silence,
        egress=egress_of(job),
        needs=job.job.needs,
        inputs=job.job.inputs,
        output=job.job.output,
        missing=job.missing,
        tests=job.job.tests,
        reason=job.job.reason,
        host=job.job.host,
        member=job.job.member,
        usage=job.job.usage,
        warm_secs=None if job.job.warm_ms is None else round(job.job.warm_ms / 1000, 6),
    )


def egress_of(job: Timeline) -> Egress | None:
    """What the job reached outside, None for a job without `egress`."""
    rules = job.job.spec.egress if job.job.spec else ()
    if not rules and not job.connections:
        return None
    return egress(rules, job.connections, job.gaps)


def run_story(jobs: Sequence[Timeline]) -> RunStory:
    """The story of the jobs of one run."""
    begin = min(job.begin for job in jobs)
    return RunStory(
        run=jobs[0].run,
        secs=(max(job.settled for job in jobs) - begin).total_seconds(),
        jobs=tuple(
            JobLine(
                id=job.id,
                name=job.name,
                state=job.job.state,
                verdict=job.verdict,
                begin=(job.begin - begin).total_seconds(),
                place=(_begun(job) - begin).total_seconds(),
                secs=_secs(job),
                host=job.job.host,
                member=job.job.member,
            )
            for job in jobs
        ),
        path=tuple(path_of_run(jobs)),
        together=tuple(
            summed(part for job in jobs for state in job.states for part in parts(job, state))
        ),
    )


def _secs(job: Timeline) -> float:
    return (job.settled - job.begin).total_seconds()


def _ready(part: Span) -> bool:
    return part.kind is Kind.CALL and part.name == "ready"


def _begun(job: Timeline) -> datetime:
    """When it got its slot; now, if it still waits for it."""
    if job.held_up is not None:
        return job.held_up.end
    return job.settled if job.job.state is State.SUBMITTED else job.begin

"""The documents of a job and a run; the schemas in docs/ are made from these types.

`--output json` prints them, and the API and the page use that of a job.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from states.events import ImageRef, OutputRef, SnapshotRef
from states.job import Job, Phase
from states.lifecycle import State
from states.outcome import EXIT_CODES, Failure, Flake, Outcome, Verdict, overall
from states.spec import JobSpec
from states.testcases import CaseReport
from states.usage import Usage


class JobDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of a job. Paths are absolute, on the host; durations are in ms.

    `job` equals `name`, and `attempts` equals `attempt`, for readers of either key. `verdict` is
    how the job ended; `outcome` and `exit_code` are those of the command. `waits_for` says what a
    queued job waits for; empty if nothing, or if unknown, as outside of the process that runs it.
    `queued_ms` is the time in the queue, `run_ms` the time from then to the last event. `artifacts`
    is a directory, `log` a file. `damaged` says why the job's events cannot be read; then most
    other values are unknown. `needs` are the jobs that this one waits for, by name: their ids.
    `inputs` are the outputs that the attempt uses, by the names of those jobs; `output` is what the
    job left, or reused. `because` is the job that did not pass, if this one was skipped or
    cancelled for that. `tests` is what the job's test reports say. `reason` is why the command
    failed, in one line: how many tests did and the first one's message, the line of the log that
    says it, or what the guest had used up; "" if that is not clear. `message` says how the command
    ended. `usage` is what the job used, null if its guest does not say. `flake` says that the job
    ended in another way with the same inputs, null if that is not known. `host` is the name of the
    host that the current attempt runs on, "" for the local one, and `member` the member of its
    cluster, "" if it is none. `hosts` are the names of those that a job with a choice may run on,
    until an attempt begins. `log_end` are the last lines of the log as a terminal finally shows
    them, only where a command prints one run.
    """

    id: str
    run: str
    name: str
    job: str
    state: State
    verdict: Verdict | None
    outcome: Outcome | None
    waits_for: str
    attempt: int
    attempts: int
    exit_code: int | None
    message: str
    failure: Failure | None
    warnings: tuple[str, ...]
    phases: tuple[Phase, ...]
    queued_ms: float
    run_ms: float
    workspace: str
    snapshot: SnapshotRef | None
    image: ImageRef | None
    instance: str | None
    artifacts: str | None
    log: str | None
    spec: JobSpec | None
    damaged: str | None = None
    needs: dict[str, str] = {}
    inputs: dict[str, OutputRef] = {}
    output: OutputRef | None = None
    because: str | None = None
    tests: CaseReport | None = None
    reason: str = ""
    flake: Flake | None = None
    host: str = ""
    member: str = ""
    usage: Usage | None = None
    hosts: tuple[str, ...] = ()
    log_end: tuple[str, ...] = ()


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run. `exit_code` is that of a `pikaci run` that ended like this.

    `number` is its short name, counted from 1; null where it is not known, as while it runs.
    """

    run: str
    outcome: Verdict
    exit_code: int
    jobs: tuple[JobDocument, ...]
    number: int | None = None


def job_document(job: Job, waits_for: str = "") -> JobDocument:
    """The document of a job, whether it has ended or not."""
    return JobDocument(
        id=job.id,
        run=job.run,
        name=job.name,
        job=job.name,
        state=job.state,
        verdict=job.verdict,
        outcome=job.outcome,
        waits_for=waits_for,
        attempt=job.attempt,
        attempts=job.attempt,
        exit_code=job.exit_code,
        message=job.message,
        failure=job.failure,
        warnings=job.warnings,
        phases=job.phases,
        queued_ms=round(job.queued_ms, 3),
        run_ms=round(job.run_ms, 3),
        workspace=job.workspace,
        snapshot=job.snapshot,
        image=job.image,
        instance=job.instance,
        artifacts=f"{job.artifacts}/artifacts" if job.artifacts else None,
        log=f"{job.artifacts}/guest.log" if job.artifacts else None,
        spec=job.spec,
        damaged=job.damage or None,
        needs=job.needs,
        inputs=job.inputs,
        output=job.output,
        because=job.because or None,
        tests=job.tests,
        reason=job.reason,
        flake=job.flake,
        host=job.host,
        member=job.member,
        usage=job.usage,
        hosts=job.hosts,
    )


def run_report(
    run: str, jobs: Sequence[Job], *, interrupted: bool = False, number: int | None = None
) -> RunReport:
    """The report of a run, which has passed only if all its jobs have.

    `interrupted`: the run was cancelled, perhaps before it had a job.
    """
    verdicts = [job.verdict_for_run for job in jobs]
    outcome = overall([*verdicts, Verdict.CANCELLED] if interrupted else verdicts)
    return RunReport(
        run=run,
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        jobs=tuple(job_document(job) for job in jobs),
        number=number,
    )

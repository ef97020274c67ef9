"""A job and a run as documents; their schemas in docs/ are made from these types.

`--output json` prints them, `/v1` answers with that of a job, and the page is made from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from states.events import ImageRef, SnapshotRef
from states.job import Job, Phase
from states.lifecycle import State
from states.outcome import EXIT_CODES, Failure, Outcome, Verdict, overall
from states.spec import JobSpec


class JobDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands. Paths are absolute, on the host; durations in ms.

    `job` is `name`, and `attempts` is `attempt`: some readers know the one, some the other.
    `verdict` is how the job ended, `outcome` and `exit_code` are the command's own. `waits_for`
    says what it waits for before it begins, in words; empty when for nothing, or where that is
    not known, as outside of the process that runs it. `queued_ms` is its time in the queue, and
    `run_ms` the time from then to its last event. `artifacts` is a directory, `log` a file.
    `damaged` says why the job's events cannot be read; most of the rest is then not known.
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


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; `exit_code` is what `pikaci run` exits with, were this its end."""

    run: str
    outcome: Verdict
    exit_code: int
    jobs: tuple[JobDocument, ...]


def job_document(job: Job, waits_for: str = "") -> JobDocument:
    """The document of a job, ended or not."""
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
    )


def run_report(run: str, jobs: Sequence[Job], *, interrupted: bool = False) -> RunReport:
    """The report of a run, as it stands: it has not passed before all of its jobs have.

    `interrupted` when the run was cancelled, perhaps before it had a job.
    """
    verdicts = [job.verdict for job in jobs]
    outcome = overall([*verdicts, Verdict.CANCELLED] if interrupted else verdicts)
    return RunReport(
        run=run,
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        jobs=tuple(job_document(job) for job in jobs),
    )

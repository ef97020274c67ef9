"""The documents that `--output json` prints; their schemas in docs/ are made from these types."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from states.events import ImageRef, SnapshotRef
from states.job import Job, Phase
from states.lifecycle import State
from states.outcome import EXIT_CODES, Failure, Outcome, Verdict, overall


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """One job. Paths are absolute; `exit_code` is the command's own; durations in ms.

    `damaged` says why the job's events cannot be read; most of the rest is then not known.
    """

    job: str
    id: str
    state: State
    outcome: Outcome | None
    exit_code: int | None
    failure: Failure | None
    attempts: int
    phases: tuple[Phase, ...]
    image: ImageRef | None
    snapshot: SnapshotRef | None
    instance: str | None
    artifacts: str | None
    log: str | None
    warnings: tuple[str, ...]
    damaged: str | None = None


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; `exit_code` is what `pikaci run` exits with, were this its end."""

    run: str
    outcome: Verdict
    exit_code: int
    jobs: tuple[JobReport, ...]


def job_report(job: Job) -> JobReport:
    """The report of a job, ended or not."""
    return JobReport(
        job=job.name,
        id=job.id,
        state=job.state,
        outcome=job.outcome,
        exit_code=job.exit_code,
        failure=job.failure,
        attempts=job.attempt,
        phases=job.phases,
        image=job.image,
        snapshot=job.snapshot,
        instance=job.instance,
        artifacts=f"{job.artifacts}/artifacts" if job.artifacts else None,
        log=f"{job.artifacts}/guest.log" if job.artifacts else None,
        warnings=job.warnings,
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
        jobs=tuple(job_report(job) for job in jobs),
    )

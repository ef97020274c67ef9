"""Which jobs of dead processes this process can resume: it may lack a secret of some."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.attempt.secrets import SecretMissing, read_secrets
from states.errors import PikaciError
from states.job import Job
from states.lifecycle import State

_BEFORE_THE_RUNNER = (State.SUBMITTED, State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED)


def missing_secret(job: Job) -> SecretMissing | None:
    """Why this process cannot start a job's command; None if it can, or if it may have started."""
    if job.spec is None or job.state not in (*_BEFORE_THE_RUNNER, State.INSTANCE_READY):
        return None
    try:
        read_secrets(job.spec.secrets, job.spec.env)
    except SecretMissing as error:
        return error
    return None


def not_resumable(jobs: Collection[Job]) -> dict[str, PikaciError]:
    """Why this process leaves jobs to another, by id: they have a `missing_secret`, or need such.

    `jobs` are all unfinished jobs of the runs concerned. Blocks on the disk.
    """
    found: dict[str, PikaciError] = {
        job.id: error for job in jobs if (error := missing_secret(job))
    }
    while more := {job.id: name for job in jobs if (name := _blocked_by(job, found))}:
        for id, name in more.items():
            found[id] = PikaciError(f"it needs the job {name}, which is not resumed")
    return found


def _blocked_by(job: Job, blocked: Collection[str]) -> str:
    """The name of a needed job that is blocked; "" if there is none, or if the job is too."""
    if job.id in blocked:
        return ""
    return next((name for name, id in job.needs.items() if id in blocked), "")


def can_go_on(job: Job) -> bool:
    """Whether this process has all that the job needs to go on."""
    return is_started(job) or missing_secret(job) is None


def is_started(job: Job) -> bool:
    """Whether the job's command may have started."""
    # In a ready guest the runner may have been started already, with the secrets.
    return job.state not in _BEFORE_THE_RUNNER

"""A shell in the guest of a job: beside its command, or in a guest that was kept.

Neither needs the process that drives the job: what there is to enter is in the journal.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt import shell
from orchestrator.attempt.guest_scripts import GUEST_PATH
from orchestrator.attempt.plan import environment
from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.errors import UsageError
from orchestrator.incus import Call, Deadline, Effect, Incus, Retry, stdin_of
from orchestrator.incus.errors import InstanceNotFound
from orchestrator.incus.instances import instance_status
from orchestrator.job.record import call_note
from orchestrator.journal import Journal, JournalReader, Lease
from orchestrator.tracing.effects import SHELL
from orchestrator.words import job_word
from states.job import Job
from states.lifecycle import State
from states.spec import JobSpec

# A guest that starts, and its agent if it is a VM.
START_SECS = 120.0
ASK_SECS = 30.0


@dataclass(frozen=True)
class Entrance:
    """A job with a guest that can be entered: `lease` is the guest's."""

    job: Job
    spec: JobSpec
    lease: Lease


def entrance(journal: JournalReader, id: str) -> Entrance:
    """Where a shell can enter this job; `UsageError`, with what to do, where it cannot."""
    job = journal.job(id)
    if job.ended:
        lease = next((one for one in reversed(journal.kept_leases()) if one.job == id), None)
        problem = "has ended, and its guest was not kept"
        resolution = _keep(id)
    else:
        found = (one for one in journal.open_leases() if one.instance == job.instance)
        lease = next(found, None) if job.state is State.RUNNING else None
        problem = f"is not running: it is {job_word(job)}"
        resolution = f"`pikaci status {id}` shows its state"
    if lease is None or job.spec is None:
        raise UsageError(f"the job {id} {problem}", resolution=resolution)
    return Entrance(job, job.spec, lease)


async def enter(
    journal: Journal,
    incus: Incus,
    way: Entrance,
    *,
    by: str,
    warn: Callable[[str], None],
    command: str = "",
) -> int:
    """Hand our terminal to a shell in the job's guest; its exit code, when it has ended.

    `by` is who enters; the trace notes that, and for how long. `command` is for the history of a
    shell beside a job, by default what that runs. `UsageError` if the guest is gone,
    and the errors of incus. A cancellation ends the shell.
    """
    job, spec, lease = way.job, way.spec, way.lease
    if lease.kept:
        path = await _prepare(incus, way, warn)
        guest_command = shell.in_kept(
            job=job.id,
            by=by,
            command=spec.command,
            run_as_root=spec.run_as_root,
            scratch=spec.scratch,
            variables=path,
        )
    else:
        guest_command = shell.beside(
            job=job.id, by=by, run_as_root=spec.run_as_root, command=command
        )
    args = ("exec", "--mode=interactive", f"--env=PATH={GUEST_PATH}")
    effect = Effect(
        name=SHELL,
        args=(*args, incus.name(lease.instance), "--", *guest_command),
        deadline=Deadline(float("inf")),
    )
    calls: list[Call] = []
    try:
        return await incus.observed(calls.append).hand_terminal(effect)
    finally:
        for call in calls:
            await journal.append(call_note(job.id, call))


async def _prepare(incus: Incus, way: Entrance, warn: Callable[[str], None]) -> str:
    """Start the kept guest if it has stopped, and bring it the job's variables: their file."""
    job, spec, instance = way.job, way.spec, way.lease.instance
    again = Retry(on=commands.EXEC_AWAY_OR_UNKNOWN, secs=START_SECS)
    try:
        status = await instance_status(incus, instance, deadline=Deadline(ASK_SECS), retry=again)
    except InstanceNotFound:
        raise UsageError(
            f"the kept guest of the job {job.id} was deleted", resolution=_keep(job.id)
        ) from None
    if status == "Stopped":
        warn("the guest had stopped: starting it")
        start = ("start", "--quiet", incus.name(instance))
        retry = Retry(on=commands.AWAY, secs=START_SECS)
        await incus.perform(
            Effect(name="start", args=start, deadline=Deadline(START_SECS), retry=retry)
        )
    given: dict[str, str] = {}
    try:
        given = await trio.to_thread.run_sync(read_secrets, spec.secrets, spec.env)
    except SecretMissing as missing:
        warn(f"the shell has no secrets: {missing.brief}")
    commit = job.snapshot.commit if job.snapshot else ""
    own = environment(spec, run=job.run, name=job.name, commit=commit or "")
    data = shell.variables({**given, **own}, run_as_root=spec.run_as_root)
    path, fill = shell.hand_over(secrets.token_hex(8))
    args = ("exec", "--force-noninteractive", f"--env=PATH={GUEST_PATH}")
    await incus.perform(
        Effect(
            name="shell variables",
            args=(*args, incus.name(instance), "--", *fill),
            deadline=Deadline(ASK_SECS),
            retry=Retry(on=commands.EXEC_AWAY_OR_UNKNOWN, secs=START_SECS, silent_tries=5),
            stdin=stdin_of(lambda: data),
        )
    )
    return path


def _keep(job: str) -> str:
    return f"`pikaci rerun {job} --keep-on-failure` reruns it, and keeps its guest if it fails"

"""Resumes or cancels what dead processes left in a state root.

A run belongs to the process that holds its lock. Recovery takes the locks of dead processes, and
drives their runs' jobs from the state in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.lease import HeldLease
from orchestrator.errors import UsageError, collect_errors
from orchestrator.incus import Deadline, Effect, Incus
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.record import Record
from orchestrator.job.task import STARTED_AT_ONCE, JobTask
from orchestrator.journal import JobUnreadable, Lease
from orchestrator.journal.stamp import now
from orchestrator.session import locks
from orchestrator.session.away import WAIT_SECS, Answering, HostAway, ask, hosts_of
from orchestrator.session.control import REASON, listening
from orchestrator.session.resumable import can_go_on, is_started, missing_secret, not_resumable
from orchestrator.slow_files import in_thread
from states import events as ev
from states.ending import Intent
from states.errors import PikaciError
from states.job import Job
from states.lease import LeaseState, taken_over

DELETE_SECS = 120.0
LOOK_FOR_SECRETS_SECS = 60.0
ASK_AGAIN_SECS = 60.0


@dataclass(frozen=True)
class Left:
    """The unsettled jobs and leases of a state root; some may belong to live processes."""

    jobs: dict[str, list[str]]  # by session
    leases: dict[str, list[Lease]]

    @property
    def sessions(self) -> list[str]:
        return [*self.jobs, *(session for session in self.leases if session not in self.jobs)]

    def unneeded(self, session: str) -> list[Lease]:
        """The session's leases of guests that no unfinished job has."""
        unfinished = set(self.jobs.get(session, ()))
        return [lease for lease in self.leases.get(session, ()) if lease.job not in unfinished]


def left(context: Context, session: str | None = None) -> Left:
    """The unfinished jobs, and the open leases except those of kept guests.

    With a `session` only its own, in a time that does not depend on the others'.
    """
    jobs: dict[str, list[str]] = {}
    for row in context.journal.unfinished(session=session):
        jobs.setdefault(locks.session_of(row.run), []).append(row.id)
    leases: dict[str, list[Lease]] = {}
    for lease in context.journal.open_leases(session=session):
        if not lease.kept or lease.deadline <= datetime.now(UTC):
            leases.setdefault(locks.session_of(lease.run), []).append(lease)
    return Left(jobs, leases)


def overdue(context: Context) -> list[str]:
    """The ids of dead processes' unfinished jobs whose instances' deadlines are past."""
    found = left(context)
    moment = datetime.now(UTC)
    return [
        lease.job
        for session, leases in found.leases.items()
        for lease in leases
        if lease.job in found.jobs.get(session, ()) and lease.deadline < moment
        if not locks.is_held(context.root.locks, session)
    ]


async def leases_to_end(context: Context, *, within_secs: float) -> list[Lease]:
    """The leases that `recover` ends without taking up a job, on hosts that answer by then."""
    found = await trio.to_thread.run_sync(left, context)
    leases = [
        lease
        for session in found.sessions
        if not locks.is_held(context.root.locks, session)
        for lease in found.unneeded(session)
    ]
    answering: set[str] = set()

    async def look(host: str) -> None:
        with suppress(PikaciError):
            await ask(context, host)
            answering.add(host)

    with trio.move_on_after(within_secs):
        async with trio.open_nursery() as nursery:
            for host in {lease.host for lease in leases}:
                nursery.start_soon(look, host)
    return [lease for lease in leases if lease.host in answering]


async def recover(
    context: Context,
    queue: Queue,
    *,
    only: Collection[str] | None = None,
    cancel: bool = False,
    hurry: bool = False,
    tasks: dict[str, JobTask] | None = None,
    stays: bool = False,
    on_fault: Callable[[BaseException], None] = lambda fault: None,
) -> list[BaseException]:
    """Take over the runs of dead processes; return when their jobs and leases have ended.

    A job with a `missing_secret` whose command has not started is left alone, and so are the jobs
    that need it. What is on a host that is away is left alone too, with a `HostAway` for each such
    host; but a cancellation is recorded. A process that `stays` waits for secrets, and asks a host
    again as long as it drives other jobs of the session: nobody else can take the rest up then.

    `tasks` holds the resumed jobs, by id, while they run. `only` limits this to these job ids.
    `cancel` cancels the jobs; `hurry`: without a grace period. Cancelling this cancels its jobs,
    unless the intent is to detach. If the journal is damaged for one job or run, the others
    continue; the error is passed to `on_fault` at once, and returned.
    """
    faults: list[BaseException] = []

    def report(fault: BaseException) -> None:
        faults.append(fault)
        on_fault(fault)

    asked = Answering(context, report, wait_secs=0.0 if cancel else WAIT_SECS)
    async with trio.open_nursery() as nursery:
        for session in (await trio.to_thread.run_sync(left, context)).sessions:
            call = partial(
                _recover_session,
                context,
                session,
                queue,
                only=only,
                cancel=cancel,
                hurry=hurry,
                registry={} if tasks is None else tasks,
                stays=stays,
                asked=asked,
                report=report,
            )
            nursery.start_soon(collect_errors, report, call)
    return faults


async def _recover_session(
    context: Context,
    session: str,
    queue: Queue,
    *,
    only: Collection[str] | None,
    cancel: bool,
    hurry: bool,
    registry: dict[str, JobTask],
    stays: bool,
    asked: Answering,
    report: Callable[[BaseException], None],
) -> None:
    async with in_thread(locks.try_hold(context.root.locks, session)) as held:
        if not held:
            return
        # Look again: the process that held the session until now may have moved its jobs.
        found = await trio.to_thread.run_sync(left, context, session)
        unfinished = dict.fromkeys(found.jobs.get(session, ()))
        leases = found.leases.get(session, [])
        leases_of: dict[str, list[Lease]] = {}
        for lease in leases:
            leases_of.setdefault(lease.job, []).append(lease)
        wanted = [id for id in unfinished if only is None or id in only]
        jobs, unreadable = await trio.to_thread.run_sync(_read, context, wanted)
        for error in unreadable.values():
            report(error)
        ready = await trio.to_thread.run_sync(lambda: {job.id for job in jobs if can_go_on(job)})
        blocked = await trio.to_thread.run_sync(not_resumable, jobs)
        tasks: dict[str, JobTask] = {}
        needed_hosts = hosts_of(jobs)
        # What is still to be taken up, or to be deleted: the host of the rest did not answer.
        rest = {job.id: job for job in jobs}
        # The guest of a job that cannot be read may be useful until its deadline.
        late = [
            lease
            for lease in leases
            if lease.job in unreadable and lease.deadline <= datetime.now(UTC)
        ]
        unneeded = {lease.instance: lease for lease in (*found.unneeded(session), *late)}

        async def answer(asked: Answering, needed: Collection[Sequence[str]]) -> bool:
            return all([await asked.answers(*some) for some in needed])

        async def take_up(asked: Answering, there: list[Job]) -> None:
            """Begin to drive the jobs of one host."""
            for number, job in enumerate(there, start=1):
                if number % STARTED_AT_ONCE == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                if not (cancel or stays or is_started(job) or job.id not in blocked):
                    continue
                # To be cancelled is noted also where nothing can be done now.
                if not cancel and not await answer(asked, needed_hosts[job.id]):
                    continue
                own = leases_of.get(job.id, [])
                try:
                    task = JobTask(context, job, queue, leases=own, adopted=True)
                except UsageError as error:  # its host is not in the settings
                    report(HostAway(job.host, error))
                    continue
                del rest[job.id]
                tasks[job.id] = task
                if cancel:
                    task.cancel(REASON, now=hurry)
                if job.id in ready:
                    task.enqueue()
                nursery.start_soon(collect_errors, report, partial(go_on, task))

        async def go_on(task: JobTask) -> None:
            registry[task.job.id] = task
            try:
                if task.job.id not in ready:
                    await _wait_for_secret(context, task)
                if task.intent.value is not Intent.DETACH:
                    await task.run()
            finally:
                task.settled.set()
                del registry[task.job.id]
            if cancel and not task.job.ended:
                await asked.answers(task.job.host)

        async def end(asked: Answering, lease: Lease) -> None:
            if await asked.answers(lease.host) and await end_lease(context, lease):
                del unneeded[lease.instance]

        async def begin(asked: Answering) -> None:
            by_host: dict[tuple[str, ...], list[Job]] = {}
            for job in rest.values():
                by_host.setdefault(job.hosts or (job.host,), []).append(job)
            async with trio.open_nursery() as each:
                for there in by_host.values():
                    each.start_soon(collect_errors, report, partial(take_up, asked, there))
                for lease in unneeded.values():
                    each.start_soon(collect_errors, report, partial(end, asked, lease))

        async with listening(context.root.locks, session, tasks), trio.open_nursery() as nursery:
            await begin(asked)
            while stays and (rest or unneeded):
                await trio.sleep(ASK_AGAIN_SECS)
                if all(task.settled.is_set() for task in tasks.values()):
                    break  # the next round begins anew
                await begin(Answering(context, report))


def _read(context: Context, ids: Sequence[str]) -> tuple[list[Job], dict[str, JobUnreadable]]:
    """The jobs that can be read, and the errors of the others."""
    _ = context.journal.owner, context.journal.key  # without them, no job can go on
    jobs: list[Job] = []
    errors: dict[str, JobUnreadable] = {}
    for id in ids:
        try:
            jobs.append(context.journal.job(id))
        except JobUnreadable as error:
            errors[id] = error
    return jobs, errors


async def _wait_for_secret(context: Context, task: JobTask) -> None:
    """Return when the secret is there, or the intent for the job changes."""
    job, since = task.job, trio.current_time()
    lacking = await trio.to_thread.run_sync(missing_secret, job)
    if lacking is not None:
        # Recorded at once, so that people can see what the job waits for.
        message = f"waits for a secret: {lacking.brief}"
        await context.journal.append(ev.Warned(job=job.id, message=message, **now()))
    while task.intent.value is Intent.RUN and not await trio.to_thread.run_sync(can_go_on, job):
        await task.intent.reaches(Intent.CANCEL, within_secs=LOOK_FOR_SECRETS_SECS)
    if task.intent.value is not Intent.DETACH:
        Record(context.journal, job).waited(ev.WaitFor.SECRET, since)


async def end_lease(context: Context, lease: Lease) -> bool:
    """Delete the instance of a job that has ended, then end its lease; whether both was done."""
    held = HeldLease(
        context.journal,
        context.at(lease.host).reaching(lease.member),
        job=lease.job,
        instance=lease.instance,
        host=lease.host,
        member=lease.member,
        delete=delete_effect(context.at(lease.host).incus, lease.instance),
        state=taken_over(made=lease.made, kept=lease.kept),
    )
    await held.let_go(context.intent)
    return held.state is LeaseState.GONE


def delete_effect(incus: Incus, instance: str) -> Effect:
    """The effect that deletes an instance whose plan is no longer known."""
    return commands.delete_instance(
        incus.name(instance), deadline=Deadline(DELETE_SECS), daemon_secs=DELETE_SECS
    )

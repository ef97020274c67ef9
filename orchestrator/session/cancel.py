"""Cancels jobs of this process, of other processes, and of dead ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from functools import partial

import trio

from orchestrator.capacity import Capacity
from orchestrator.errors import UsageError, one_error
from orchestrator.job.context import Context
from orchestrator.job.jobs import Jobs
from orchestrator.job.queue import Queue
from orchestrator.job.task import JobTask
from orchestrator.session.away import HostAway
from orchestrator.session.control import HolderSilent, ask_to_cancel
from orchestrator.session.locks import session_of, share_root
from orchestrator.session.recovery import recover
from orchestrator.slow_files import in_thread

ASK_AGAIN_SECS = 0.1


async def cancel_by_id(
    context: Context, jobs: Jobs, ids: Iterable[str], *, reason: str, hurry: bool
) -> None:
    """Like `cancel_jobs`, for a process that drives some of the jobs.

    `NotFound` if one does not exist; then none is cancelled. A job that cannot be read is not
    cancelled; `JobUnreadable` is raised for it when the others are dead.
    """
    asked = list(ids)
    rows = await jobs.reading.journal(lambda: [jobs.row(id) for id in asked])
    alive = {row.id: row.run for row in rows if not row.ended}
    foreign = alive.keys() - jobs.driver.tasks.keys()
    unreadable = await jobs.reading.journal(lambda: context.journal.unreadable(foreign))
    await cancel_jobs(
        context,
        {id: run for id, run in alive.items() if id not in unreadable},
        tasks=jobs.driver.tasks,
        reason=reason,
        hurry=hurry,
        fault=jobs.driver.fault,
    )
    for id in unreadable:
        await jobs.reading.journal(partial(context.journal.job, id))  # which says why


async def cancel_jobs(
    context: Context,
    jobs: Mapping[str, str],
    *,
    tasks: Mapping[str, JobTask] | None,
    reason: str,
    hurry: bool,
    fault: Callable[[str], Exception | None] = lambda job: None,
) -> None:
    """Cancel the jobs, and return when they have ended; the caller sets a deadline.

    `jobs` maps ids to runs. `tasks` are the jobs of this process, None if it does not share the
    state root yet. `hurry` skips the grace period. Raises the `fault` of a job that this process
    has lost. If a live process or a host does not answer, raises `HolderSilent` or `HostAway` once
    all other jobs have ended.
    """
    silent: list[HolderSilent | HostAway] = []

    async def end(session: str) -> None:
        def alive() -> list[str]:
            return [
                job
                for job, run in jobs.items()
                if session_of(run) == session and not context.journal.ended(job)
            ]

        while asked := await trio.to_thread.run_sync(alive):
            for error in map(fault, asked):
                if error is not None:
                    raise error
            ours = [tasks[job] for job in asked if job in tasks] if tasks else []
            for task in ours:
                task.cancel(reason, now=hurry)
            for task in ours:
                await task.settled.wait()
            try:
                heard = bool(ours) or await ask_to_cancel(
                    context.root.locks, session, asked, now=hurry
                )
            except HolderSilent as error:
                silent.append(error)
                return
            if not heard:
                # Its process is dead, or is not listening yet.
                share = in_thread(share_root(context.root.path)) if tasks is None else nullcontext()
                with suppress(UsageError):
                    async with share:
                        faults = await recover(
                            context, Queue(Capacity(jobs=1)), only=asked, cancel=True, hurry=hurry
                        )
                        if away := [one for one in faults if isinstance(one, HostAway)]:
                            silent.extend(away)
                            return
            if await trio.to_thread.run_sync(alive):
                await trio.sleep(ASK_AGAIN_SECS)

    with one_error():
        async with trio.open_nursery() as nursery:
            for session in {session_of(run) for run in jobs.values()}:
                nursery.start_soon(end, session)
    if silent:
        raise silent[0]

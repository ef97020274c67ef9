"""Takes up what this session's own jobs had to leave, because an instance could not be reached.

A host that is away, or a member of a cluster, keeps its instances until it is back. Nobody else
looks for them then: the jobs' tasks have ended, and others leave this session's runs alone.
"""

from __future__ import annotations

import trio

from orchestrator.errors import UsageError
from orchestrator.job.context import Context
from orchestrator.job.driver import Driver
from orchestrator.journal import Lease
from orchestrator.session import locks
from orchestrator.session.away import ask
from orchestrator.session.recovery import end_lease, left
from states.errors import PikaciError
from states.job import Job
from states.lifecycle import State


async def take_up_lingering(
    context: Context, session: str, driver: Driver, *, host: str | None = None
) -> None:
    """End what the session's jobs left, on one host or on all, where that can be done now.

    The instances of jobs that have ended are deleted. A job whose cancellation could not be
    confirmed is driven again. What is on a host that does not answer stays. Raises the errors of
    the journal; and a `HostUnknown`, when the rest is done.
    """
    leases, jobs = await trio.to_thread.run_sync(_left, context, session)
    reached: dict[tuple[str, str], bool] = {}
    unknown: UsageError | None = None
    for lease in leases:
        if host is not None and lease.host != host:
            continue
        # While a job's task runs, that sees to its instances itself.
        if driver.drives(lease.job):
            continue
        # While the pool knows a warm guest, or a job has claimed it since, that does.
        if not lease.job and context.pool and lease.instance not in context.pool.abandoned:
            continue
        where = (lease.host, lease.member)
        try:
            if where not in reached:
                reached[where] = await _can_be_reached(context, lease)
        except UsageError as error:
            unknown = error
            continue
        if not reached[where]:
            continue
        job = jobs.get(lease.job)
        if job is None:
            if await end_lease(context, lease) and context.pool is not None:
                context.pool.abandoned.discard(lease.instance)
        elif job.state is State.CANCELLING and not driver.closed:
            own = [one for one in leases if one.job == lease.job]
            driver.begin(job, leases=own, adopted=True)
    if unknown is not None:
        raise unknown


async def _can_be_reached(context: Context, lease: Lease) -> bool:
    members = context.at(lease.host).members
    if lease.host:
        # Each delete would wait for it.
        try:
            await ask(context, lease.host)
        except PikaciError:
            return False
    return members is None or not lease.member or await members.is_there(lease.member)


def _left(context: Context, session: str) -> tuple[list[Lease], dict[str, Job]]:
    """The session's open leases, and those of their jobs that have not ended."""
    leases = left(context).leases.get(locks.session_of(session), [])
    unfinished = {row.id for row in context.journal.unfinished()}
    jobs = {lease.job for lease in leases} & unfinished
    return leases, {id: context.journal.job(id) for id in jobs}

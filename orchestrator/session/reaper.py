"""Deletes unneeded instances, found by their tags instead of the journal.

Recovery ends the leases in the journal. The reaper is for instances that the journal does not know:
one that appeared long after its create call was given up, or whose state root was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from orchestrator.attempt.plan import instance_name
from orchestrator.errors import one_error
from orchestrator.incus import LOCAL
from orchestrator.incus.errors import IncusError, InstanceNotFound
from orchestrator.incus.instances import Instance, list_instances
from orchestrator.job.context import Context
from orchestrator.session import locks
from orchestrator.session.away import HostAway
from orchestrator.session.recovery import delete_effect
from states.errors import PikaciError

OWNER, RUN, DEADLINE = "user.pikaci.owner", "user.pikaci.run", "user.pikaci.deadline"
JOB = "user.pikaci.job"
AT_ONCE = 4


@dataclass(frozen=True)
class Doomed:
    """An instance to delete, on which host ("" for the local one), and why.

    `member` is the member of the host's cluster, "" if it is none.
    """

    instance: str
    reason: str
    host: str = ""
    member: str = ""


Found = Sequence[tuple[str, Instance]]
OnFault = Callable[[PikaciError], None]


def _raise(fault: PikaciError) -> None:
    raise fault


def used_hosts(context: Context) -> Sequence[str]:
    """The hosts that jobs of the journal used, "" for the local one; at first those of new jobs."""
    return context.journal.hosts() or (context.host.name, *context.others)


async def unneeded(
    context: Context, on_fault: OnFault = _raise, *, hosts: Sequence[str] | None = None
) -> list[Doomed]:
    """Instances with our owner key that no unfinished job, kept lease or live run needs.

    They are looked for on these hosts, by default the `used_hosts`. One that cannot be asked is a
    fault; the others are asked meanwhile, but this returns when all have answered or failed.
    """
    found = await _instances(context, on_fault, hosts)
    return await trio.to_thread.run_sync(_unneeded, context, found)


async def _instances(
    context: Context, on_fault: OnFault, hosts: Sequence[str] | None = None
) -> Found:
    """The instances of the hosts, by default the `used_hosts`, each with the name of its host."""
    found: list[tuple[str, Instance]] = []

    async def look(name: str) -> None:
        try:
            found.extend((name, one) for one in await list_instances(context.at(name).incus))
        except PikaciError as error:
            on_fault(error if name in ("", LOCAL) else HostAway(name, error))

    if hosts is None:
        hosts = await trio.to_thread.run_sync(used_hosts, context)
    with one_error():
        async with trio.open_nursery() as nursery:
            for name in hosts:
                nursery.start_soon(look, name)
    return found


def _unneeded(context: Context, found: Found) -> list[Doomed]:
    journal = context.journal
    owner = journal.owner
    ours = [(name, one) for name, one in found if one.config.get(OWNER) == owner]
    if not ours:
        return []
    # Before the journal: a run that ends now has already written what is still needed.
    runs = {instance.config.get(RUN, "") for _, instance in ours}
    held = {run for run in runs if locks.is_held(context.root.locks, run)}
    # After the instances: a lease is written before its instance is created.
    unfinished = {row.id: row for row in journal.unfinished()}
    moment = datetime.now(UTC)
    leases = journal.open_leases()
    kept = {lease.instance for lease in leases if lease.kept and lease.deadline > moment}
    # A claimed one has its own name, and perhaps not yet the tags of its job.
    claimed = {lease.instance: lease for lease in leases if lease.attempt}

    def is_needed(instance: Instance) -> bool:
        claim = claimed.get(instance.name)
        job = unfinished.get(claim.job if claim else instance.config.get(JOB, ""))
        if job is None:
            return False
        name = instance_name(owner, job.id, job.attempt)
        current = claim.attempt == job.attempt if claim else instance.name == name
        overdue = _is_past(instance.config.get(DEADLINE, ""))
        if current != overdue:
            return current
        # A job that cannot be read may need any of its instances, until their deadlines.
        return current if not journal.look(job).damage else not overdue

    return [
        Doomed(instance.name, "no unfinished job needs it", host, instance.member)
        for host, instance in ours
        if instance.name not in kept
        and instance.config.get(RUN, "") not in held
        and not is_needed(instance)
    ]


async def expired(context: Context, on_fault: OnFault = _raise) -> list[Doomed]:
    """Instances of any pikaci owner whose deadlines have expired, on the hosts of `unneeded`."""
    return [
        Doomed(
            instance.name, f"its deadline was {instance.config[DEADLINE]}", host, instance.member
        )
        for host, instance in await _instances(context, on_fault)
        if OWNER in instance.config and _is_past(instance.config.get(DEADLINE, ""))
    ]


def _is_past(text: str) -> bool:
    try:
        return datetime.fromisoformat(text) < datetime.now(UTC)
    except (ValueError, TypeError):
        return False  # not a deadline that we wrote


async def reap(context: Context, doomed: list[Doomed]) -> dict[str, str]:
    """Delete the instances; returns `{name: problem}` for those that could not be deleted."""
    problems: dict[str, str] = {}
    # Each host and member has its own: one that does not answer does not keep the others' waiting.
    slots = {(one.host, one.member): trio.CapacityLimiter(AT_ONCE) for one in doomed}

    async def delete(one: Doomed) -> None:
        incus = context.at(one.host).reaching(one.member)
        async with slots[one.host, one.member]:
            try:
                await incus.perform(delete_effect(incus, one.instance))
            except InstanceNotFound:
                pass
            except IncusError as error:
                problems[one.instance] = error.brief

    async with trio.open_nursery() as nursery:
        for one in doomed:
            nursery.start_soon(delete, one)
    return problems

"""Deletes unneeded instances, found by their tags instead of the journal.

Recovery ends the leases in the journal. The reaper is for instances that the journal does not know:
one that appeared long after its create call was given up, or whose state root was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from orchestrator.attempt.plan import instance_name
from orchestrator.incus.errors import IncusError, InstanceNotFound
from orchestrator.incus.instances import Instance, list_instances
from orchestrator.job.context import Context
from orchestrator.session import locks
from orchestrator.session.recovery import delete_effect

OWNER, RUN, DEADLINE = "user.pikaci.owner", "user.pikaci.run", "user.pikaci.deadline"
JOB = "user.pikaci.job"
AT_ONCE = 4


@dataclass(frozen=True)
class Doomed:
    """An instance to delete, and why."""

    instance: str
    reason: str


async def unneeded(context: Context) -> list[Doomed]:
    """Instances with our owner key that no unfinished job, kept lease or live run needs."""
    found = await list_instances(context.incus)
    return await trio.to_thread.run_sync(_unneeded, context, found)


def _unneeded(context: Context, found: Sequence[Instance]) -> list[Doomed]:
    journal = context.journal
    owner = journal.owner
    ours = [instance for instance in found if instance.config.get(OWNER) == owner]
    # Before the journal: a run that ends now has already written what is still needed.
    runs = {instance.config.get(RUN, "") for instance in ours}
    held = {run for run in runs if locks.is_held(context.root.locks, run)}
    # After the instances: a lease is written before its instance is created.
    unfinished = {row.id: row for row in journal.unfinished()}
    moment = datetime.now(UTC)
    kept = {
        lease.instance for lease in journal.open_leases() if lease.kept and lease.deadline > moment
    }

    def is_needed(instance: Instance) -> bool:
        job = unfinished.get(instance.config.get(JOB, ""))
        if job is None:
            return False
        current = instance.name == instance_name(owner, job.id, job.attempt)
        overdue = _is_past(instance.config.get(DEADLINE, ""))
        if current != overdue:
            return current
        # A job that cannot be read may need any of its instances, until their deadlines.
        return current if not journal.look(job).damage else not overdue

    return [
        Doomed(instance.name, "no unfinished job needs it")
        for instance in ours
        if instance.name not in kept
        and instance.config.get(RUN, "") not in held
        and not is_needed(instance)
    ]


async def expired(context: Context) -> list[Doomed]:
    """Instances of any pikaci owner whose deadlines have expired."""
    return [
        Doomed(instance.name, f"its deadline was {instance.config[DEADLINE]}")
        for instance in await list_instances(context.incus)
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
    slots = trio.CapacityLimiter(AT_ONCE)

    async def delete(instance: str) -> None:
        async with slots:
            try:
                await context.incus.perform(delete_effect(context, instance))
            except InstanceNotFound:
                pass
            except IncusError as error:
                problems[instance] = error.brief

    async with trio.open_nursery() as nursery:
        for one in doomed:
            nursery.start_soon(delete, one.instance)
    return problems

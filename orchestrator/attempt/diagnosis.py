"""Why a command may have failed, according to Incus. Gives a hint; never changes the verdict."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from orchestrator.attempt.plan import Plan
from orchestrator.attempt.result import GuestResult
from orchestrator.incus import Deadline, Incus
from orchestrator.incus.errors import IncusError
from orchestrator.units import size

# How the hint for a guest without memory begins.
NO_MEMORY = "the guest had used all its memory"
# And that for a full storage pool.
FULL_POOL = "the storage pool"
ASK_SECS = 10.0
KILLED = 137
# A full pool still shows some free space, which it keeps for its own bookkeeping: a sixth of a
# btrfs pool of 3 GiB.
FULL = 0.8


class _Memory(msgspec.Struct):
    total: int = 0
    usage_peak: int = 0


class _State(msgspec.Struct):
    memory: _Memory


class _Space(msgspec.Struct):
    total: int
    used: int


class _Resources(msgspec.Struct):
    space: _Space


async def look_at_failure(incus: Incus, plan: Plan, result: GuestResult | None) -> str:
    """A hint if the guest ran out of memory or the pool is full; empty if neither.

    `result` is the guest's result, None if there is none. The instance must still exist.
    """
    try:
        if result and result.exit_code == KILLED and await _out_of_memory(incus, plan):
            return (
                f"{NO_MEMORY} ({plan.config['limits.memory']}) when the"
                " command was killed: set `memory` in the job file to give it more"
            )
        if result and not result.hint:
            return ""  # nothing in the guest ran out of space
        # In the guest, a full pool looks like a full disk.
        return await _full_pool(incus, plan)
    except IncusError:
        return ""


async def _out_of_memory(incus: Incus, plan: Plan) -> bool:
    # Meaningful only after a kill: cached files fill the memory of any guest.
    path = f"/1.0/instances/{quote(plan.instance)}/state"
    memory = (await incus.query(path, _State, deadline=Deadline(ASK_SECS))).memory
    return 0 < memory.total <= memory.usage_peak


async def _full_pool(incus: Incus, plan: Plan) -> str:
    pool = plan.host.pool
    path = f"/1.0/storage-pools/{quote(pool)}/resources"
    found = await incus.query(path, _Resources, deadline=Deadline(ASK_SECS))
    space = found.space
    if space.used < FULL * space.total:
        return ""
    return (
        f"{FULL_POOL} {pool}{plan.host.on} is full or nearly full ({size(space.used)} of"
        f" {size(space.total)}): `incus storage info {pool}`{plan.host.on} shows it"
    )

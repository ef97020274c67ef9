"""Why a command may have failed, as Incus's own state tells it. The verdict stays as it is."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from orchestrator.attempt.plan import Plan
from orchestrator.attempt.result import GuestResult
from orchestrator.incus import Deadline, Incus
from orchestrator.incus.errors import IncusError
from orchestrator.units import size

ASK_SECS = 10.0
KILLED = 137
# A pool that refuses a block still shows some room, kept for its own bookkeeping: of a btrfs pool
# of 3 GiB it was a sixth.
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
    """What was seen, for a hint: no memory left, or a full pool; empty when neither was.

    `result` is the guest's own, None when there is none. The instance is still there.
    """
    try:
        if result and result.exit_code == KILLED and await _out_of_memory(incus, plan):
            return (
                f"the guest had used all of its memory ({plan.config['limits.memory']}) when the"
                " command was killed: `memory` gives the job more"
            )
        if result and not result.hint:
            return ""  # nothing in the guest was short of room
        # To a guest, a full pool looks like its own full disk.
        return await _full_pool(incus, plan)
    except IncusError:
        return ""


async def _out_of_memory(incus: Incus, plan: Plan) -> bool:
    # Only beside a kill: files that were read and written fill the memory of any guest.
    path = f"/1.0/instances/{quote(plan.instance)}/state"
    memory = (await incus.query(path, _State, deadline=Deadline(ASK_SECS))).memory
    return 0 < memory.total <= memory.usage_peak


async def _full_pool(incus: Incus, plan: Plan) -> str:
    pool = plan.host.pool
    path = f"/1.0/storage-pools/{quote(pool)}/resources"
    found = await incus.query(path, _Resources, deadline=Deadline(ASK_SECS), in_project=False)
    space = found.space
    if space.used < FULL * space.total:
        return ""
    return (
        f"the storage pool {pool} is full, or nearly so ({size(space.used)} of"
        f" {size(space.total)}): `incus storage info {pool}` shows it"
    )

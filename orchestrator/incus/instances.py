"""Instances in Incus: the list of them, and the status of one."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from orchestrator.incus import Deadline, Incus, Retry
from orchestrator.incus.effect import NEVER

LIST_SECS = 60.0


class Instance(msgspec.Struct, frozen=True):
    """An instance in the project, whoever created it."""

    name: str
    config: dict[str, str]


class _Status(msgspec.Struct):
    status: str


async def list_instances(incus: Incus) -> list[Instance]:
    """All instances in the project, in one call."""
    return await incus.query(
        "/1.0/instances?recursion=1", list[Instance], deadline=Deadline(LIST_SECS)
    )


async def instance_status(
    incus: Incus, instance: str, *, deadline: Deadline, retry: Retry = NEVER
) -> str:
    """Incus's name for the instance's status ("Running", "Stopped", "Frozen").

    Incus says "Ready" for a running guest that announced itself; this returns "Running".
    """
    path = f"/1.0/instances/{quote(instance)}"
    found = await incus.query(path, _Status, deadline=deadline, retry=retry)
    return "Running" if found.status == "Ready" else found.status

"""Instances in Incus: the list of them, and the status of one."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from orchestrator.incus import Deadline, Incus, Retry
from orchestrator.incus.effect import NEVER

LIST_SECS = 60.0


class Instance(msgspec.Struct, frozen=True):
    """An instance in the project, whoever created it, and the cluster's member that has it.

    The configuration of one on a member that does not answer is not known, and empty here.
    """

    name: str
    config: dict[str, str]
    member: str = ""


class _Listed(msgspec.Struct):
    name: str
    config: dict[str, str] | None = None
    location: str = ""


class _Status(msgspec.Struct):
    status: str


async def list_instances(incus: Incus) -> list[Instance]:
    """All instances in the project, in one call."""
    listed = await incus.query(
        "/1.0/instances?recursion=1", list[_Listed], deadline=Deadline(LIST_SECS)
    )
    return [
        Instance(one.name, one.config or {}, "" if one.location == "none" else one.location)
        for one in listed
    ]


async def instance_status(
    incus: Incus, instance: str, *, deadline: Deadline, retry: Retry = NEVER
) -> str:
    """Incus's name for the instance's status ("Running", "Stopped", "Frozen").

    Incus says "Ready" for a running guest that announced itself; this returns "Running".
    """
    path = f"/1.0/instances/{quote(instance)}"
    found = await incus.query(path, _Status, deadline=deadline, retry=retry)
    return "Running" if found.status == "Ready" else found.status

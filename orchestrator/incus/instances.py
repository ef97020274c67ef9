"""Instances as Incus tells of them: which there are, and in what state one is."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from orchestrator.incus import Deadline, Incus, Retry
from orchestrator.incus.effect import NEVER

LIST_SECS = 60.0


class Instance(msgspec.Struct, frozen=True):
    """An instance of the project, whoever made it."""

    name: str
    config: dict[str, str]


class _Status(msgspec.Struct):
    status: str


async def list_instances(incus: Incus) -> list[Instance]:
    """All instances of the project, in one call."""
    return await incus.query(
        "/1.0/instances?recursion=1", list[Instance], deadline=Deadline(LIST_SECS)
    )


async def instance_status(
    incus: Incus, instance: str, *, deadline: Deadline, retry: Retry = NEVER
) -> str:
    """Incus's word for the state that an instance is in ("Running", "Stopped", "Frozen").

    "Running" also for a guest that announced itself, which Incus calls Ready.
    """
    path = f"/1.0/instances/{quote(instance)}"
    found = await incus.query(path, _Status, deadline=deadline, retry=retry)
    return "Running" if found.status == "Ready" else found.status

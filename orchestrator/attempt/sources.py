"""Names the directory of a host that Incus cannot mount into a container."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from orchestrator.attempt.plan import Plan
from orchestrator.host_paths import file_system_of
from orchestrator.incus.errors import MappingUnsupported

SNAPSHOT_DEVICE = "pikaci-snapshot"


@asynccontextmanager
async def naming_source(plan: Plan) -> AsyncIterator[None]:
    """A block that starts the plan's instance: a `MappingUnsupported` in it gets the directory."""
    try:
        yield
    except MappingUnsupported as error:
        raise await trio.to_thread.run_sync(_with_source, error, plan) from None


def _with_source(error: MappingUnsupported, plan: Plan) -> MappingUnsupported:
    """The error with the directory that cannot be mounted, and its file system; reads the disk."""
    found = re.search(r'device mount "([^"]+)"', error.brief)
    device = found[1] if found else ""
    source = plan.devices.get(device, {}).get("source", "")
    kind = file_system_of(source) if source and plan.host.is_local else ""
    return MappingUnsupported(
        f"{source or device or 'a directory'} cannot be mounted into a container: its file system"
        f"{f' ({kind})' if kind else ''} cannot show its files to other user ids",
        details=error.details,
        resolution=f"{'name a state root' if device == SNAPSHOT_DEVICE else 'use a directory'} on"
        " another file system, such as ext4, xfs or btrfs",
    )

"""Checks the way to a host that is not this machine, and what lies at its other end."""

from __future__ import annotations

from collections.abc import AsyncIterator

from orchestrator.contract import contract
from orchestrator.host.doctor import examine_here, examine_incus
from orchestrator.host.row import Row
from orchestrator.hosts import OpenHost
from orchestrator.hosts.remote_check import look_at_remote
from orchestrator.hosts.ssh_trees import FarLook, SshTrees
from orchestrator.state_root import StateRoot
from orchestrator.units import size
from states.errors import PikaciError

LOW_BYTES = 1 << 30
# More is told: people compare the times of logs. No deadline depends on that clock.
CLOCK_SECS = 30


async def examine_from_here(
    there: OpenHost, root: StateRoot, *, machines: bool = False
) -> AsyncIterator[Row]:
    """Check everything that a job on the host needs, here and there."""
    for row in examine_here(root):
        yield row
    async for row in examine_far(there, machines=machines):
        yield row


async def examine_far(there: OpenHost, *, machines: bool = False) -> AsyncIterator[Row]:
    """Check the way to the host first, then its Incus."""
    try:
        if isinstance(there.trees, SshTrees):
            for row in _ssh(await there.trees.look()):
                yield row
        elif there.settings is not None:
            found = await look_at_remote(there.incus, there.host.pool)
            yield Row("ok", "remote", f"{there.incus.remote}, certificate {found.fingerprint[:12]}")
            for warning in found.warnings:
                yield Row("warning", "rights", warning)
    except PikaciError as error:
        yield Row("missing", "connection", error.brief, error.resolution)
        return
    async for row in examine_incus(there.incus, there.host, machines=machines):
        yield row


def _ssh(found: FarLook) -> list[Row]:
    rights = "root" if found.is_root else f"{found.user}, who may use Incus: as good as root"
    rows = [Row("ok", "ssh", f"logs in as {rights}")]
    if abs(found.clock_ahead_secs) > CLOCK_SECS:
        word = "ahead of" if found.clock_ahead_secs > 0 else "behind"
        told = f"its clock is {abs(found.clock_ahead_secs):.0f} s {word} ours"
        rows.append(Row("warning", "clock", told, "there: timedatectl set-ntp true"))
    if not found.directory:
        told = f"for a user with uid {contract().user.uid}, only changes are sent"
        rows.append(Row("ok", "trees", f"volumes: each tree is sent completely; {told}"))
        return rows
    rows += [Row("missing", "ssh", f"{one} is missing there") for one in found.missing]
    room = f"{found.directory}, {size(found.free)} free"
    if found.free < LOW_BYTES:
        rows.append(Row("warning", "directory", room, "pikaci gc; or name another `directory`"))
    else:
        rows.append(Row("ok", "directory", room))
    return rows

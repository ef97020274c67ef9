"""What is asked of Incus for volumes, as effects. Pure, but for the queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from orchestrator.incus import Deadline, Effect, Incus, request
from orchestrator.incus.effect import SHORT_BYTES

# For a call that moves no tree.
SHORT_SECS = 60.0
# For the call that moves one, and for Incus to unpack it.
SEND_SECS = 1800.0


@dataclass(frozen=True)
class Pool:
    """A storage pool of a host; in a cluster, the part of it that is on `member`."""

    name: str
    member: str = ""

    def path(self, volume: str) -> str:
        """Where Incus's API has the volume. Members may each have one of this name."""
        target = f"?target={quote(self.member, safe='')}" if self.member else ""
        return f"{_path(self.name)}/{quote(volume, safe='')}{target}"


class Volume(msgspec.Struct, frozen=True):
    """A custom volume of the project. `used_by` are the instances that have it as a device.

    `location` is the member of a cluster that has it, "none" or "" elsewhere.
    """

    name: str
    config: dict[str, str] = {}
    used_by: tuple[str, ...] = ()
    location: str = ""


async def find_volume(incus: Incus, pool: Pool, name: str) -> Volume:
    """The volume with this name. Raises `VolumeNotFound`, and the errors of `Incus.query`."""
    return await incus.query(pool.path(name), Volume, deadline=Deadline(SHORT_SECS))


async def list_volumes(incus: Incus, pool: Pool) -> list[Volume]:
    """All custom volumes of the project in this pool, on all members of a cluster."""
    path = f"{_path(pool.name)}?recursion=1"
    return await incus.query(path, list[Volume], deadline=Deadline(SHORT_SECS))


def import_volume(incus: Incus, pool: Pool, name: str) -> Effect:
    """Make a volume of the backup that is fed to the command."""
    target = [f"--target={pool.member}"] if pool.member else []
    return Effect(
        name="import volume",
        args=(
            "storage", "volume", "import", "--quiet", *target,
            incus.name(pool.name), "/dev/stdin", name,
        ),
        deadline=Deadline(SEND_SECS),
    )  # fmt: skip


def rename_volume(incus: Incus, pool: Pool, name: str, new: str) -> Effect:
    """Give a volume another name; `NameTaken` if a volume has it."""
    return _request(incus, pool, name, "POST", {"name": new})


def set_volume(incus: Incus, pool: Pool, name: str, config: dict[str, str]) -> Effect:
    """Set some keys of a volume, and leave the others as they are."""
    return _request(incus, pool, name, "PATCH", {"config": config})


def delete_volume(incus: Incus, pool: Pool, name: str) -> Effect:
    """Delete a volume; `VolumeInUse` if an instance has it, running or not."""
    return _request(incus, pool, name, "DELETE")


def _request(incus: Incus, pool: Pool, name: str, method: str, body: Any = None) -> Effect:
    return request(
        incus.path(pool.path(name)),
        method=method,
        body=body,
        deadline=Deadline(SHORT_SECS),
        max_bytes=SHORT_BYTES,
    )


def _path(pool: str) -> str:
    return f"/1.0/storage-pools/{quote(pool, safe='')}/volumes/custom"

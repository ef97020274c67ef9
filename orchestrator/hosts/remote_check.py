"""Looks at an Incus remote: whether jobs can run there, and what else a user should know of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from orchestrator.incus import Deadline, Incus
from orchestrator.incus.errors import NotTrusted, RestrictedProject

LOOK_SECS = 30.0


class _Environment(msgspec.Struct, frozen=True):
    server_version: str = ""
    certificate_fingerprint: str = ""
    server_clustered: bool = False


class _Server(msgspec.Struct, frozen=True):
    auth: str = ""
    environment: _Environment = _Environment()


class _Project(msgspec.Struct, frozen=True):
    config: dict[str, str] = {}


class _Pool(msgspec.Struct, frozen=True):
    driver: str = ""


@dataclass(frozen=True)
class RemoteLook:
    """What a remote says of itself. `warnings` are one line each."""

    version: str
    fingerprint: str
    clustered: bool
    driver: str
    restricted: bool
    warnings: tuple[str, ...]


async def look_at_remote(incus: Incus, pool: str) -> RemoteLook:
    """Ask the remote for all that jobs need of it, in three calls.

    Raises what is wrong, the first thing first: `RemoteMissing`, `DaemonUnreachable`,
    `CertificateChanged`, `NotTrusted`, `ProjectForbidden`, `ProjectNotFound`, `RestrictedProject`,
    `PoolNotFound`.
    """
    deadline = Deadline(LOOK_SECS)
    server = await incus.query("/1.0", _Server, deadline=deadline, in_project=False)
    if server.auth != "trusted":
        raise NotTrusted(
            f"the host of the remote {incus.remote} does not trust our certificate (any more)",
            resolution=NotTrusted.hint,
        )
    path = f"/1.0/projects/{incus.project}"
    project = await incus.query(path, _Project, deadline=deadline, in_project=False)
    disks = project.config.get("restricted.devices.disk", "managed")
    restricted = project.config.get("restricted") == "true"
    if restricted and disks == "block":
        raise RestrictedProject(
            f"the project {incus.project} forbids disks, and so all instances of jobs",
            resolution=f"there: incus project set {incus.project} restricted.devices.disk=managed",
        )
    found = await incus.query(f"/1.0/storage-pools/{pool}", _Pool, deadline=deadline)
    return RemoteLook(
        version=server.environment.server_version,
        fingerprint=server.environment.certificate_fingerprint,
        clustered=server.environment.server_clustered,
        driver=found.driver,
        restricted=restricted,
        warnings=() if restricted and disks == "managed" else (_whole_host(incus),),
    )


def _whole_host(incus: Incus) -> str:
    return (
        f"with {incus.conf}/client.key, anyone can read and write every file on that host, through"
        f" an instance that mounts it; `incus project set {incus.project} restricted=true` there"
        " prevents that, and is enough for jobs"
    )

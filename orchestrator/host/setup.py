"""`pikaci setup`: creates what pikaci needs in Incus, and nothing else.

That is a project, a copy-on-write pool, a profile and the guest image, all pikaci's own. What
exists already is left alone, so a second call does nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from orchestrator.contract import contract
from orchestrator.host.machines import machine_needs
from orchestrator.host.quotas import mount_of, use_simple_quotas
from orchestrator.image.build import build, only_builder, recipe, sources_of
from orchestrator.image.debian import NotDebian
from orchestrator.image.layer import BARE, RECIPE_PROPERTY, Kind
from orchestrator.image.store import Image, import_image, list_images
from orchestrator.incus import Deadline, Effect, Host, Incus, stdin_of
from orchestrator.incus.errors import LeftByEarlierDaemon, NameTaken, PoolNotFound
from orchestrator.units import size
from states.errors import PikaciError

CALL_SECS = 120.0
PROFILE = "pikaci"
GIB = 1 << 30
MAX_POOL_BYTES = 40 * GIB
MIN_POOL_BYTES = 4 * GIB
# Drivers that clone an image without copying its bytes, best first.
COPY_ON_WRITE = ("btrfs", "zfs")
DEV_IMAGE = BARE.alias

Say = Callable[[str], None]


async def setup(incus: Incus, host: Host, *, say: Say, kinds: Sequence[Kind] = (BARE,)) -> bool:
    """Create what is missing, and `say` each step. True if anything was missing.

    `kinds` are the guest images to create.
    """
    changed = False
    if host.project not in await _names(incus, "projects"):
        say(f"creating the project {host.project}")
        features = ("features.images=true", "features.profiles=true")
        options = [word for feature in features for word in ("--config", feature)]
        await incus.perform(_effect("project create", incus.name(host.project), *options))
        changed = True
    if not await _has_pool(incus, host.pool):
        await _make_pool(incus, host, say)
        changed = True
    # Also of a pool that somebody else has just made. A remote daemon's is not on this machine.
    if incus.host.is_local and await use_simple_quotas(host.pool):
        say(f"turned on simple quotas in the storage pool {host.pool}")
        changed = True
    if PROFILE not in await _names(incus, "profiles", in_project=True):
        say(f"creating the profile {PROFILE}")
        await _make_profile(incus, host)
        changed = True
    await _tell_needs(incus, host, say)
    for kind in kinds:
        changed = await ensure_image(incus, say=say, kind=kind) or changed
    return changed


async def missing(incus: Incus, host: Host, kinds: Sequence[Kind] = (BARE,)) -> list[str]:
    """What `setup` would create on the host, in words; it changes nothing."""
    found: list[str] = []
    there = host.project in await _names(incus, "projects")
    if not there:
        found.append(f"the project {host.project}")
    if not await _has_pool(incus, host.pool, in_project=there):
        found.append(f"the storage pool {host.pool} ({await _driver(incus)})")
    if not there or PROFILE not in await _names(incus, "profiles", in_project=True):
        found.append(f"the profile {PROFILE}")
    found += [
        f"the guest image {kind.alias}, built on this machine and sent there"
        for kind in kinds
        if not there or not await _has_image(incus, kind)
    ]
    return found


async def _tell_needs(incus: Incus, host: Host, say: Say) -> None:
    """Say what virtual machines lack on a host that makes them: a job would find out."""
    path, deadline = f"/1.0/storage-pools/{quote(host.pool)}", Deadline(CALL_SECS)
    pool = await incus.query(path, _Pool, deadline=deadline, in_project=False)
    async for row in machine_needs(incus, pool.driver, wanted=False):
        if row.state != "ok":
            say(f"warning: {row.subject}: {row.found}: {row.remedy}")


async def ensure_image(incus: Incus, *, say: Say, kind: Kind = BARE) -> bool:
    """Build and import the guest image of this kind, unless the existing one is good enough.

    It is if it was built from the current recipe. An image built by others, or on a machine that
    cannot build images, only needs our contract version. True if it was built.
    """
    if await _has_image(incus, kind):
        return False
    async with only_builder(say=say):
        if await _has_image(incus, kind):  # the build that we waited for made it
            return False
        await _build_and_import(incus, say, kind)
        return True


async def _has_image(incus: Incus, kind: Kind) -> bool:
    image = next((i for i in await list_images(incus) if i.has_alias(kind.alias)), None)
    return image is not None and _is_current(image, kind)


def _is_current(image: Image, kind: Kind) -> bool:
    ours = image.contract == str(contract().version)
    made_by = image.properties.get(RECIPE_PROPERTY)
    if made_by is None:
        return ours
    try:
        return made_by == recipe(sources_of(kind), kind)
    except NotDebian:
        return ours


async def build_and_import(incus: Incus, *, say: Say, kind: Kind = BARE) -> str:
    """Build the guest image, replace the previous one, and return the fingerprint."""
    async with only_builder(say=say):
        return await _build_and_import(incus, say, kind)


async def _build_and_import(incus: Incus, say: Say, kind: Kind) -> str:
    with tempfile.TemporaryDirectory(prefix="pikaci-image-") as directory:
        files = await build(Path(directory), say=say, kind=kind)
        say(f"importing it as {kind.alias}")
        return await import_image(incus, files, kind.alias)


class _Named(msgspec.Struct):
    name: str


class _Pool(msgspec.Struct):
    driver: str


async def _names(incus: Incus, kind: str, *, in_project: bool = False) -> set[str]:
    path = f"/1.0/{kind}?recursion=1"
    deadline = Deadline(CALL_SECS)
    rows = await incus.query(path, list[_Named], deadline=deadline, in_project=in_project)
    return {row.name for row in rows}


async def _has_pool(incus: Incus, pool: str, *, in_project: bool = True) -> bool:
    """Whether there is the pool; whose certificate is for one project may not list pools."""
    try:
        path = f"/1.0/storage-pools/{quote(pool)}"
        await incus.query(path, _Named, deadline=Deadline(CALL_SECS), in_project=in_project)
    except PoolNotFound:
        return False
    return True


def _effect(words: str, *args: str, stdin: bytes | None = None, in_project: bool = False) -> Effect:
    """A command that creates something; Incus refuses it the second time."""
    return Effect(
        name=words,
        args=(*words.split(), *args),
        deadline=Deadline(CALL_SECS),
        in_project=in_project,
        stdin=None if stdin is None else stdin_of(lambda: stdin),
    )


async def _make_pool(incus: Incus, host: Host, say: Say) -> None:
    driver = await _driver(incus)
    options: list[str] = []
    if driver in COPY_ON_WRITE and incus.host.is_local:
        room = min(MAX_POOL_BYTES, shutil.disk_usage("/var/lib").free // 2)
        if room < MIN_POOL_BYTES:
            raise PikaciError(
                f"half of the free disk space, {size(room)}, is too little for a storage pool",
                resolution=f"free some space, or create the pool yourself: incus storage create"
                f" {host.pool} btrfs source=/dev/...",
            )
        options = [f"size={room // GIB}GiB"]
    elif driver not in COPY_ON_WRITE:
        say("warning: no copy-on-write storage; every job will unpack its image (seconds)")
        say("         install btrfs-progs, restart Incus, and run `pikaci setup` again")
    say(f"creating the storage pool {host.pool} ({driver} {' '.join(options)})".rstrip())
    create = _effect("storage create", incus.name(host.pool), driver, *options)
    try:
        await incus.perform(create)
    except LeftByEarlierDaemon:
        # The failed attempt made Incus delete the leftover disk file.
        say("a removed Incus left such a pool behind; trying again")
        await incus.perform(create)
    if driver == "btrfs" and not incus.host.is_local:
        # Only root can, on that machine.
        say("hint: with simple quotas a pool stays fast; there, as root:")
        say(f"      btrfs quota enable --simple {mount_of(host.pool)}")


class _Driver(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name")


class _Environment(msgspec.Struct, frozen=True):
    storage_supported_drivers: tuple[_Driver, ...] = ()


class _Server(msgspec.Struct):
    environment: _Environment = _Environment()


async def _driver(incus: Incus) -> str:
    deadline = Deadline(CALL_SECS)
    server = await incus.query("/1.0", _Server, deadline=deadline, in_project=False)
    supported = {driver.name for driver in server.environment.storage_supported_drivers}
    return next((driver for driver in COPY_ON_WRITE if driver in supported), "dir")


async def _make_profile(incus: Incus, host: Host) -> None:
    """Create the profile for guests launched by hand; jobs do not use it."""
    document = msgspec.json.encode(
        {
            "description": "A guest of pikaci: a root disk, no network",
            "devices": {"root": {"type": "disk", "path": "/", "pool": host.pool}},
        }
    )
    try:
        await incus.perform(
            _effect("profile create", incus.name(PROFILE), stdin=document, in_project=True)
        )
    except NameTaken:
        pass  # another setup has just created it

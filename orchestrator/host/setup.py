"""`pikaci setup`: creates what pikaci needs in Incus, and nothing else.

That is a project, a copy-on-write pool, a profile and the guest image, all pikaci's own. What
exists already is left alone, so a second call does nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from orchestrator.attempt.plan import Host
from orchestrator.contract import contract
from orchestrator.image.build import build, only_builder, recipe
from orchestrator.image.debian import NotDebian, debian_sources
from orchestrator.image.layer import BARE, RECIPE_PROPERTY, Kind
from orchestrator.image.store import Image, import_image, list_images
from orchestrator.incus import Deadline, Effect, Incus, stdin_of
from orchestrator.incus.errors import LeftByEarlierDaemon, NameTaken
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


async def setup(incus: Incus, host: Host, *, say: Say) -> bool:
    """Create what is missing, and `say` each step. True if anything was missing."""
    changed = False
    if host.project not in await _names(incus, "projects"):
        say(f"creating the project {host.project}")
        features = ("features.images=true", "features.profiles=true")
        options = [word for feature in features for word in ("--config", feature)]
        await incus.perform(_effect("project create", incus.name(host.project), *options))
        changed = True
    if host.pool not in await _names(incus, "storage-pools"):
        await _make_pool(incus, host, say)
        changed = True
    if PROFILE not in await _names(incus, "profiles", in_project=True):
        say(f"creating the profile {PROFILE}")
        await _make_profile(incus, host)
        changed = True
    return await ensure_image(incus, say=say) or changed


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
        return made_by == recipe(debian_sources(), kind)
    except NotDebian:
        return ours


async def build_and_import(incus: Incus, *, say: Say, kind: Kind = BARE) -> str:
    """Build the guest image, replace the previous one, and return the fingerprint."""
    async with only_builder(say=say):
        return await _build_and_import(incus, say, kind)


async def _build_and_import(incus: Incus, say: Say, kind: Kind) -> str:
    with tempfile.TemporaryDirectory(prefix="pikaci-image-") as directory:
        file = await build(Path(directory), say=say, kind=kind)
        say(f"importing it as {kind.alias}")
        return await import_image(incus, [file], kind.alias)


class _Named(msgspec.Struct):
    name: str


async def _names(incus: Incus, kind: str, *, in_project: bool = False) -> set[str]:
    path = f"/1.0/{kind}?recursion=1"
    deadline = Deadline(CALL_SECS)
    rows = await incus.query(path, list[_Named], deadline=deadline, in_project=in_project)
    return {row.name for row in rows}


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
    if driver in COPY_ON_WRITE:
        room = min(MAX_POOL_BYTES, shutil.disk_usage("/var/lib").free // 2)
        if room < MIN_POOL_BYTES:
            raise PikaciError(
                f"half of the free disk space, {size(room)}, is too little for a storage pool",
                resolution=f"free some space, or create the pool yourself: incus storage create"
                f" {host.pool} btrfs source=/dev/...",
            )
        options = [f"size={room // GIB}GiB"]
    else:
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
    if driver == "btrfs":
        await _use_simple_quotas(host.pool)


async def _use_simple_quotas(pool: str) -> None:
    """Turn on btrfs's simple quotas, before Incus turns on full ones, which count shared bytes.

    A guest shares its image's extents with all other guests. With full quotas, btrfs looks at every
    sharer when a guest is deleted: after a few hundred guests a create takes seconds. Limits are
    enforced either way. Where this fails (Linux before 6.7, a remote daemon), Incus turns on full
    quotas when it sets the first limit.
    """
    mounted = Path(os.environ.get("INCUS_DIR", "/var/lib/incus"), "storage-pools", pool)
    with contextlib.suppress(OSError), trio.move_on_after(CALL_SECS):
        await trio.run_process(
            ["btrfs", "quota", "enable", "--simple", str(mounted)],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


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

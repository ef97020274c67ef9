"""`pikaci setup`: makes, in the daemon that answers, what pikaci needs there; nothing else.

A project, a copy-on-write pool, a profile and the guest image, all of our own. Whatever is there
already is left as it is, so that a second call does nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from orchestrator.image.build import RECIPE_PROPERTY, build, recipe
from orchestrator.image.debian import NotDebian, debian_sources
from orchestrator.image.store import import_image, list_images
from orchestrator.incus import Incus
from orchestrator.incus_errors import IncusError
from orchestrator.plan import Host
from states.errors import PikaciError
from states.spec import JobSpec

CALL_SECS = 120.0
PROFILE = "pikaci"
GIB = 1 << 30
MAX_POOL_BYTES = 40 * GIB
MIN_POOL_BYTES = 4 * GIB
# Those that copy an image without copying its bytes, the best first.
COPY_ON_WRITE = ("btrfs", "zfs")
DEV_IMAGE = JobSpec(command="true").image

Say = Callable[[str], None]


async def setup(incus: Incus, host: Host, *, say: Say) -> bool:
    """Make what is missing, telling `say` of each step; whether anything was."""
    changed = False
    if host.project not in await _names(incus, "projects"):
        say(f"making the project {host.project}")
        features = ("features.images=true", "features.profiles=true")
        options = [word for feature in features for word in ("--config", feature)]
        await incus.run_global(
            "project", "create", incus.name(host.project), *options, deadline_secs=CALL_SECS
        )
        changed = True
    if host.pool not in await _names(incus, "storage-pools"):
        await _make_pool(incus, host, say)
        changed = True
    if PROFILE not in await _names(incus, "profiles", f"&project={quote(host.project)}"):
        say(f"making the profile {PROFILE}")
        await _make_profile(incus, host)
        changed = True
    return await ensure_image(incus, say=say) or changed


async def ensure_image(incus: Incus, *, say: Say) -> bool:
    """Build and import the guest image, unless the one that is there has the same recipe."""
    images = [image for image in await list_images(incus) if image.has_alias(DEV_IMAGE)]
    try:
        wanted = recipe(debian_sources())
    except NotDebian:
        if images:
            return False  # somebody brought it; it cannot be made anew here
        raise
    if images and images[0].properties.get(RECIPE_PROPERTY) == wanted:
        return False
    await build_and_import(incus, say=say)
    return True


async def build_and_import(incus: Incus, *, say: Say) -> str:
    """Build the guest image, and put it in the place of the one before; its fingerprint."""
    with tempfile.TemporaryDirectory(prefix="pikaci-image-") as directory:
        file = await build(Path(directory), say=say)
        say(f"importing it as {DEV_IMAGE}")
        return await import_image(incus, file, DEV_IMAGE)


async def _names(incus: Incus, kind: str, more: str = "") -> set[str]:
    done = await incus.run_global(
        "query", f"{incus.remote}:/1.0/{kind}?recursion=1{more}", deadline_secs=CALL_SECS
    )
    # Where there is none at all, the command prints nothing.
    rows = msgspec.json.decode(done.stdout or b"[]", type=list[dict[str, Any]])
    return {row["name"] for row in rows}


async def _make_pool(incus: Incus, host: Host, say: Say) -> None:
    driver = await _driver(incus)
    options: list[str] = []
    if driver in COPY_ON_WRITE:
        size = min(MAX_POOL_BYTES, shutil.disk_usage("/var/lib").free // 2)
        if size < MIN_POOL_BYTES:
            raise PikaciError(
                f"half of the free disk, {size // GIB} GiB, is too little for a storage pool",
                resolution=f"free some disk, or make the pool yourself: incus storage create"
                f" {host.pool} btrfs source=/dev/...",
            )
        options = [f"size={size // GIB}GiB"]
    else:
        say("warning: no copy-on-write storage; every job will unpack its image (seconds)")
        say("         install btrfs-progs, restart Incus, and run `pikaci setup` anew")
    say(f"making the storage pool {host.pool} ({driver} {' '.join(options)})".rstrip())
    await incus.run_global(
        "storage", "create", incus.name(host.pool), driver, *options, deadline_secs=CALL_SECS
    )


async def _driver(incus: Incus) -> str:
    done = await incus.run_global("query", f"{incus.remote}:/1.0", deadline_secs=CALL_SECS)
    server: dict[str, Any] = msgspec.json.decode(done.stdout)
    drivers = server.get("environment", {}).get("storage_supported_drivers", [])
    supported = {driver["Name"] for driver in drivers}
    return next((driver for driver in COPY_ON_WRITE if driver in supported), "dir")


async def _make_profile(incus: Incus, host: Host) -> None:
    """For whoever launches a guest by hand; a job's plan names its devices itself."""
    document = msgspec.json.encode(
        {
            "description": "A guest of pikaci: a root disk, no network",
            "devices": {"root": {"type": "disk", "path": "/", "pool": host.pool}},
        }
    )
    try:
        await incus.run(
            "profile", "create", incus.name(PROFILE), stdin=document, deadline_secs=CALL_SECS
        )
    except IncusError as error:
        if "already exists" not in error.details:
            raise

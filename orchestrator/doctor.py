"""`pikaci doctor`: what is missing, in plain words, and what to type. It changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from orchestrator.contract import contract
from orchestrator.image.store import find_image
from orchestrator.incus import Incus
from orchestrator.plan import Host
from orchestrator.settings import StateRoot
from orchestrator.setup import DEV_IMAGE
from states.errors import PikaciError

CALL_SECS = 20.0
LOW_POOL_SHARE = 0.1
# Below these a machine runs about 16 guests with an init system; beyond, they die at start.
SYSCTLS = {
    "fs/inotify/max_user_instances": 8192,
    "kernel/keys/maxkeys": 20_000,
    "kernel/keys/maxbytes": 2_000_000,
}


class Row(msgspec.Struct, frozen=True):
    """One thing that was looked at; `remedy` is what to type when it is not `ok`."""

    state: Literal["ok", "warning", "missing"]
    subject: str
    found: str
    remedy: str = ""


async def examine(incus: Incus, host: Host, root: StateRoot) -> AsyncIterator[Row]:
    """Look at everything a job needs, in the order in which it needs it."""
    yield _command("git", "apt-get install git")
    yield _state_root(root)
    command = _command(incus.program, "apt-get install incus-client, or `make setup`")
    yield command
    if command.state == "missing":
        return
    try:
        server = await _query(incus, "/1.0")
    except PikaciError as error:
        yield Row("missing", "daemon", error.brief, error.resolution or "`make setup`")
        return
    version = server.get("environment", {}).get("server_version", "of unknown version")
    if server.get("auth") != "trusted":
        yield Row("missing", "permission", "the daemon does not trust you", "be root, or join"
                  " the group incus-admin (as good as root)")  # fmt: skip
        return
    yield Row("ok", "daemon", f"Incus {version} answers on {incus.remote}")
    for row in (await _project(incus, host), await _pool(incus, host), await _image(incus)):
        yield row
    for row in _sysctls():
        yield row


def _command(name: str, remedy: str) -> Row:
    found = shutil.which(name)
    if found:
        return Row("ok", f"command {name}", found)
    return Row("missing", f"command {name}", "not on PATH", remedy)


def _state_root(root: StateRoot) -> Row:
    above = next(path for path in (root.path, *root.path.parents) if path.exists())
    if above.is_dir() and os.access(above, os.W_OK):
        return Row("ok", "state root", str(root.path))
    return Row(
        "missing", "state root", f"{above} cannot be written to", "name another with --state-root"
    )


async def _query(incus: Incus, path: str) -> dict[str, Any]:
    done = await incus.run_global("query", f"{incus.remote}:{path}", deadline_secs=CALL_SECS)
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return answer


async def _project(incus: Incus, host: Host) -> Row:
    try:
        await _query(incus, f"/1.0/projects/{quote(host.project)}")
    except PikaciError:
        return Row("missing", "project", f"there is no project {host.project}", "pikaci setup")
    return Row("ok", "project", host.project)


async def _pool(incus: Incus, host: Host) -> Row:
    try:
        pool = await _query(incus, f"/1.0/storage-pools/{quote(host.pool)}")
        space = (await _query(incus, f"/1.0/storage-pools/{quote(host.pool)}/resources"))["space"]
    except PikaciError:
        return Row("missing", "storage pool", f"there is no pool {host.pool}", "pikaci setup")
    free, total = space["total"] - space["used"], space["total"]
    found = f"{host.pool} ({pool['driver']}), {free >> 30} of {total >> 30} GiB free"
    if free < LOW_POOL_SHARE * total:
        return Row("warning", "storage pool", found, "pikaci gc; incus storage set ... size=...")
    if pool["driver"] == "dir":
        return Row("warning", "storage pool", f"{found}; every job unpacks its image",
                   "install btrfs-progs, restart Incus, make the pool anew")  # fmt: skip
    return Row("ok", "storage pool", found)


async def _image(incus: Incus) -> Row:
    try:
        image = await find_image(incus, DEV_IMAGE)
    except PikaciError as error:
        return Row("missing", "guest image", error.brief, "pikaci setup")
    return Row(
        "ok",
        "guest image",
        f"{DEV_IMAGE} {image.fingerprint[:12]}, contract {contract().version}",
    )


def _sysctls() -> list[Row]:
    rows = []
    for name, wanted in SYSCTLS.items():
        dotted = name.replace("/", ".")
        try:
            value = int(Path("/proc/sys", name).read_text())
        except (OSError, ValueError):
            continue
        if value < wanted:
            remedy = f"sysctl -w {dotted}={wanted}"
            rows.append(Row("warning", "sysctl", f"{dotted} is {value}", remedy))
    return rows or [Row("ok", "sysctls", "enough for many guests")]

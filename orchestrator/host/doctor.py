"""`pikaci doctor`: says what is missing, and what to type. It changes nothing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import msgspec
import trio

from orchestrator.contract import contract
from orchestrator.host.daemon_size import daemon_size
from orchestrator.host.lxcfs import stop_row
from orchestrator.host.machines import machine_needs
from orchestrator.host.quotas import mount_of, quotas_of
from orchestrator.host.row import Row
from orchestrator.host_paths import file_system_of
from orchestrator.image.disk import missing_tools
from orchestrator.image.layer import BARE, Kind
from orchestrator.image.machine import VM
from orchestrator.image.store import find_image
from orchestrator.incus import LOCAL, Deadline, Host, Incus
from orchestrator.incus.errors import DaemonUnreachable, PoolNotFound, ProjectNotFound
from orchestrator.journal import JobUnreadable, JournalDamaged, JournalError
from orchestrator.journal.file import connect_to_read
from orchestrator.journal.migrations import check
from orchestrator.journal.reader import JournalReader
from orchestrator.state_root import StateRoot
from orchestrator.units import size
from states.errors import PikaciError
from states.spec import InstanceType

_T = TypeVar("_T")

CALL_SECS = 20.0
LOW_POOL_SHARE = 0.1
LOW_DISK_BYTES = 1 << 30
MAX_SHOWN = 3
TRIED = (6, 0)  # what pikaci is tried with, and newer
# File systems that Incus cannot show to a container's user ids (tried: Incus 6.0.4, Linux 6).
UNMAPPED = frozenset({"overlay"})
NOTHING: Mapping[str, str] = {}
# With lower values a host runs about 16 guests with an init system; more die at start.
SYSCTLS = {
    "fs/inotify/max_user_instances": 8192,
    "kernel/keys/maxkeys": 20_000,
    "kernel/keys/maxbytes": 2_000_000,
}

USER_IDS = {"uid": Path("/etc/subuid"), "gid": Path("/etc/subgid")}


async def examine(
    incus: Incus,
    host: Host,
    root: StateRoot,
    mounted: Mapping[str, str] = NOTHING,
    *,
    machines: bool = False,
) -> AsyncIterator[Row]:
    """Check everything that a job needs, in the order in which it needs it.

    `mounted` are the host directories that jobs mount, each by its key in the job file. With
    `machines`, a job runs in a virtual machine; otherwise what those lack is only a warning.
    """
    for row in examine_here(root, mounted):
        yield row
    async for row in examine_incus(incus, host, machines=machines):
        yield row


def examine_here(root: StateRoot, mounted: Mapping[str, str] = NOTHING) -> Iterator[Row]:
    """Check what jobs need on this machine, wherever their guests run. Blocks on the disk."""
    yield _command("git", "apt-get install git")
    yield _state_root(root)
    yield from _mounts(mounted)
    yield _journal(root)


async def examine_incus(incus: Incus, host: Host, *, machines: bool = False) -> AsyncIterator[Row]:
    """Check the host's Incus, and what of it is pikaci's."""
    command = _command(incus.program, "apt-get install incus-client, or `make setup`")
    yield command
    if command.state == "missing":
        return
    try:
        server = await _query(incus, "/1.0", _Server)
    except DaemonUnreachable as error:
        start = "systemctl start incus; or, in a checkout of pikaci, make setup"
        yield Row("missing", "daemon", error.brief, start)
        return
    except PikaciError as error:
        yield Row("missing", "daemon", error.brief, error.resolution)
        return
    version = server.environment.server_version
    if server.auth != "trusted":
        yield Row("missing", "permission", "the daemon does not trust you", "be root, or join"
                  " the group incus-admin (as good as root)")  # fmt: skip
        return
    name = host.remote if host.name == LOCAL else host.name
    yield _daemon(version, name)
    if incus.host.is_local and (row := daemon_size(server.environment.server_pid)):
        yield row
    yield await _project(incus, host)
    driver, pool = await _pool(incus, host)
    yield pool
    yield await _image(incus)
    async for row in machine_needs(incus, driver, wanted=machines):
        yield row
    if machines:
        yield await _image(incus, VM)
    if incus.host.is_local:
        yield subordinate_ids("root", USER_IDS)
        if row := stop_row():
            yield row
        for row in _sysctls():
            yield row


def _daemon(version: str, name: str) -> Row:
    told = f"Incus {version} answers on {name}"
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) >= TRIED:
        return Row("ok", "daemon", told)
    told += "; it is older than 6.0, and jobs may fail there"
    return Row("warning", "daemon", told, "install Incus 6.0 or newer there")


def _command(name: str, remedy: str) -> Row:
    found = shutil.which(name)
    if found:
        return Row("ok", f"command {name}", found)
    return Row("missing", f"command {name}", "not on PATH", remedy)


def _state_root(root: StateRoot) -> Row:
    above = next(path for path in (root.path, *root.path.parents) if os.path.exists(path))
    if not (above.is_dir() and os.access(above, os.W_OK)):
        return Row("missing", "state root", f"{above} cannot be written to",
                   "name another with --state-root")  # fmt: skip
    free = shutil.disk_usage(above).free
    found = f"{root.path}, {size(free)} free"
    if (kind := file_system_of(str(root.path))) in UNMAPPED:
        found = f"{root.path} is on {kind}, which no container can mount"
        remedy = "name one on another file system with --state-root"
        return Row("missing", "state root", found, remedy)
    if free < LOW_DISK_BYTES:
        return Row("warning", "state root", found, "pikaci gc --keep 5")
    return Row("ok", "state root", found)


def _mounts(mounted: Mapping[str, str]) -> Iterator[Row]:
    """The rows for directories that Incus cannot mount into a container."""
    for key, path in mounted.items():
        if (kind := file_system_of(path)) in UNMAPPED:
            found = f"{key}: {path} is on {kind}, which no container can mount"
            yield Row("missing", "mount", found, "use a directory on another file system")


def _journal(root: StateRoot) -> Row:
    """Check whether every job can be read. Writes nothing."""
    if not os.path.exists(root.journal):
        return Row("ok", "journal", "none yet; the first run creates it")
    while True:
        before = root.journal.stat()
        row = _read_journal(root)
        # Reading takes no lock: a journal that looks damaged may just have changed. Then read it
        # again.
        if row.state != "damaged" or root.journal.stat().st_mtime_ns == before.st_mtime_ns:
            return row


def _read_journal(root: StateRoot) -> Row:
    path = root.journal
    problems: list[JournalError] = []
    unreadable: list[str] = []
    jobs = readable = 0
    try:
        with closing(JournalReader(partial(connect_to_read, path), path)) as journal:
            for row in journal.jobs():
                jobs += 1
                try:
                    journal.job(row.id)
                    readable += 1
                except JobUnreadable as error:
                    unreadable.append(f"{row.id}: {error.problem}")
                except JournalDamaged as error:
                    problems.append(error)
            journal.open_leases()
        with closing(connect_to_read(path)) as connection:
            check(connection, path)
    except JournalDamaged as error:
        problems.append(error)
    except JournalError as error:
        return Row("missing", "journal", error.brief, error.resolution)
    if not problems and not unreadable:
        return Row("ok", "journal", f"{jobs} jobs")
    saved = f"{readable} of {jobs} jobs can be read" if jobs else "no job can be read"
    if not problems:
        return _some_unreadable(unreadable, saved)
    aside = root.path / "damaged"
    return Row(
        "damaged",
        "journal",
        f"{problems[0].brief}; {saved}",
        f"see {root.path / 'jobs'} for logs and artifacts: they are unchanged\n"
        + ("pikaci trace export JOB > FILE, for each job that can be read\n" if readable else "")
        + f"mkdir {shlex.quote(str(aside))} && mv {shlex.quote(str(path))}*"
        f" {shlex.quote(str(aside))}; the next run creates a new journal\n"
        "pikaci reap --expired, once the deadlines of its instances are past",
    )


def _some_unreadable(unreadable: list[str], saved: str) -> Row:
    """The row for a journal in which only some jobs cannot be read."""
    shown = "; ".join(unreadable[:MAX_SHOWN])
    more = ", and more" if len(unreadable) > MAX_SHOWN else ""
    return Row(
        "damaged",
        "journal",
        f"{shown}{more}; {saved}",
        "nothing else is affected: other jobs run, and their runs are listed and cleaned up\n"
        "for jobs of a newer pikaci, use that pikaci\n"
        "pikaci gc --damaged, to delete damaged jobs that nobody needs",
    )


class _Environment(msgspec.Struct, frozen=True):
    server_version: str = "of unknown version"
    server_pid: int = 0


class _Server(msgspec.Struct):
    auth: str = ""
    environment: _Environment = _Environment()


class _Space(msgspec.Struct):
    total: int
    used: int


class _Resources(msgspec.Struct):
    space: _Space


class _Pool(msgspec.Struct):
    driver: str


async def _query(incus: Incus, path: str, kind: type[_T], *, in_project: bool = False) -> _T:
    return await incus.query(path, kind, deadline=Deadline(CALL_SECS), in_project=in_project)


async def _project(incus: Incus, host: Host) -> Row:
    try:
        await _query(incus, f"/1.0/projects/{quote(host.project)}", msgspec.Raw)
    except ProjectNotFound:
        return Row("missing", "project", f"there is no project {host.project}", "pikaci setup")
    except PikaciError as error:
        return Row("missing", "project", error.brief, error.resolution)
    return Row("ok", "project", host.project)


async def _pool(incus: Incus, host: Host) -> tuple[str, Row]:
    """The pool's driver, empty if there is none, and its row."""
    try:
        path = f"/1.0/storage-pools/{quote(host.pool)}"
        # A certificate may be for the project alone; and a project that is missing has its own row.
        inside = incus.remote != LOCAL
        pool = await _query(incus, path, _Pool, in_project=inside)
        space = (await _query(incus, f"{path}/resources", _Resources, in_project=inside)).space
    except PoolNotFound:
        return "", Row("missing", "storage pool", f"there is no pool {host.pool}", "pikaci setup")
    except PikaciError as error:
        return "", Row("missing", "storage pool", error.brief, error.resolution)
    return pool.driver, await _pool_row(incus, host, pool.driver, space)


async def _pool_row(incus: Incus, host: Host, driver: str, space: _Space) -> Row:
    free, total = space.total - space.used, space.total
    mount = mount_of(host.pool)
    found = f"{host.pool} ({driver}), {size(free)} of {size(total)} free"
    if free < LOW_POOL_SHARE * total:
        grow = f"incus storage set {host.pool} size={(total >> 30) * 2}GiB"
        return Row("warning", "storage pool", found, f"pikaci gc; or, with disk to spare: {grow}")
    if driver == "dir":
        return Row("warning", "storage pool", f"{found}; every job unpacks its image",
                   "install btrfs-progs, restart Incus, recreate the pool")  # fmt: skip
    if incus.host.is_local and await trio.to_thread.run_sync(quotas_of, mount) == "full":
        return Row(
            "warning",
            "storage pool",
            f"{found}; full quotas: creates take seconds after some hundred guests",
            f"without guests: btrfs quota disable {mount} && btrfs quota enable --simple {mount}",
        )
    return Row("ok", "storage pool", found)


async def _image(incus: Incus, kind: Kind = BARE) -> Row:
    of_machine = InstanceType.VIRTUAL_MACHINE if kind.machine else InstanceType.CONTAINER
    try:
        image = await find_image(incus, kind.alias, of_machine)
    except PikaciError as error:
        packages = [] if shutil.which("mmdebstrap") else ["mmdebstrap"]
        packages += missing_tools().values() if kind.machine else ()
        tools = f"apt-get install {' '.join(packages)}; " if packages else ""
        # A job may name another image, but not run without one.
        state: Literal["warning", "missing"] = "warning" if kind.machine else "missing"
        command = "pikaci setup --vm" if kind.machine else "pikaci setup"
        return Row(state, "guest image", error.brief, tools + command)
    return Row(
        "ok",
        "guest image",
        f"{kind.alias} {image.fingerprint[:12]}, contract {contract().version}.{image.minor}",
    )


def subordinate_ids(user: str, files: Mapping[str, Path]) -> Row:
    """Check whether the daemon's user has ids for guests; `files` are subuid and subgid."""
    least = 65_536
    for kind, path in files.items():
        try:
            entries = [line.split(":") for line in path.read_text().splitlines()]
        except FileNotFoundError:
            continue  # Incus then picks a range itself
        if not any(
            len(entry) == 3 and entry[0] in (user, "0") and int(entry[2]) >= least
            for entry in entries
        ):
            return Row(
                "missing",
                "guests' ids",
                f"{path} gives {user} fewer than {least} ids",
                f"usermod --add-sub{kind}s 1000000-1000999999 {user}, and restart Incus",
            )
    return Row("ok", "guests' ids", f"{user} has enough")


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

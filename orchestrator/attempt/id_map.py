"""Ids of the host for one guest alone.

The kernel counts descriptors in flight, pipe buffers, locked memory and epoll watches for a uid of
the host. Incus gives all containers one map of ids, so one guest's user can use up what the users
of all others have. A guest with a map of its own uses up its own.

Incus takes a map that another guest has already, and gives one map to guests that are made at the
same time. So the map comes from the instance's name, which nearly always makes it another one, and
who has it is looked up once the instance is made: of two guests with one map, at least the one that
looks later sees the other. That is done while the guest boots, and costs no time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from orchestrator.incus import Deadline, Incus, Retry
from orchestrator.incus.errors import DaemonUnreachable, OutcomeUnknown

# A guest's own rootless containers have the ids from 100,000 on.
MAP_SIZE = 1 << 18
# With fewer, names would meet too often.
MIN_MAPS = 1024
LIST_SECS = 60.0


class IdRange(msgspec.Struct, frozen=True):
    """The ids of the host that Incus may give to guests: `size` of them from `base` on."""

    base: int
    size: int


def local_id_range(remote: str) -> IdRange | None:
    """The range of this host's Incus; None when it is not known, or too small. It reads files.

    A guest without a map of its own has all of it.
    """
    # Both say that the daemon may be another host's, whose files are not here.
    if remote != "local" or "INCUS_SOCKET" in os.environ:
        return None
    try:
        # In a container, the ids that the files name need not be there.
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            return None
        return id_range(Path("/etc/subuid").read_text(), Path("/etc/subgid").read_text())
    except (OSError, ValueError):
        return None


def id_range(subuid: str, subgid: str) -> IdRange | None:
    """Root's one range, of uids and gids, if it is large. `ValueError` for other files."""
    uids, gids = _of_root(subuid), _of_root(subgid)
    if len(uids) != 1 or uids != gids or uids[0].size < MIN_MAPS * MAP_SIZE:
        return None
    return uids[0]


def _of_root(text: str) -> list[IdRange]:
    lines = (line.split(":") for line in text.splitlines() if line.startswith(("root:", "0:")))
    return [IdRange(int(base), int(size)) for _, base, size in lines]


def id_map_config(ids: IdRange, instance: str) -> dict[str, str]:
    """Incus's settings that give the instance a map of its own.

    The first map of the range is none of them: its ids are those of guests that have no own map.
    """
    digest = hashlib.sha256(instance.encode()).digest()
    number = 1 + int.from_bytes(digest[:8], "big") % (ids.size // MAP_SIZE - 1)
    return {
        "security.idmap.isolated": "true",
        "security.idmap.base": str(ids.base + number * MAP_SIZE),
        "security.idmap.size": str(MAP_SIZE),
    }


class _Instance(msgspec.Struct):
    name: str
    project: str
    config: dict[str, str]
    expanded_config: dict[str, str] = {}

    def meets(self, base: int) -> bool:
        """Whether its own map has ids of the map that begins at `base`."""
        if self.expanded_config.get("security.idmap.isolated") != "true":
            return False
        size = self.expanded_config.get("security.idmap.size", "auto")
        try:
            first = int(self.config["volatile.idmap.base"])
            last = first + (65536 if size == "auto" else int(size))
        except (KeyError, ValueError):
            return False
        return first < base + MAP_SIZE and base < last


async def find_same_ids(
    incus: Incus, instance: str, config: dict[str, str], *, daemon_secs: float
) -> str:
    """Another instance of the host with ids of this one's own map; "" when there is none.

    `config` is that of the instance, which is there. Errors are those of `Incus.query`.
    """
    instances = await incus.query(
        "/1.0/instances?recursion=1&all-projects=true",
        list[_Instance],
        deadline=Deadline(LIST_SECS),
        retry=Retry(on=(DaemonUnreachable, OutcomeUnknown), secs=daemon_secs),
        in_project=False,
    )
    base = int(config["security.idmap.base"])
    for other in instances:
        if (other.name, other.project) != (instance, incus.project) and other.meets(base):
            return f"{other.name} of project {other.project}"
    return ""

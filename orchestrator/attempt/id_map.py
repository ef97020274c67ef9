"""Gives each guest its own ids of the host.

The kernel counts descriptors in flight, pipe buffers, locked memory and epoll watches per uid of
the host. By default Incus gives all containers the same id map, so users of one guest can use up
what those of all others need. A guest with its own id map can use up only its own share.

Incus accepts a map that another guest already has, and gives the same map to guests that are
created at the same time. So we choose the map from the instance's name, which makes collisions
rare, and look for a collision once the instance exists (`same_ids.py`). Where the range is unknown,
or a project forbids to choose, Incus chooses.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from orchestrator.incus import LOCAL, Host

# Rootless containers in a guest use its ids from 100,000 on.
MAP_SIZE = 1 << 18
# With fewer maps, names would collide too often.
MIN_MAPS = 1024


class IdRange(msgspec.Struct, frozen=True):
    """The ids of the host that Incus may give to guests: `size` ids, starting at `base`."""

    base: int
    size: int


def local_id_range(remote: str) -> IdRange | None:
    """The range of this host's Incus; None if unknown or too small. Reads files.

    A guest without its own id map has the whole range.
    """
    # Otherwise the daemon may run on another host, whose files we cannot read.
    if remote != "local" or "INCUS_SOCKET" in os.environ:
        return None
    try:
        # In a container, the ids in these files may not exist.
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            return None
        return id_range(Path("/etc/subuid").read_text(), Path("/etc/subgid").read_text())
    except (OSError, ValueError):
        return None


def id_range(subuid: str, subgid: str) -> IdRange | None:
    """Root's range, if it has only one, for uids and gids alike, and a large one.

    `ValueError` if the files are malformed.
    """
    uids, gids = _of_root(subuid), _of_root(subgid)
    if len(uids) != 1 or uids != gids or uids[0].size < MIN_MAPS * MAP_SIZE:
        return None
    return uids[0]


def _of_root(text: str) -> list[IdRange]:
    lines = (line.split(":") for line in text.splitlines() if line.startswith(("root:", "0:")))
    return [IdRange(int(base), int(size)) for _, base, size in lines]


def id_map_config(ids: IdRange, instance: str) -> dict[str, str]:
    """The settings that give the instance its own id map.

    The first map of the range is never used: guests without their own map have its ids.
    """
    digest = hashlib.sha256(instance.encode()).digest()
    number = 1 + int.from_bytes(digest[:8], "big") % (ids.size // MAP_SIZE - 1)
    return {
        "security.idmap.isolated": "true",
        "security.idmap.base": str(ids.base + number * MAP_SIZE),
        "security.idmap.size": str(MAP_SIZE),
    }


def chosen_by_incus(host: Host) -> dict[str, str]:
    """The settings with which Incus gives an instance its own id map, on a host of unknown range.

    A restricted project, as hosts over TLS have them, takes no size: there a map has 65,536 ids.
    """
    isolated = {"security.idmap.isolated": "true"}
    return isolated | ({"security.idmap.size": str(MAP_SIZE)} if host.remote == LOCAL else {})

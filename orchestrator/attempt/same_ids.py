"""Finds a guest whose ids of the host are another guest's too.

Of two guests with the same id map, at least the one that looks later sees the other. The look-up
happens while the guest boots, and costs no time.
"""

from __future__ import annotations

import msgspec

from orchestrator.attempt.id_map import MAP_SIZE
from orchestrator.incus import Deadline, Incus, Retry
from orchestrator.incus.errors import DaemonUnreachable, OutcomeUnknown

LIST_SECS = 60.0


class _Instance(msgspec.Struct):
    name: str
    project: str
    config: dict[str, str]
    expanded_config: dict[str, str] = {}

    def meets(self, base: int) -> bool:
        """Whether it has its own id map, and that overlaps the map that starts at `base`."""
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
    """Another instance of the host whose own id map overlaps this one's; empty if none.

    `config` is the configuration of the instance, which must exist. Errors are those of
    `Incus.query`.
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

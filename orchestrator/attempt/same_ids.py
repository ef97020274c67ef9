"""Finds a guest whose ids of the host are another guest's too.

Of two guests with the same id map, at least the one that looks later sees the other. The look-up
happens while the guest boots, and costs no time.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import trio

from orchestrator.attempt.id_map import MAP_SIZE
from orchestrator.attempt.plan import Plan
from orchestrator.incus import Deadline, Incus, Retry
from orchestrator.incus.errors import DaemonUnreachable, IncusError, OutcomeUnknown
from states.errors import PikaciError

LIST_SECS = 60.0
# A guest that is ready waits so long for the list of the others.
LISTED_SECS = 5.0


class SameIds(PikaciError):
    """Another guest, `other`, has ids of this one's own id map."""

    def __init__(self, other: str) -> None:
        super().__init__(f"{other} uses ids of the guest's id map")
        self.other = other


class _Instance(msgspec.Struct):
    name: str
    project: str
    # Of one whose member does not answer, there is none.
    config: dict[str, str] | None
    expanded_config: dict[str, str] | None = None
    location: str = ""

    @property
    def own_ids(self) -> range:
        """The host's ids in its own map; empty if it has none."""
        expanded = self.expanded_config or {}
        if expanded.get("security.idmap.isolated") != "true":
            return range(0)
        size = expanded.get("security.idmap.size", "auto")
        try:
            first = int((self.config or {})["volatile.idmap.base"])
            return range(first, first + (65536 if size == "auto" else int(size)))
        except (KeyError, ValueError):
            return range(0)


@dataclass(frozen=True)
class _Mapped:
    """An instance that has ids of the host for itself."""

    name: str
    project: str
    member: str
    ids: range

    def is_at(self, name: str, project: str) -> bool:
        return (self.name, self.project) == (name, project)

    def meets(self, ids: range) -> bool:
        """Whether its own map has some of these ids."""
        return self.ids.start < ids.stop and ids.start < self.ids.stop


class Neighbours:
    """The instances of a host that have their own id maps, listed for guests that start.

    The daemon's work for a list grows with its instances, and so does the number of guests that
    start. So there is one list at a time, and all guests that ask meanwhile share the next one.
    """

    def __init__(self) -> None:
        self._listing = trio.Lock()
        self._begun = 0  # lists, which are numbered from 1
        self._last: tuple[int, list[_Mapped]] = (0, [])

    async def find_same_ids(
        self,
        incus: Incus,
        instance: str,
        config: dict[str, str],
        *,
        member: str = "",
        daemon_secs: float,
    ) -> str:
        """Another instance of the host whose own id map overlaps this one's; empty if none.

        `config` is the configuration of the instance, which must exist. In a cluster only those on
        its `member` count: each machine has ids of its own. Errors are those of `Incus.query`.
        """
        instances = await self._list(incus, daemon_secs)
        if "security.idmap.base" in config:
            base = int(config["security.idmap.base"])
            ids = range(base, base + MAP_SIZE)
        else:
            ours = (one.ids for one in instances if one.is_at(instance, incus.project))
            ids = next(ours, range(0))
        for other in instances:
            elsewhere = bool(member) and other.member != member
            if not elsewhere and not other.is_at(instance, incus.project) and other.meets(ids):
                return f"{other.name} of project {other.project}"
        return ""

    async def _list(self, incus: Incus, daemon_secs: float) -> list[_Mapped]:
        """The instances of a list that began after this call."""
        wanted = self._begun + 1
        async with self._listing:
            number, found = self._last
            if number < wanted:
                # If this fails or is cancelled, whoever waits makes a list itself.
                self._begun = number = self._begun + 1
                found = await _list(incus, daemon_secs)
                self._last = (number, found)
            return found


async def _list(incus: Incus, daemon_secs: float) -> list[_Mapped]:
    instances = await incus.query(
        "/1.0/instances?recursion=1&all-projects=true",
        list[_Instance],
        deadline=Deadline(LIST_SECS),
        retry=Retry(on=(DaemonUnreachable, OutcomeUnknown), secs=daemon_secs),
        in_project=False,
    )
    return [
        _Mapped(one.name, one.project, one.location, ids)
        for one in instances
        if (ids := one.own_ids)
    ]


class Look:
    """Looks once for a guest with the ids of this one, which exists: while it boots, by `run`."""

    def __init__(self, plan: Plan, incus: Incus, neighbours: Neighbours) -> None:
        self._plan = plan
        self._incus = incus
        self._neighbours = neighbours
        self._ended = trio.Event()
        self._other = ""
        self._unknown = f"Incus did not list its instances within {LISTED_SECS:g} s"

    async def run(self) -> None:
        """Look."""
        try:
            self._other = await self._neighbours.find_same_ids(
                self._incus,
                self._plan.instance,
                self._plan.config,
                member=self._plan.member,
                daemon_secs=self._plan.deadlines.daemon_secs,
            )
            self._unknown = ""
        except IncusError as fault:
            self._unknown = fault.brief
        finally:
            self._ended.set()

    async def result(self) -> str:
        """Raise `SameIds` if there is such a guest; return a warning if Incus does not tell.

        A neighbour with the same ids can use up what the kernel counts per id. That is unlikely
        enough, and no reason to fail the job.
        """
        with trio.move_on_after(LISTED_SECS):
            await self._ended.wait()
        if self._other:
            raise SameIds(self._other)
        if not self._unknown:
            return ""
        return f"another guest may have ids of this one's id map: {self._unknown}"

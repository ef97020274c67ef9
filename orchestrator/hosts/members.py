"""The members of a cluster, and a watch on each member that a call depends on.

A call to a member that died does not end: the member that passed it on waits for an answer. The
cluster knows: its members hear from each other, and one that was silent for too long is offline.
So while a call runs, the cluster is asked for the states of its members, in one query for all
calls of this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import trio

from orchestrator.hosts.placement import OFFLINE, ONLINE, Member, choose, is_full, why_none
from orchestrator.incus import Deadline, Incus
from orchestrator.incus.errors import IncusError, MemberCut, MemberOffline
from orchestrator.incus.retries import RetryClock
from orchestrator.incus.watched import watched
from states.errors import PikaciError

# Incus needs 20 s to find out; and one query is a process of 20 ms.
LOOK_EVERY_SECS = 2.0
# A cluster without a quorum answers late, or not at all.
LOOK_SECS = 10.0
SLOT_AGAIN_SECS = 10.0


class _Cluster(msgspec.Struct):
    enabled: bool = False
    server_name: str = ""


class NoMember(PikaciError):
    """No member of the cluster can take a guest."""


class Members:
    """The members of a host's cluster, if it is one. One object for all jobs of a process.

    `target` is the member or `@group` that takes our guests, "" for all, or with `only_there` for
    the member that we talk to, which with `same_member` is always the same. One member runs at most
    `slots` of our jobs, None for no limit.
    """

    def __init__(
        self,
        incus: Incus,
        *,
        target: str = "",
        slots: int | None = None,
        only_there: bool = False,
        same_member: bool = False,
    ) -> None:
        self._incus = incus
        self._target = target
        self._slots = slots
        self._only_there = only_there
        self._same_member = same_member
        self._cluster: _Cluster | None = None  # not asked yet
        self._seen: dict[str, Member] = {}
        self._away_at: dict[str, float] = {}
        self._looked_at = float("-inf")
        self._looking = trio.Lock()
        self._at: dict[str, str] = {}  # members, by job
        self._left = trio.Event()

    async def look(self, *, within_secs: float = 0.0) -> None:
        """Ask the cluster, unless the last answer is no older than `within_secs`.

        Raises the errors of `Incus.query`: a cluster that has lost its quorum gives no answer.
        """
        async with self._looking:
            if trio.current_time() - self._looked_at <= within_secs:
                return
            found = await self._incus.query(
                "/1.0/cluster/members?recursion=1",
                list[Member],
                deadline=Deadline(LOOK_SECS),
                in_project=False,
            )
            self._looked_at = trio.current_time()
            self._seen = {member.name: member for member in found}
            for member in found:
                if member.status != ONLINE and self._is_told:
                    self._away_at[member.name] = self._looked_at

    @property
    def is_cluster(self) -> bool:
        """Whether the host is known to be a cluster; `ask` finds out."""
        return self._cluster is not None and self._cluster.enabled

    async def place(
        self, job: str, *, avoid: Collection[str], secs: float, say: Callable[[str], None]
    ) -> str:
        """Choose a member for another attempt at the job, which counts as running there.

        "" if the host is no cluster. Waits for a slot, and for `secs` if no member takes guests or
        the cluster does not answer; `say` is called then. Raises `NoMember`, or the error of the
        query.
        """
        clock = RetryClock(secs)
        said = False
        while True:
            try:
                if not await self.ask():
                    return ""
                await self.look(within_secs=LOOK_EVERY_SECS)
                seen = list(self._seen.values())
                self._at.pop(job, None)
                running = Counter(self._at.values())
                name = choose(seen, self._target, running, slots=self._slots, avoid=avoid)
                if name:
                    self._at[job] = name
                    return name
                if is_full(seen, self._target):
                    clock.reset()
                    await self._slot_is_free()
                    continue
                fault: PikaciError = NoMember(
                    why_none(seen, self._target), resolution="`incus cluster list` shows them"
                )
            except IncusError as error:
                if not error.retryable:
                    raise
                fault = error
            if not said:
                said = True
                say(f"waiting for the cluster: {fault.brief}")
            await clock.after(fault)

    def resume(self, job: str, member: str) -> None:
        """Count a job that was left by another process as running on the member."""
        self._at[job] = member

    def leave(self, job: str) -> None:
        """The job no longer runs on any member."""
        if self._at.pop(job, None) is not None:
            self._left.set()
            self._left = trio.Event()

    async def is_there(self, member: str) -> bool:
        """Whether guests on the member can be asked for: False if it, or the cluster, is away."""
        try:
            await self.look(within_secs=LOOK_EVERY_SECS)
        except IncusError:
            return False
        return member in self._seen and not self._is_off(member)

    def was_away(self, member: str, *, since: float) -> str:
        """Why guests on the member may be lost, in words; "" if it was seen online only.

        `since` is a time of trio's clock.
        """
        now = self._seen.get(member)
        if now is not None and now.status != ONLINE and self._is_told:
            return f"the member {member} of the cluster is {now.status.lower()}"
        if self._away_at.get(member, float("-inf")) >= since:
            return f"the member {member} of the cluster was away for a time"
        return ""

    async def ask(self) -> bool:
        """Whether the host is a cluster. Asks once. Raises the errors of `Incus.query`."""
        async with self._looking:
            if self._cluster is None:
                self._cluster = await self._incus.query(
                    "/1.0/cluster", _Cluster, deadline=Deadline(LOOK_SECS), in_project=False
                )
                if self._only_there and not self._target:
                    self._target = self._cluster.server_name
        return self._cluster.enabled

    async def _slot_is_free(self) -> None:
        """Return when a job has left its member, or others may have come back."""
        with trio.move_on_after(SLOT_AGAIN_SECS):
            await self._left.wait()

    def _is_off(self, member: str) -> bool:
        seen = self._seen.get(member)
        return seen is not None and seen.status == OFFLINE and self._is_told

    @property
    def _is_told(self) -> bool:
        """Whether the statuses in the last answer can be believed.

        After a change of leader, or on busy machines, Incus may call members offline that are
        running, even all of them, until it has heard from each. When the answering member itself is
        called offline, no status counts.
        """
        if self._same_member and self._cluster is not None:
            answers = self._seen.get(self._cluster.server_name)
            if answers is not None and answers.status == OFFLINE:
                return False
        return any(member.status != OFFLINE for member in self._seen.values())

    def during(self, incus: Incus, member: str) -> Incus:
        """The same Incus, for calls that depend on the member."""
        return incus.during(partial(self.present, member)) if member else incus

    @asynccontextmanager
    async def present(self, member: str) -> AsyncIterator[None]:
        """Run the block for as long as the member is there.

        Raises `MemberOffline` if the cluster says that it is offline, without the block; and
        `MemberCut` when it goes offline during the block, which is cancelled.
        """
        if self._is_off(member):
            with suppress(IncusError):  # the block's own call says so
                await self.look(within_secs=LOOK_EVERY_SECS)
            if self._is_off(member):
                raise MemberOffline(_offline(member), resolution=MemberOffline.hint)

        async def watch() -> MemberCut:
            while not self._is_off(member):
                await trio.sleep(LOOK_EVERY_SECS)
                with suppress(IncusError):
                    await self.look(within_secs=LOOK_EVERY_SECS / 2)
            return MemberCut(_offline(member), resolution=MemberCut.hint)

        async with watched(watch):
            yield


def _offline(member: str) -> str:
    return f"the member {member} of the cluster is offline"

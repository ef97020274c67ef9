"""Those who use a service, and the way to it, which may break at any byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from orchestrator.errors import leaves
from orchestrator.service.client import (
    BUSY,
    Client,
    RunAnswer,
    ServiceGone,
    ServiceProblem,
    open_client,
)
from orchestrator.service.types import Cancel, SubmitRun
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import fold

REFUSED = 422
_T = TypeVar("_T")


class Wire:
    """A way to the service. What is cut is cut for both sides, and nobody says good-bye."""

    def __init__(self, path: Path, to: Path) -> None:
        self.path = path
        self._to = to
        self._open: list[trio.CancelScope] = []
        # So many bytes more come through, and then the connection that has them is cut.
        self._left = {"asked": float("inf"), "answered": float("inf")}

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Be there, until cancelled."""
        with trio.socket.socket(trio.socket.AF_UNIX) as door:
            await door.bind(str(self.path))
            door.listen(128)
            task_status.started()
            await trio.serve_listeners(self._carry, [trio.SocketListener(door)])

    def cut(self) -> None:
        """Cut all that is open."""
        for scope in self._open:
            scope.cancel()

    def cut_after(self, way: str, size: int) -> None:
        """Cut the next connection on which so many bytes more come through: asked, or answered."""
        self._left[way] = size

    def heal(self) -> None:
        """Cut nothing any more."""
        self._left = {"asked": float("inf"), "answered": float("inf")}

    async def _carry(self, near: trio.SocketStream) -> None:
        try:
            async with near, await trio.open_unix_socket(str(self._to)) as far:
                async with trio.open_nursery() as nursery:
                    self._open.append(nursery.cancel_scope)
                    nursery.start_soon(self._copy, "asked", near, far, nursery.cancel_scope)
                    nursery.start_soon(self._copy, "answered", far, near, nursery.cancel_scope)
                self._open.remove(nursery.cancel_scope)
        except OSError:
            pass  # nobody listens

    async def _copy(
        self, way: str, source: trio.SocketStream, to: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some():
                left = self._left[way]
                if left <= len(data):
                    self._left[way] = float("inf")
                    await to.send_all(data[: int(left)])
                    break
                self._left[way] -= len(data)
                await to.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()


@dataclass
class Told:
    """What a follower has heard of one job. It is `whole` when the service had no more."""

    job: str
    entries: list[ev.Entry] = field(default_factory=list)
    log: bytes = b""
    whole: bool = False


class Customer:
    """Submits a run under a key, and follows its jobs to their ends.

    A client that gives up is started again, as a person would do it.
    """

    def __init__(self, key: str, asked: SubmitRun) -> None:
        self.key = key
        self.asked = asked
        self.run: RunAnswer | None = None
        self.refused = False
        self.dead = False
        self.told: list[Told] = []
        self.ended = trio.Event()
        self._scope = trio.CancelScope()

    def kill(self) -> None:
        """kill -9"""
        self.dead = True
        self._scope.cancel()

    async def live(self, socket: Path) -> None:
        """To the end of its jobs."""
        try:
            with self._scope:
                async with open_client(socket) as client:
                    await self._live(client)
        finally:
            self.ended.set()

    async def _live(self, client: Client) -> None:
        try:
            self.run = await _until_answered(lambda: client.submit(self.asked, key=self.key))
        except ServiceProblem as problem:
            if problem.status != REFUSED:
                raise
            self.refused = True
            return
        async with trio.open_nursery() as nursery:
            for job in self.run.jobs:
                nursery.start_soon(_until_answered, lambda job=job.id: self._follow(client, job))

    async def _follow(self, client: Client, job: str) -> None:
        told = Told(job)
        self.told.append(told)

        async def entries() -> None:
            async for entry in client.entries(job):
                told.entries.append(entry)

        async def log() -> None:
            async for piece in client.log(job):
                told.log += piece.data

        async with trio.open_nursery() as nursery:
            nursery.start_soon(entries)
            nursery.start_soon(log)
        told.whole = True

    def check(self, root: StateRoot, journal: Callable[[str], list[ev.Entry]]) -> None:
        """What it was told is what happened: each entry and each byte once, in order."""
        for told in self.told:
            entries = journal(told.job)
            assert told.entries == entries[: len(told.entries)]
            happened = fold(entry for entry in entries if isinstance(entry, ev.Event))
            logs = [
                path.read_bytes() if path.exists() else b""
                for number in range(1, happened.attempt + 1)
                for path in (root.attempt_dir(told.job, number) / "guest.log",)
            ]
            # It begins with the attempt that it finds.
            whole = [b"".join(logs[first:]) for first in range(max(1, len(logs)))]
            if told.whole:
                heard = fold(entry for entry in told.entries if isinstance(entry, ev.Event))
                assert heard.verdict is not None
                assert heard.verdict is happened.verdict
                assert told.log in whole
            else:
                assert any(log.startswith(told.log) for log in whole)


async def cancel(socket: Path, job: str, *, now: bool) -> None:
    """Cancel the job; it is dead when this returns."""
    async with open_client(socket) as client:
        answer = await _until_answered(lambda: client.cancel(job, Cancel(now=now)))
        assert answer.verdict is not None


async def _until_answered(ask: Callable[[], Awaitable[_T]]) -> _T:
    """What is asked for, however often a client gives up meanwhile."""
    while True:
        try:
            return await ask()
        except Exception as error:
            for leaf in leaves(error):
                away = isinstance(leaf, ServiceGone)
                busy = isinstance(leaf, ServiceProblem) and leaf.status == BUSY
                if not (away or busy):
                    raise leaf from None

"""A cluster in front of the fake Incus: its members, which may be away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import trio

from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Completed

OFFLINE_SECS = 20.0


class FakeCluster:
    """Starts the fake's commands, as `Spawn`. An instance is on the member that create names.

    Until a silent member is offline for the others, calls to it do not end; then, as in Incus, an
    exec that was running still does not, and all that are new are refused. `has_quorum`: without,
    the cluster answers nothing.
    """

    def __init__(self, fake: FakeIncus, *members: str) -> None:
        self.fake = fake
        self.status = dict.fromkeys(members, "Online")
        self.at: dict[str, str] = {}
        self.has_quorum = True
        self._silent: set[str] = set()

    async def fall_silent(self, member: str) -> None:
        """The member dies, or hangs; after a while the others know."""
        self._silent.add(member)
        await trio.sleep(OFFLINE_SECS)
        self.status[member] = "Offline"

    def come_back(self, member: str) -> None:
        """The member answers, with its guests as they are."""
        self._silent.discard(member)
        self.status[member] = "Online"

    async def __call__(self, argv: Sequence[str], *, sink: Any, **options: Any) -> Completed:
        argv = tuple(argv)
        if not self.has_quorum:
            return _refused(argv, "failed to begin transaction: no known leader")
        path = argv[-1].partition(":")[2].partition("?")[0]
        if path == "/1.0/cluster":
            return await answer(argv, sink, {"enabled": True, "server_name": "m1"})
        if path == "/1.0/cluster/members":
            rows = [{"server_name": n, "status": s} for n, s in self.status.items()]
            return await answer(argv, sink, rows)
        target = next((word for word in argv if word.startswith("--target=")), "")
        if target:
            self.at[argv[-1].partition(":")[2]] = target.partition("=")[2]
            argv = tuple(word for word in argv if word != target)
        for name, member in self.at.items():
            if member in self._silent and any(name in word for word in argv):
                if self.status[member] == "Online":
                    await trio.sleep_forever()
                return _refused(argv, "Server isn't ready yet")
            evacuated = self.status[member] == "Evacuated" and argv[1] in ("launch", "start")
            if evacuated and any(name in word for word in argv):
                return _refused(argv, "Cluster member is evacuated")
        done = await self.fake(argv, sink=sink, **options)
        if self._is_cut(argv):
            await trio.sleep_forever()  # its member died under it
        return done

    def _is_cut(self, argv: Sequence[str]) -> bool:
        return any(
            member in self._silent and any(name in word for word in argv)
            for name, member in self.at.items()
        )


async def answer(argv: tuple[str, ...], sink: Any, document: object) -> Completed:
    """What `incus query` prints."""
    await sink(json.dumps(document).encode())
    return Completed(argv, 0, b"", b"")


def _refused(argv: tuple[str, ...], words: str) -> Completed:
    return Completed(argv, 1, b"", f"Error: {words}\n".encode())

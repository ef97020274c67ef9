"""Many cases of one test, each in a scene of its own on the fake Incus."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import trio

from orchestrator.fake_incus import FINGERPRINT, FakeIncus, GuestCommand, GuestOutcome, run_handful
from orchestrator.incus import Incus
from tests.kill.fake_daemon import serving
from tests.kill.sample import sample
from tests.kill.scene import NotKilled, Scene, make_alien
from tests.kill.starter import Starter

AT_ONCE = 8
# Longer than a late create takes, with room for a busy machine (see `fake_daemon.LATE_SECS`).
UNANSWERED_SECS = 2.0
ALIEN = "pikaci-5tranger"


@asynccontextmanager
async def open_scene(starter: Starter, workspace: Path, base: Path) -> AsyncIterator[Scene]:
    """A new scene, with another owner's instance in it."""
    base.mkdir()
    ran: list[str] = []

    async def script(command: GuestCommand) -> GuestOutcome:
        ran.append(command.instance)
        return await run_handful(command)

    async with FakeIncus.open(guest_script=script, epoch=datetime.now(UTC)) as fake:
        incus = Incus(base / "conf", spawn=fake)
        await make_alien(incus, ALIEN, image=FINGERPRINT)
        async with serving(fake, base / "incus") as late:
            yield Scene(
                starter,
                workspace,
                base,
                incus,
                ALIEN,
                socket=str(base / "incus"),
                unanswered_secs=UNANSWERED_SECS,
                ran=ran,
                late=late,
            )


class Cases:
    """Many cases, some at once. `wrong` is what was found, and `missed` who was not killed."""

    def __init__(self, starter: Starter, base: Path, *, every_point: bool) -> None:
        self.wrong: dict[str, list[str]] = {}
        self.missed: dict[str, str] = {}
        self._every_point = every_point
        self._starter = starter
        self._base = base
        self._scenes = itertools.count()

    @asynccontextmanager
    async def scene(self, workspace: Path) -> AsyncIterator[Scene]:
        async with open_scene(self._starter, workspace, self._base / str(next(self._scenes))) as it:
            yield it

    def part(self, points: Sequence[str], part: int, *, of: int) -> list[str]:
        """The points to try: this part of them (`sample`), or, if it is asked for, all."""
        return list(points) if self._every_point else sample(points, part=part, of=of)

    async def try_all(
        self, workspace: Path, points: Sequence[str], case: Callable[..., Awaitable[list[str]]]
    ) -> None:
        """Await `case(scene, point)` for each point; it returns what is wrong."""
        slots = trio.CapacityLimiter(AT_ONCE)

        async def one(point: str) -> None:
            async with slots, self.scene(workspace) as scene:
                try:
                    if found := await case(scene, point):
                        self.wrong[point] = found
                except NotKilled as missed:
                    self.missed[point] = str(missed)

        async with trio.open_nursery() as nursery:
            for point in points:
                nursery.start_soon(one, point)

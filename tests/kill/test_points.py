"""Killed at every fault point, on the fake Incus: nothing is lost, leaked, or done twice."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from orchestrator.fake_incus import FINGERPRINT, FakeIncus, GuestCommand, GuestOutcome, run_handful
from orchestrator.incus import Incus
from states import events as ev
from states.outcome import Verdict
from tests.kill.fake_daemon import serving
from tests.kill.scene import NotKilled, Scene, make_alien, make_workspace
from tests.kill.starter import Starter
from tests.samples import PATH

AT_ONCE = 8
# Longer than a request whose client died takes to be carried out.
UNANSWERED_SECS = 1.2
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


@pytest.fixture
def cases(starter: Starter, tmp_path: Path) -> Cases:
    """Scenes for many cases."""
    return Cases(starter, tmp_path)


class Cases:
    """Many cases, some at once. `wrong` is what was found, and `missed` who was not killed."""

    def __init__(self, starter: Starter, base: Path) -> None:
        self.wrong: dict[str, list[str]] = {}
        self.missed: dict[str, str] = {}
        self._starter = starter
        self._base = base
        self._scenes = itertools.count()

    @asynccontextmanager
    async def scene(self, workspace: Path) -> AsyncIterator[Scene]:
        async with open_scene(self._starter, workspace, self._base / str(next(self._scenes))) as it:
            yield it

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


async def reached_by_a_run(cases: Cases, workspace: Path) -> list[str]:
    """The points of a run that nobody kills."""
    async with cases.scene(workspace) as scene:
        code, output = await scene.pikaci("run")

        assert 1 == code, output
        assert [] == await scene.faults(Verdict.FAILED)
        return scene.reached("run")


def is_lost(points: Sequence[str], point: str) -> bool:
    """Whether a run that is killed here has not said yet that there is a job."""
    return points.index(point) <= points.index("journal:submitted:during")


async def test_every_effect_has_its_points(cases: Cases, tmp_path: Path) -> None:
    """Else the tests below would kill nowhere, and find nothing."""
    points = await reached_by_a_run(cases, make_workspace(tmp_path, secs=0))

    effects = ("find-image", "create", "start", "ready", "run", "collect", "delete", "list")
    entries = [ev.tag(kind) for kind in (*PATH, ev.LeaseOpened, ev.LeaseEnded)]
    named = [f"incus:{effect}" for effect in effects] + [f"journal:{entry}" for entry in entries]
    for point in named:
        assert {f"{point}:before", f"{point}:during", f"{point}:after"} <= set(points)
    assert 60 < len(points)
    assert len(points) == len(set(points))


async def test_a_run_killed_anywhere_is_resumed(cases: Cases, tmp_path: Path) -> None:
    """Whatever it was doing: its job ends once, with its own verdict and its whole log."""
    workspace = make_workspace(tmp_path, secs=0.2)
    points = await reached_by_a_run(cases, workspace)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point)
        await scene.pikaci("resume")
        return await scene.faults(*[] if is_lost(points, point) else [Verdict.FAILED])

    await cases.try_all(workspace, points, resumed)
    assert ({}, {}) == (cases.wrong, cases.missed)


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
async def test_a_run_with_a_way_out_killed_anywhere_is_resumed(
    cases: Cases, tmp_path: Path, group: bool
) -> None:
    """It gets its way out again; one that did no harm leaves the verdict as it is."""
    workspace = make_workspace(tmp_path, secs=0.2, egress=True)
    points = await reached_by_a_run(cases, workspace)
    begin, end = points.index("incus:egress:before"), points.index("incus:collect:after")
    assert {"incus:egress:during", "incus:egress:output"} <= set(points)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point, group=group)
        await scene.pikaci("resume")
        found = await scene.faults(Verdict.FAILED)
        again = "incus:egress:output" in scene.reached("resume")
        if points.index(point) < points.index("incus:collect:before") and not again:
            found.append("the way out was not restored")
        return found

    await cases.try_all(workspace, points[begin:end], resumed)
    assert ({}, {}) == (cases.wrong, cases.missed)


async def test_a_run_killed_with_its_group_is_resumed(cases: Cases, tmp_path: Path) -> None:
    """Then the clients that it had started are dead too, which matters to calls of incus alone."""
    workspace = make_workspace(tmp_path, secs=0.2)
    points = await reached_by_a_run(cases, workspace)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point, group=True)
        await scene.pikaci("resume")
        return await scene.faults(Verdict.FAILED)

    calls = [point for point in points if point.startswith("incus:")]
    await cases.try_all(workspace, [p for p in calls if not is_lost(points, p)], resumed)
    assert ({}, {}) == (cases.wrong, cases.missed)


async def test_a_run_killed_anywhere_is_cancelled(cases: Cases, tmp_path: Path) -> None:
    """Its job is dead afterwards, and says so; one that had ended stays as it was."""
    workspace = make_workspace(tmp_path, secs=0.2)
    points = await reached_by_a_run(cases, workspace)

    async def cancelled(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point)
        await scene.pikaci("cancel", "--all")
        await scene.pikaci("resume")
        found = [await scene.faults(verdict) for verdict in (Verdict.FAILED, Verdict.CANCELLED)]
        return await scene.faults() if is_lost(points, point) else min(found, key=len)

    told = [point for point in points if not point.startswith("host:")]
    await cases.try_all(workspace, told, cancelled)
    assert ({}, {}) == (cases.wrong, cases.missed)


@pytest.mark.parametrize(
    "first",
    ["journal:submitted:after", "incus:create:during", "incus:run:output", "incus:collect:output"],
)
async def test_a_resume_killed_anywhere_is_resumed(
    cases: Cases, tmp_path: Path, first: str
) -> None:
    """A second death is like the first: the job ends once, and as it should."""
    workspace = make_workspace(tmp_path, secs=0.2)
    async with cases.scene(workspace) as scene:
        await scene.killed("run", point=first)
        await scene.pikaci("resume")
        points = scene.reached("resume")

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=first)
        await scene.killed("resume", point=point)
        await scene.pikaci("resume")
        return await scene.faults(Verdict.FAILED)

    await cases.try_all(workspace, points, resumed)
    assert {} == cases.wrong
    # What a resume finds depends on how far the guest, or a late create, has come by then.
    assert len(cases.missed) < len(points) / 3


async def test_a_cancel_killed_anywhere_is_asked_for_again(cases: Cases, tmp_path: Path) -> None:
    """Then the job is dead; it would not have ended by itself."""
    workspace = make_workspace(tmp_path, secs=600)
    async with cases.scene(workspace) as scene:
        await scene.killed("run", point="journal:running:after")
        await scene.pikaci("cancel", "--all")
        points = scene.reached("cancel")

    async def cancelled(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point="journal:running:after")
        await scene.killed("cancel", "--all", point=point)
        await scene.pikaci("cancel", "--all")
        await scene.pikaci("resume")
        return await scene.faults(Verdict.CANCELLED)

    await cases.try_all(workspace, points, cancelled)
    assert ({}, {}) == (cases.wrong, cases.missed)

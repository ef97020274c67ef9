"""Killed at every fault point, on the fake Incus: nothing is lost, leaked, or done twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from states import events as ev
from states.outcome import Verdict
from tests.kill.cases import Cases
from tests.kill.scene import Scene, make_workspace
from tests.samples import PATH

# Where a run dies, whose resume is then killed.
FIRST_DEATHS = [
    "journal:submitted:after",
    "incus:launch:during",
    "incus:run:output",
    "incus:collect:output",
]


async def reached_by_a_run(cases: Cases, workspace: Path) -> list[str]:
    """The points of a run that nobody kills."""
    async with cases.scene(workspace) as scene:
        code, output = await scene.pikaci("run")

        assert 1 == code, output
        assert [] == await scene.faults(Verdict.FAILED)
        return scene.reached("run")


def is_lost(points: Sequence[str], point: str) -> bool:
    """Whether a run that is killed here has not said yet that there is a job."""
    return points.index(point) < points.index("journal:submitted:after")


async def test_every_effect_has_its_points(cases: Cases, tmp_path: Path) -> None:
    """Else the tests below would kill nowhere, and find nothing."""
    points = await reached_by_a_run(cases, make_workspace(tmp_path, secs=0))

    effects = ("find-image", "launch", "run", "collect", "delete", "list")
    entries = [ev.tag(kind) for kind in (*PATH, ev.LeaseOpened, ev.LeaseEnded)]
    named = [f"incus:{effect}" for effect in effects] + [f"journal:{entry}" for entry in entries]
    assert "incus:run:stdin" in points
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

    wanted = cases.part(points[begin:end], int(group), of=2)
    await cases.try_all(workspace, wanted, resumed)
    assert ({}, {}) == (cases.wrong, cases.missed)


async def test_a_run_killed_with_its_group_is_resumed(cases: Cases, tmp_path: Path) -> None:
    """Then the clients that it had started are dead too, which matters to calls of incus alone."""
    workspace = make_workspace(tmp_path, secs=0.2)
    points = await reached_by_a_run(cases, workspace)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point, group=True)
        await scene.pikaci("resume")
        return await scene.faults(Verdict.FAILED)

    calls = [p for p in points if p.startswith("incus:") and not is_lost(points, p)]
    await cases.try_all(workspace, cases.part(calls, 0, of=2), resumed)
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
    await cases.try_all(workspace, cases.part(told, 1, of=2), cancelled)
    assert ({}, {}) == (cases.wrong, cases.missed)


@pytest.mark.parametrize("first", FIRST_DEATHS)
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

    wanted = cases.part(points, FIRST_DEATHS.index(first), of=len(FIRST_DEATHS))
    await cases.try_all(workspace, wanted, resumed)
    assert {} == cases.wrong
    # What a resume finds depends on how far the guest, or a late create, has come by then.
    assert len(cases.missed) < len(wanted) / 3


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

    await cases.try_all(workspace, cases.part(points, 0, of=2), cancelled)
    assert ({}, {}) == (cases.wrong, cases.missed)


async def test_a_run_killed_while_it_leaves_the_delete_to_incus(
    cases: Cases, tmp_path: Path
) -> None:
    """From the verdict on, at every point: the guest goes, and its lease ends at the next start."""
    workspace = make_workspace(tmp_path, secs=0)
    async with cases.scene(workspace) as scene:
        scene.environment["PIKACI_WAIT_DELETED"] = ""
        code, output = await scene.pikaci("run")
        points = scene.reached("run")
        left = await scene.faults(Verdict.FAILED)
        await scene.pikaci("resume")

        assert 1 == code, output
        assert ["open lease"] == [fault.partition(":")[0] for fault in left]
        assert [] == await scene.faults(Verdict.FAILED)

    async def resumed(scene: Scene, point: str) -> list[str]:
        scene.environment["PIKACI_WAIT_DELETED"] = ""
        await scene.killed("run", point=point)
        await scene.pikaci("resume")
        return await scene.faults(Verdict.FAILED)

    verdict = points.index("journal:result_collected:before")
    assert {"incus:patch:during", "incus:put:during", "incus:put:after"} <= set(points[verdict:])
    assert not any(point.startswith("incus:delete") for point in points)
    await cases.try_all(workspace, points[verdict:], resumed)

    assert ({}, {}) == (cases.wrong, cases.missed)

"""Killed at every fault point of a job in a warm guest, and of the guest before it has a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from states.outcome import Verdict
from tests.kill.cases import Cases
from tests.kill.scene import COMMAND, Scene

TALKS = COMMAND.format(secs=0.2)
# A wait is noted if it takes a while, and a snapshot is looked up in an index if that is old enough.
BY_CHANCE = ("journal:waited:", ":indexes")
BEGIN, END = "journal:warm:before", "journal:result_collected:after#2"


async def reached(cases: Cases, workspace: Path) -> list[str]:
    """The points on the way of a warm guest: from its lease to the result of its job."""
    async with cases.scene(workspace) as scene:
        code, output = await scene.pikaci(TALKS, warm=True)

        assert 0 == code, output
        assert [] == await scene.faults(Verdict.FAILED, Verdict.FAILED)
        points = scene.reached("warm")
        way = points[points.index(BEGIN) : points.index(END) + 1]
        return [point for point in way if not any(word in point for word in BY_CHANCE)]


def workspace_of(tmp_path: Path) -> Path:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "hello.txt").write_text("hello\n")
    return workspace


def submitted(points: Sequence[str], point: str) -> list[Verdict]:
    """The verdicts of the jobs that there are when the process is killed here."""
    second = points.index(point) >= points.index("journal:submitted:after#2")
    return [Verdict.FAILED] * (1 + second)


async def test_a_warm_guest_has_its_points(cases: Cases, tmp_path: Path) -> None:
    """Else the tests below would kill nowhere, and find nothing."""
    points = await reached(cases, workspace_of(tmp_path))

    for name in ("journal:warm", "journal:lease_claimed", "incus:hot-plug"):
        assert {f"{name}:before", f"{name}:during", f"{name}:after"} <= set(points)
    launched = [point for point in points if point.startswith("incus:launch:during")]
    assert ["incus:launch:during#2"] == launched
    assert len(points) == len(set(points))


async def test_a_program_killed_anywhere_is_resumed(cases: Cases, tmp_path: Path) -> None:
    """No guest is left, none has two jobs, and each job ends once."""
    workspace = workspace_of(tmp_path)
    points = await reached(cases, workspace)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed(TALKS, point=point, warm=True)
        await scene.pikaci("resume")
        found = await scene.faults(*submitted(points, point))
        if len(scene.ran) != len(set(scene.ran)):
            found.append(f"a guest had two jobs: {scene.ran}")
        return found

    await cases.try_all(workspace, points, resumed)
    assert ({}, {}) == (cases.wrong, cases.missed)


async def test_a_program_killed_with_its_group_is_cancelled(cases: Cases, tmp_path: Path) -> None:
    """Its second job is dead then, and so is the guest."""
    workspace = workspace_of(tmp_path)
    points = await reached(cases, workspace)

    async def cancelled(scene: Scene, point: str) -> list[str]:
        await scene.killed(TALKS, point=point, group=True, warm=True)
        await scene.pikaci("cancel", "--all")
        await scene.pikaci("resume")
        first, *rest = submitted(points, point)
        ends = [[first, *(verdict for _ in rest)] for verdict in (first, Verdict.CANCELLED)]
        return min([await scene.faults(*end) for end in ends], key=len)

    told = [point for point in points if not point.startswith("host:")]
    await cases.try_all(workspace, cases.part(told, 0, of=2), cancelled)
    assert ({}, {}) == (cases.wrong, cases.missed)

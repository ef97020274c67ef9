"""Killed at every fault point of a job that makes an output, and of one that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.journal import open_journal
from orchestrator.outputs.store import OutputStore
from states import events as ev
from states.job import Job
from tests.kill.cases import Cases
from tests.kill.scene import ENDINGS, Scene

JOB_FILE = """\
schema = 1

[jobs.deps]
command = "echo made > /artifacts/site/lib"
sources = []
output = "/artifacts/site"

[jobs.use]
command = "cat /staged/linux-rust/workspace-deps/lib"
workspace_deps = { job = "deps" }
"""
ENDS = (*ENDINGS, ev.Reused, ev.Skipped)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    (place / "pikaci.toml").write_text(JOB_FILE)
    return place


async def reached(cases: Cases, workspace: Path) -> list[str]:
    """The points of a run that nobody kills."""
    async with cases.scene(workspace) as scene:
        code, output = await scene.pikaci("run")

        assert (0, []) == (code, list(faults(scene))), output
        return scene.reached("run")


def is_lost(points: list[str], point: str) -> bool:
    """Whether a run that is killed here has not said yet that there are jobs."""
    return points.index(point) < points.index("journal:submitted:after")


def faults(scene: Scene, runs: int = 1) -> Iterator[str]:
    """What is wrong when both jobs of all runs should have passed."""
    with open_journal(scene.root.journal) as journal:
        yield from (f"open lease: {lease.instance}" for lease in journal.open_leases())
        jobs = [journal.job(row.id) for row in journal.jobs()]
        if len(jobs) != 2 * runs:
            yield f"there are {len(jobs)} jobs"
        for job in jobs:
            ends = [e for _, e in journal.entries(job.id) if isinstance(e, ENDS)]
            if len(ends) != 1 or job.verdict != "passed":
                why = job.failure.message if job.failure else ""
                yield f"{job.name} ended {len(ends)} times, as {job.verdict}: {why}"
            if job.name == "use" and b"made" not in log_of(job):
                yield f"the log is {log_of(job)!r}"
    outputs = OutputStore(scene.root.outputs).all()
    if len(outputs) != 1:
        yield f"there are {len(outputs)} outputs"
    for one in outputs:
        if (scene.root.outputs / one.directory / "tree" / "lib").read_bytes() != b"made\n":
            yield "the output is not what was made"


def log_of(job: Job) -> bytes:
    return (Path(job.artifacts or "") / "guest.log").read_bytes()


async def test_publishing_has_its_points(cases: Cases, workspace: Path) -> None:
    """Else the tests below would kill nowhere, and find nothing."""
    points = await reached(cases, workspace)

    for name in ("incus:output", "journal:publishing"):
        assert {f"{name}:before", f"{name}:during", f"{name}:after"} <= set(points)
    assert any(point.startswith("host:rename:outputs") for point in points)


async def test_a_run_killed_anywhere_is_resumed(cases: Cases, workspace: Path) -> None:
    """The output is made, once, and used, and both jobs pass."""
    points = await reached(cases, workspace)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point)
        await scene.pikaci("resume")
        if is_lost(points, point):
            return []
        return list(faults(scene))

    wanted = cases.part(points, 0, of=2)
    await cases.try_all(workspace, wanted, resumed)
    assert {} == cases.wrong
    # The second job's points are named like the first one's, and may come in another order.
    assert len(cases.missed) < len(wanted) / 10


async def test_after_a_death_another_run_uses_or_makes_the_output(
    cases: Cases, workspace: Path
) -> None:
    """Whatever the dead run left; and then the dead run itself can be resumed."""
    points = await reached(cases, workspace)
    told = [p for p in points if p.startswith(("journal:", "host:")) and not is_lost(points, p)]

    async def run_again(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point)
        code, output = await scene.pikaci("run")
        found = [] if code == 0 else [output]
        await scene.pikaci("resume")
        return found + [wrong for wrong in faults(scene, 2) if "outputs" not in wrong]

    await cases.try_all(workspace, cases.part(told, 1, of=4), run_again)
    assert {} == cases.wrong


async def test_two_processes_make_one_output_once(cases: Cases, workspace: Path) -> None:
    """Started together, one makes it, and the other one waits and uses it."""
    file = workspace / "pikaci.toml"
    file.write_text(file.read_text().replace('"echo made', '"sleep 1; echo made'))
    async with cases.scene(workspace) as scene:
        codes: list[int] = []

        async def run() -> None:
            code, _ = await scene.pikaci("run")
            codes.append(code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            nursery.start_soon(run)

        assert [0, 0] == codes
        assert [] == list(faults(scene, 2))
        assert 3 == len(scene.ran)

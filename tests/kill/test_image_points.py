"""Killed at every fault point of a job whose guest becomes an image, and of one that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.image.store import Image, list_images
from orchestrator.incus.instances import list_instances
from orchestrator.journal import open_journal
from orchestrator.outputs.store import OutputStore
from states.outcome import Verdict
from tests.kill.cases import Cases
from tests.kill.scene import Scene
from tests.kill.test_output_points import ENDS, is_lost, log_of

JOB_FILE = """\
schema = 1

[jobs.toolchain]
command = "echo made > /usr/local/lib/made; echo own > /artifacts/own"
sources = []
output = "image"
run_as_root = true

[jobs.use]
command = "cat /usr/local/lib/made"
image = { job = "toolchain" }
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    (place / "pikaci.toml").write_text(JOB_FILE)
    return place


async def made(scene: Scene, owner: str) -> list[Image]:
    """The images of a state root."""
    images = await list_images(scene.incus)
    return [image for image in images if image.origin and image.origin.owner == owner]


async def faults(scene: Scene, *verdicts: Verdict) -> AsyncIterator[str]:
    """What is wrong when the jobs have ended; each may have one of the verdicts."""
    await scene.late.wait_done()
    with open_journal(scene.root.journal) as journal:
        owner = journal.owner
        for lease in journal.open_leases():
            yield f"open lease: {lease.instance}"
        for job in [journal.job(row.id) for row in journal.jobs()]:
            ends = [e for _, e in journal.entries(job.id) if isinstance(e, ENDS)]
            if len(ends) != 1 or job.verdict not in verdicts:
                why = job.failure.message if job.failure else job.message
                yield f"{job.name} ended {len(ends)} times, as {job.verdict}: {why}"
            if job.name == "use" and job.verdict == "passed" and b"made\n" not in log_of(job):
                yield f"the log is {log_of(job)!r}"
    code, output = await scene.pikaci("gc")
    if code != 0:
        yield output
    recorded = [one.fingerprint for one in OutputStore(scene.root.outputs).all()]
    images = [image.fingerprint for image in await made(scene, owner)]
    if images != recorded or len(images) != (1 if verdicts == (Verdict.PASSED,) else len(images)):
        yield f"the images are {images}, the outputs have {recorded}"
    for instance in await list_instances(scene.incus):
        if instance.config.get("user.pikaci.owner") == owner:
            yield f"leaked: {instance.name}"


async def reached(cases: Cases, workspace: Path) -> list[str]:
    """The points of a run that nobody kills."""
    async with cases.scene(workspace) as scene:
        code, output = await scene.pikaci("run")
        points = scene.reached("run")

        assert (0, []) == (code, [one async for one in faults(scene, Verdict.PASSED)]), output
        return points


async def test_making_an_image_has_its_points(cases: Cases, workspace: Path) -> None:
    """Else the tests below would kill nowhere, and find nothing."""
    points = await reached(cases, workspace)

    for effect in ("clean", "stop", "publish", "launch#2", "run#3", "delete#2"):
        name, _, count = effect.partition("#")
        suffix = f"#{count}" if count else ""
        assert {f"incus:{name}:{at}{suffix}" for at in ("before", "during", "after")} <= set(points)


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
async def test_a_run_killed_anywhere_is_resumed(cases: Cases, workspace: Path, group: bool) -> None:
    """The image is made and used, and both jobs pass; gc leaves one image."""
    points = await reached(cases, workspace)

    async def resumed(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point, group=group)
        await scene.pikaci("resume")
        if ":launch:during" in point:
            # The guest in which a new image is tried has no lease: when it is made late, the next
            # command deletes it.
            await scene.late.wait_done()
            await scene.pikaci("resume")
        if is_lost(points, point):
            return []
        return [one async for one in faults(scene, Verdict.PASSED)]

    mine = cases.part(points, 2 * int(group), of=4)
    wanted = [point for point in mine if not group or point.startswith("incus:")]
    await cases.try_all(workspace, wanted, resumed)
    assert {} == cases.wrong
    assert len(cases.missed) < len(wanted) / 10


async def test_a_run_killed_anywhere_is_cancelled(cases: Cases, workspace: Path) -> None:
    """No guest is left, and after gc no image but that of an output."""
    points = await reached(cases, workspace)
    told = [p for p in points if p.startswith("incus:") and not is_lost(points, p)]

    async def cancelled(scene: Scene, point: str) -> list[str]:
        await scene.killed("run", point=point)
        await scene.pikaci("cancel", "--all")
        await scene.late.wait_done()
        # The guest in which a new image is tried has no lease: the next command deletes it.
        await scene.pikaci("resume")
        verdicts = (Verdict.PASSED, Verdict.CANCELLED, Verdict.SKIPPED)
        return [one async for one in faults(scene, *verdicts)]

    wanted = cases.part(told, 0, of=4)
    await cases.try_all(workspace, wanted, cancelled)
    assert {} == cases.wrong
    assert len(cases.missed) < len(wanted) / 10

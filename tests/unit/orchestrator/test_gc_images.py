"""gc and the images that jobs left, on the fake Incus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import JobSpec, Orchestrator, Request, settings
from orchestrator.attempt.attempt import Attempt
from orchestrator.fake_incus import FakeIncus
from orchestrator.hosts import find_host, open_hosts
from orchestrator.image.derived import images_of
from orchestrator.image.store import Image
from orchestrator.incus import Incus
from orchestrator.job.output import JobOutput
from orchestrator.journal import open_journal
from orchestrator.outputs.store import OutputStore
from orchestrator.session import gc, gc_images
from orchestrator.session.gc import Bounds, collect_garbage
from orchestrator.session.gc_images import collect_images, collect_images_on
from orchestrator.state_root import StateRoot
from orchestrator.testing import open_fake
from states.events import OutputRef
from states.lifecycle import State
from tests.unit.orchestrator.fake_hosts import open_fake_hosts
from tests.unit.orchestrator.test_gc_command import gc_command
from tests.unit.orchestrator.test_image_outputs import BOTH, made, script
from tests.unit.orchestrator.test_job_outputs import run


@asynccontextmanager
async def ground(workspace: Path) -> AsyncIterator[tuple[Orchestrator, FakeIncus, Incus]]:
    """An orchestrator that has made an image, and used it."""
    async with open_fake(guest_script=script) as (orchestrator, fake):
        await run(orchestrator, workspace, BOTH)
        assert 1 == len(made(fake))
        yield orchestrator, fake, Incus(workspace.parent / "conf", spawn=fake)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    return place


def forget(orchestrator: Orchestrator) -> None:
    """What gc of outputs does: the output of the deleted run is gone."""
    for record in OutputStore(orchestrator.root.outputs).all():
        (orchestrator.root.outputs / record.directory / "output.json").unlink()


async def collect(
    orchestrator: Orchestrator, incus: Incus, *, dry_run: bool = False
) -> list[Image]:
    return await collect_images(incus, orchestrator.root, orchestrator.journal, dry_run=dry_run)


async def test_an_image_is_kept_as_long_as_its_output(workspace: Path) -> None:
    """And deleted after it; another's images, and those that are no outputs, stay."""
    async with ground(workspace) as (orchestrator, fake, incus):
        images = fake.store.projects["pikaci"].images
        (ours,) = made(fake)
        other = {**ours.properties, "pikaci.output.owner": "somebody-else"}
        images["aa" * 32] = type(ours)("aa" * 32, properties=other)
        kept = await collect(orchestrator, incus)
        forget(orchestrator)
        planned = await collect(orchestrator, incus, dry_run=True)
        before = len(images)
        gone = await collect(orchestrator, incus)

        assert ([], 3, 2) == (kept, before, len(images))
        assert "aa" * 32 in images
    assert [ours.fingerprint] == [one.fingerprint for one in planned]
    assert [ours.fingerprint] == [one.fingerprint for one in gone]


async def test_a_dry_run_tells_what_the_run_would_delete(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image goes with its output, which a dry run leaves where it is."""
    # As if the process that ran the jobs were gone.
    monkeypatch.setattr(gc, "_living", lambda locks: set())
    async with ground(workspace) as (orchestrator, fake, incus):
        root, journal = orchestrator.root, orchestrator.journal
        while journal.open_leases():
            await trio.sleep(0.01)  # their guests are being deleted
        counts: list[tuple[int, int]] = []
        for dry_run in (True, False):
            freed = collect_garbage(root, journal, Bounds(runs=0), dry_run=dry_run)
            images = await collect_images(
                incus, root, journal, dry_run=dry_run, without=freed.output_names
            )
            counts.append((freed.outputs, len(images)))
            assert len(made(fake)) == int(dry_run)

    assert [(1, 1), (1, 1)] == counts


async def test_once_no_image_is_left_no_daemon_is_needed(workspace: Path) -> None:
    """Until the next one is made."""
    async with ground(workspace) as (orchestrator, _, incus):
        store = OutputStore(orchestrator.root.outputs)
        await collect(orchestrator, incus)
        kept = store.images_noted()
        forget(orchestrator)
        await collect(orchestrator, incus, dry_run=True)
        planned = store.images_noted()
        await collect(orchestrator, incus)
        gone = store.images_noted()
        await run(orchestrator, workspace, BOTH)

        assert store.images_noted() is not None
    assert None not in (kept, planned)
    assert gone is None


@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_job_that_may_make_an_image_keeps_the_note(workspace: Path, when: str) -> None:
    """Also one that came, made its image and ended while the images were listed."""
    async with ground(workspace) as (orchestrator, fake, incus):
        store = OutputStore(orchestrator.root.outputs)
        forget(orchestrator)
        for name in [one.fingerprint for one in made(fake)]:
            del fake.store.projects["pikaci"].images[name]
        again = {"again": JobSpec(command="install", output="image")}
        if when == "before":
            slow = Request(workspace, {"slow": JobSpec(command="sleep 60")})
            handle = await orchestrator.submit_run(slow)
            await collect(orchestrator, incus)
            await handle.jobs[0].cancel()
        else:
            with monkey_listing(lambda: run(orchestrator, workspace, again)):
                await collect(orchestrator, incus)

        assert store.images_noted() is not None


@contextmanager
def monkey_listing(after: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """Do something else after gc has listed the images."""
    with pytest.MonkeyPatch.context() as patch:

        async def listed(incus: Incus, owner: str) -> list[Image]:
            found = await images_of(incus, owner)
            await after()
            return found

        patch.setattr(gc_images, "images_of", listed)
        yield


async def test_a_second_image_of_one_output_goes(workspace: Path) -> None:
    """Of a maker that was killed while Incus published: the output has the other one."""
    async with ground(workspace) as (orchestrator, fake, incus):
        (ours,) = made(fake)
        late = type(ours)("bb" * 32, properties=ours.properties)
        fake.store.projects["pikaci"].images["bb" * 32] = late
        gone = await collect(orchestrator, incus)

        assert [ours] == made(fake)
    assert ["bb" * 32] == [one.fingerprint for one in gone]


async def test_gc_beside_a_maker_deletes_nothing_of_its(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no moment between the publication of its image and the end of its job."""
    seen: list[tuple[State, int]] = []
    publish = JobOutput.publish

    async def publish_and_wait(output: JobOutput, attempt: Attempt) -> OutputRef:
        published = await publish(output, attempt)
        while (State.PUBLISHING, 1) not in seen:
            await trio.sleep(0)
        return published

    monkeypatch.setattr(JobOutput, "publish", publish_and_wait)
    async with open_fake(guest_script=script) as (orchestrator, fake):
        incus = Incus(workspace.parent / "conf", spawn=fake)

        async def keep_collecting() -> None:
            while True:
                images = len(made(fake))
                for row in orchestrator.journal.jobs()[:1]:
                    seen.append((row.state, images))
                assert [] == await collect(orchestrator, incus)
                await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_collecting)
            jobs = await run(orchestrator, workspace, BOTH)
            nursery.cancel_scope.cancel()

    assert {"passed"} == {job.verdict for job in jobs.values()}
    assert (State.PUBLISHING, 1) in seen


def without_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: StateRoot) -> Any:
    """What `pikaci gc` returns and prints where there is no incus command."""
    nobody = Incus(tmp_path / "conf", program=str(tmp_path / "no-incus"))
    monkeypatch.setattr(settings, "open_incus", lambda host=None: nobody)
    return gc_command(root, "--keep", "0")


def test_without_a_daemon_images_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, with a code of its own; all else is deleted, and no images need no daemon."""
    root = StateRoot(tmp_path / "root")
    root.make()
    with open_journal(root.journal):
        pass
    code, said = without_daemon(tmp_path, monkeypatch, root)
    OutputStore(root.outputs).note_images()
    code_with_images, said_with_images = without_daemon(tmp_path, monkeypatch, root)

    assert (0, "deleted 0 runs, 0 jobs, 0 snapshots and 0 outputs: 0 B\n") == (code, said)
    assert 4 == code_with_images
    assert "images that jobs left were not deleted: the command" in said_with_images
    assert "deleted 0 runs" in said_with_images


async def test_images_on_other_hosts_are_collected_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host that is down does not stop another; one without images is not asked again."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    names = ("build", "down")
    async with open_fake_hosts(tmp_path, monkeypatch, *names, guest_script=script) as hosts:
        local = Incus(tmp_path / "conf", spawn=hosts)
        for name in names:
            there = settings.Settings(workspace, tmp_path / "root", host=find_host(name))
            async with Orchestrator.open(there, incus=local) as orchestrator:
                await run(orchestrator, workspace, BOTH)
        hosts["down"].kill_daemon()
        hosts["local"].kill_daemon()
        root, store = orchestrator.root, OutputStore(orchestrator.root.outputs)
        for record in store.all():
            (root.outputs / record.directory / "output.json").unlink()
        asked = store.hosts_of_images()
        with open_journal(root.journal) as journal:
            async with open_hosts(local) as opened:
                gone, problems = await collect_images_on(
                    opened, asked, root, journal, dry_run=False
                )

        assert ["build", "down"] == asked
        assert (1, 1, 0) == (len(gone), len(problems), len(made(hosts["build"])))
        assert "on down" in problems[0]
        assert ["down"] == store.hosts_of_images()

"""gc and the images that jobs left, on the fake Incus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import Orchestrator, settings
from orchestrator.fake_incus import FakeIncus
from orchestrator.image.store import Image
from orchestrator.incus import Incus
from orchestrator.journal import open_journal
from orchestrator.outputs.store import OutputStore
from orchestrator.session.gc_images import collect_images
from orchestrator.state_root import StateRoot
from orchestrator.testing import open_fake
from states.lifecycle import State
from tests.unit.orchestrator.test_gc import gc_command
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


async def test_a_second_image_of_one_output_goes(workspace: Path) -> None:
    """Of a maker that was killed while Incus published: the output has the other one."""
    async with ground(workspace) as (orchestrator, fake, incus):
        (ours,) = made(fake)
        late = type(ours)("bb" * 32, properties=ours.properties)
        fake.store.projects["pikaci"].images["bb" * 32] = late
        gone = await collect(orchestrator, incus)

        assert [ours] == made(fake)
    assert ["bb" * 32] == [one.fingerprint for one in gone]


async def test_gc_beside_a_maker_deletes_nothing_of_its(workspace: Path) -> None:
    """At no moment between the publication of its image and the end of its job."""
    seen: list[tuple[State, int]] = []
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

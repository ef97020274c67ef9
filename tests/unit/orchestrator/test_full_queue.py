"""The queue has a bound, and an order that nobody overtakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from orchestrator import (
    Capacity,
    JobSpec,
    QueueFull,
    Request,
    Snapshot,
    UsageError,
)
from orchestrator.job import publisher as publishing
from orchestrator.job.backlog import Backlog
from orchestrator.testing import open_fake
from states import events as ev
from tests.clock import Busy
from tests.unit.orchestrator.submitted import PASSES, SLEEPS, started


async def test_jobs_of_a_run_begin_in_its_order(tmp_path: Path) -> None:
    """Tasks that are started together begin in any order; slots are given in the file's."""
    begun: list[str] = []

    def on_entry(entry: ev.Entry) -> None:
        if isinstance(entry, ev.ArtifactsReset):
            begun.append(entry.job)

    names = [f"{number:02}" for number in range(20)]
    async with open_fake(capacity=Capacity(jobs=1), on_entry=on_entry) as (orchestrator, _):
        run = await orchestrator.submit_run(Request(tmp_path, dict.fromkeys(names, PASSES)))

    assert [job.id for job in run.jobs] == begun


async def test_what_waits_says_for_what(busy: Busy) -> None:
    """A place, or its turn behind another."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        second = await orchestrator.submit(PASSES)
        third = await orchestrator.submit(PASSES)
        await busy.wait_all_tasks_blocked()

        assert "" == running.waits_for()
        assert "a slot: 1 of 1 are taken" == second.waits_for()
        assert third.waits_for().startswith(f"jobs ahead of it; {second.id} is next")
        statistics = orchestrator.statistics()
        assert (2, 1) == (statistics.queued, statistics.running)
        await running.cancel(now=True)


async def test_what_was_waited_for_is_noted(autojump_clock: MockClock) -> None:
    """A place, and who made way; a job that did not wait has no such note."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        first = await orchestrator.submit(JobSpec(command="sleep 10"))
        second = await orchestrator.submit(PASSES)
        await second.wait()
        notes = [
            (job.id, note.what, note.after)
            for job in (first, second)
            for _, note in orchestrator.journal.entries(job.id)
            if isinstance(note, ev.Waited) and note.what is ev.WaitFor.PLACE
        ]

    assert [(second.id, ev.WaitFor.PLACE, first.id)] == notes


async def test_a_full_queue_makes_submitters_wait_or_refuses_them(busy: Busy) -> None:
    """`submit` goes on when a job has begun; `submit_nowait` is told at once."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=1) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        await orchestrator.submit(PASSES)
        with pytest.raises(QueueFull):
            await orchestrator.submit_nowait(PASSES)
        assert 2 == len(orchestrator.journal.jobs())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.submit, PASSES)
            await busy.wait_all_tasks_blocked()
            assert 2 == len(orchestrator.journal.jobs())
            await running.cancel(now=True)

        assert 3 == len(orchestrator.journal.jobs())


@pytest.mark.parametrize("apart", [True, False])
async def test_submitters_that_wait_find_the_queue_bounded(
    apart: bool, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each knows of those before it, also while they publish; and they get room in their order."""
    got_room: list[str] = []
    reserve = Backlog.reserve

    async def noted(backlog: Backlog, jobs: int, *, wait: bool) -> None:
        await reserve(backlog, jobs, wait=wait)
        got_room.append(trio.lowlevel.current_task().name)

    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=3) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        monkeypatch.setattr(Backlog, "reserve", noted)

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(orchestrator.submit, PASSES, name=f"job-{number}")
                if apart:
                    await busy.wait_all_tasks_blocked()
            await busy.wait_all_tasks_blocked()
            assert 1 + 3 == len(orchestrator.journal.jobs())
            with pytest.raises(QueueFull):
                await orchestrator.submit_nowait(PASSES)
            await running.cancel(now=True)

    in_order = [f"job-{number}" for number in range(9)]
    assert in_order == (got_room if apart else sorted(got_room))


async def test_who_does_not_wait_does_not_overtake_a_run_that_does(busy: Busy) -> None:
    """A large run would else never find room."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=2) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        await orchestrator.submit(PASSES)
        workspace = orchestrator.root.path.parent / "workspace"
        large = Request(workspace, {"one": PASSES, "two": PASSES})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.submit_run, large)
            await busy.wait_all_tasks_blocked()
            with pytest.raises(QueueFull):
                await orchestrator.submit_nowait(PASSES)
            await running.cancel(now=True)

        assert 4 == len(orchestrator.journal.jobs())


async def test_a_submission_that_fails_gives_its_room_back() -> None:
    """Or is cancelled: the next one has it."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=1) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        with trio.CancelScope() as scope:
            scope.cancel()
            await orchestrator.submit(PASSES)
        missing = Snapshot("0" * 64, orchestrator.root.snapshots / "none", None, None)
        with pytest.raises(UsageError, match="no longer exists"):
            await orchestrator.submit(PASSES, snapshot=missing)
        await orchestrator.submit_nowait(PASSES)
        await running.cancel(now=True)

        assert 2 == len(orchestrator.journal.jobs())


async def test_a_cancelled_submission_leaves_a_large_workspace(tmp_path: Path) -> None:
    """Between two files; nothing of it is left, and nothing was submitted."""
    for number in range(5000):
        (tmp_path / f"{number}").write_text("x")
    async with open_fake() as (orchestrator, _):
        snapshots = orchestrator.root.snapshots
        with trio.CancelScope() as scope:

            async def cancel_when_it_copies() -> None:
                while not any(snapshots.iterdir()):
                    await trio.sleep(0.001)
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_it_copies)
                await orchestrator.submit(PASSES, workspace=tmp_path)

        assert scope.cancelled_caught
        assert [] == list(snapshots.iterdir())
        assert [] == orchestrator.journal.jobs()


async def test_submitters_leave_threads_to_the_jobs(
    monkeypatch: pytest.MonkeyPatch, busy: Busy
) -> None:
    """However many publish large workspaces at once."""
    publishing_now = most = 0

    async def publish(*args: object, **options: object) -> Snapshot:
        nonlocal publishing_now, most
        publishing_now += 1
        most = max(most, publishing_now)
        await busy.wait_all_tasks_blocked()
        publishing_now -= 1
        raise UsageError("enough")

    monkeypatch.setattr(publishing, "publish", publish)
    async with open_fake() as (orchestrator, _):

        async def submit() -> None:
            with pytest.raises(UsageError, match="enough"):
                await orchestrator.submit(PASSES)

        async with trio.open_nursery() as nursery:
            for _ in range(3 * publishing.PUBLISHERS):
                nursery.start_soon(submit)

    assert publishing.PUBLISHERS == most

"""The library, on the fake Incus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from orchestrator import (
    Capacity,
    JobSpec,
    Orchestrator,
    Settings,
    UsageError,
    Verdict,
)
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.journal import Journal, JournalError, JournalUnwritable
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from states import events as ev
from states.lifecycle import State
from tests.unit.orchestrator.submitted import PASSES, SLEEPS, started


async def test_a_job_is_durable_when_it_is_submitted() -> None:
    """The journal has it before anything is done for it."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)

        assert [ev.Submitted] == [type(e) for _, e in orchestrator.journal.entries(job.id)]
        result = await job.wait()

    assert (Verdict.PASSED, 0) == (result.verdict, result.exit_code)


async def test_the_block_ends_when_its_jobs_have() -> None:
    """As a nursery's does."""
    async with open_fake() as (orchestrator, fake):
        jobs = [await orchestrator.submit(PASSES) for _ in range(3)]
        statistics = orchestrator.statistics

    assert {Verdict.PASSED: 3} == statistics().ended
    assert 0 == statistics().running == statistics().queued
    assert 3 == len({job.id for job in jobs})
    assert not fake.instances()


async def test_an_error_in_the_block_ends_the_jobs_and_is_raised_as_it_is() -> None:
    """Not in a group."""
    verdicts: list[ev.Entry] = []
    with pytest.raises(KeyError, match="mine"):
        async with open_fake(on_entry=verdicts.append) as (orchestrator, _):
            job = await orchestrator.submit(SLEEPS)
            await started(orchestrator, job.id)
            raise KeyError("mine")

    assert isinstance([e for e in verdicts if isinstance(e, ev.Event)][-1], ev.Cancelled)


async def test_a_cancelled_block_ends_its_jobs() -> None:
    """Cancelling by scope: nothing of them lives when the scope is left."""
    seen: list[ev.Entry] = []
    with trio.CancelScope() as scope:
        async with open_fake(on_entry=seen.append) as (orchestrator, _):
            job = await orchestrator.submit(SLEEPS)
            await started(orchestrator, job.id)
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert isinstance([e for e in seen if isinstance(e, ev.Event)][-1], ev.Cancelled)


async def test_a_cancelled_wait_leaves_the_job_alone() -> None:
    """Who waits is a reader."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(JobSpec(command="sleep 1"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await job.wait()

        assert Verdict.PASSED is (await job.wait()).verdict


async def test_cancelling_a_job_returns_when_it_is_dead() -> None:
    """One that runs, one that waits for its turn, and one that has ended."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        done = await orchestrator.submit(PASSES)
        await done.wait()
        running = await orchestrator.submit(SLEEPS)
        waiting = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        for job in (waiting, running, done):
            await job.cancel(reason="not needed", now=True)

        assert [State.CANCELLED] * 2 == [job.job.state for job in (running, waiting)]
        assert Verdict.PASSED is done.job.verdict
        failure = running.job.failure
        assert failure is not None
        assert "cancelled: not needed" == failure.message


async def test_jobs_of_one_snapshot_see_one_tree() -> None:
    """However the workspace changes meanwhile."""
    async with open_fake() as (orchestrator, _):
        snapshot = await orchestrator.snapshot()
        root = orchestrator.root.path
        (root.parent / "workspace" / "new").touch()
        one = await orchestrator.submit(PASSES, snapshot=snapshot)
        two = await orchestrator.submit(PASSES)

        assert snapshot.hash == getattr(one.job.snapshot, "hash", "")
        assert snapshot.hash != getattr(two.job.snapshot, "hash", "")


async def test_a_fault_of_the_journal_is_raised_for_who_waits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The block, and the jobs beside it, go on."""
    async with open_fake() as (orchestrator, _):
        append = orchestrator.journal.append

        async def refuse(*entries: ev.Entry, **more: Any) -> None:
            if any(isinstance(e, ev.Running) and e.job == unlucky.id for e in entries):
                raise JournalError("no room")
            await append(*entries, **more)

        monkeypatch.setattr(orchestrator.journal, "append", refuse)
        unlucky = await orchestrator.submit(PASSES)
        other = await orchestrator.submit(PASSES)
        with pytest.raises(JournalError, match="no room"):
            await unlucky.wait()

        assert Verdict.PASSED is (await other.wait()).verdict


async def test_a_closed_orchestrator_says_that_it_is(tmp_path: Path) -> None:
    """And not that its journal is damaged."""
    (tmp_path / "tree").mkdir()
    settings = Settings(workspace=tmp_path / "tree", state_root=tmp_path / "root")
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            job = await orchestrator.submit(PASSES)
    with pytest.raises(UsageError, match="the orchestrator is closed"):
        await orchestrator.submit(PASSES)
    with pytest.raises(JournalError, match="the journal is not open"):
        await job.wait()


def test_asyncio_is_told_of_the_way_for_it(tmp_path: Path) -> None:
    """Whoever opens an orchestrator there has not read the page yet."""

    async def main() -> None:
        async with Orchestrator.open(Settings(workspace=tmp_path, state_root=tmp_path / "root")):
            pass

    with pytest.raises(UsageError, match="in a trio program") as caught:
        asyncio.run(main())
    assert "from asyncio use orchestrator.aio" in caught.value.resolution


async def test_to_cancel_what_is_not_there_is_an_error() -> None:
    """A mistyped id would go unnoticed."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        with pytest.raises(UsageError, match="no job 'nonsense'"):
            await orchestrator.cancel([job.id, "nonsense"])

        assert Verdict.PASSED is (await job.wait()).verdict


async def test_a_job_that_was_forgotten_is_not_there() -> None:
    """`pikaci gc` may take it while somebody has it in hand."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        await job.wait()
        while orchestrator.drives(job.id):
            await orchestrator.arrivals.entry(job.id).wait()
        orchestrator.journal.forget([job.id])

        assert [] == [event async for event in job.events()]
        with pytest.raises(UsageError, match="no job"):
            await job.wait()


async def test_a_disk_that_was_full_for_a_while_loses_no_job(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Who waits, cancels or submits meanwhile is told; then the job goes on in its guest."""
    full = False
    commit = Journal._commit

    def commit_or_not(journal: Journal, parts: Any) -> None:
        if full:
            raise JournalUnwritable("no room")
        commit(journal, parts)

    monkeypatch.setattr(Journal, "_commit", commit_or_not)
    async with open_fake() as (orchestrator, fake):
        jobs = [await orchestrator.submit(JobSpec(command=f"sleep {n}")) for n in (5, 6)]
        for job in jobs:
            await started(orchestrator, job.id)
        full = True
        for call in (jobs[0].wait, jobs[1].wait, jobs[0].cancel):
            with pytest.raises(JournalUnwritable), trio.fail_after(30):
                await call()
        with pytest.raises(JournalUnwritable):
            await orchestrator.submit(PASSES)
        full = False
        await trio.sleep(2 * EVERY_SECS)
        ended = [(await job.wait()).verdict for job in jobs]

        assert [Verdict.PASSED] * 2 == ended
    assert {} == fake.instances()

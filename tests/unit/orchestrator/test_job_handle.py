"""What it costs to watch a job."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio

from orchestrator import JobSpec
from orchestrator.fake_incus import GuestCommand, GuestOutcome
from orchestrator.job.arrivals import Arrivals
from orchestrator.job.handle import LOG_BYTES
from orchestrator.journal import Journal
from orchestrator.testing import open_fake
from states import events as ev

CHUNKS = 40


async def chatty(command: GuestCommand) -> GuestOutcome:
    for _ in range(CHUNKS):
        command.print(b"x" * LOG_BYTES)
        await trio.sleep(0)
    return GuestOutcome(exit_code=0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the journal's methods that were called to read of a job."""
    called: list[str] = []

    def counted(name: str) -> Any:
        method = getattr(Journal, name)

        def call(*args: Any, **options: Any) -> Any:
            called.append(name)
            return method(*args, **options)

        return call

    for name in ("job", "find", "entries"):
        monkeypatch.setattr(Journal, name, counted(name))
    return called


async def test_who_follows_a_log_reads_no_events(reads: list[str]) -> None:
    """However much is printed: where the job is, its own process knows. But for its end."""
    async with open_fake(guest_script=chatty) as (orchestrator, _):
        job = await orchestrator.submit(JobSpec(command="print"))
        reads.clear()
        size = 0
        async for chunk in job.log():
            assert len(chunk) <= LOG_BYTES
            size += len(chunk)
        while_it_lived = list(reads)

    assert size > CHUNKS * LOG_BYTES
    assert len(while_it_lived) < CHUNKS / 8


async def test_who_waits_reads_no_events(reads: list[str]) -> None:
    """Of a job that this process drives, before its end; then it is read once."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(JobSpec(command="echo one"))
        reads.clear()
        ended = await job.wait()
        while_it_lived = list(reads)
        while orchestrator.drives(job.id):
            await orchestrator.arrivals.entry(job.id).wait()

        assert ["find", "job"] == while_it_lived
        assert ended == await job.wait() == job.job


async def test_a_job_that_was_watched_takes_no_memory() -> None:
    """Nor does one that somebody still waits for when nothing happens to it any more."""
    async with open_fake() as (orchestrator, _):
        for _ in range(3):
            job = await orchestrator.submit(JobSpec(command="echo one"))
            async for _ in job.entries():
                pass
            async for _ in job.log():
                pass
            await job.wait()
        arrivals = orchestrator.arrivals
        assert ([], []) == (list(arrivals._entries), list(arrivals._logs))
        with trio.move_on_after(0.01):
            await arrivals.entry("gone").wait()
        await trio.sleep(0)
        gc.collect()  # trio, and the cancellation, refer to what waited

        assert ([], []) == (list(arrivals._entries), list(arrivals._logs))


async def test_all_who_wait_are_woken() -> None:
    """By one entry, each of them, and by the next one again."""
    arrivals = Arrivals()
    woken: list[str] = []

    async def wait(who: str, event: trio.Event) -> None:
        await event.wait()
        woken.append(who)

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "one", arrivals.entry("r.1"))
            nursery.start_soon(wait, "two", arrivals.entry("r.1"))
            nursery.start_soon(wait, "any", arrivals.entry())
            nursery.start_soon(wait, "log", arrivals.log("r.1"))
            await trio.testing.wait_all_tasks_blocked()
            arrivals.tell("r.2")
            await trio.testing.wait_all_tasks_blocked()
            assert ["any"] == woken
            arrivals.tell("r.1")
        assert ["any", "log", "one", "two"] == sorted(woken)
        woken.clear()


async def test_what_a_process_knows_is_what_the_journal_has() -> None:
    """At every entry that it hears of, also of another attempt, and of a job that it adopts."""
    differences = []
    async with open_fake() as (orchestrator, fake):

        def compare(entry: Any) -> None:
            known = orchestrator.known(entry.job)
            if (
                isinstance(entry, ev.Event)
                and known is not None
                and known != orchestrator.journal.job(entry.job)
            ):
                differences.append(entry)

        orchestrator.journal.observe(compare)
        fake.fail("start", with_error="disk failed", times=1)
        fake.late("delete", secs=0.1)
        jobs = [
            await orchestrator.submit(JobSpec(command="echo one", retries=1)),
            await orchestrator.submit(JobSpec(command="exit 3")),
            await orchestrator.submit(JobSpec(command="sleep 1000")),
        ]
        await jobs[2].cancel(now=True)
        for job in jobs:
            await job.wait()

    assert [] == differences

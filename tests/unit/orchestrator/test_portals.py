"""The library from threads and from asyncio, on the fake Incus."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator import JobSpec, Orchestrator, Settings, UsageError, Verdict, aio
from orchestrator.blocking import open_sync
from orchestrator.testing import open_fake
from states import events as ev

FOREVER = JobSpec(command="sleep 100000")


class Stop(Exception):
    pass


def test_threads_share_an_orchestrator() -> None:
    """Calls have results, iterators their items, and the block ends when its jobs have."""
    ended: list[ev.Entry] = []
    with open_sync(open_fake(on_entry=ended.append)) as (portal, (orchestrator, _)):

        def run(number: int) -> int | None:
            return portal.call(
                orchestrator.submit_and_wait, JobSpec(command=f"exit {number}"), name=f"n{number}"
            ).exit_code

        with ThreadPoolExecutor() as threads:
            assert [0, 1, 2] == list(threads.map(run, range(3)))
        job = portal.call(orchestrator.submit, JobSpec(command="echo out"))
        events = list(portal.each(job.events()))
        assert isinstance(events[-1], ev.ResultCollected)
        for event in portal.each(job.events()):
            assert isinstance(event, ev.Submitted)
            break
        assert b"out\n" in b"".join(portal.each(job.log()))
        portal.call(orchestrator.submit, JobSpec(command="sleep 0.1"), name="last")
    assert 5 == sum(isinstance(entry, ev.ResultCollected) for entry in ended)

    with pytest.raises(UsageError, match="before the end of the block"):
        portal.call(orchestrator.submit, FOREVER)


def test_an_exception_in_the_block_cancels_its_jobs() -> None:
    """It propagates unchanged, and the jobs are dead."""
    entries: list[ev.Entry] = []
    with (
        pytest.raises(Stop),
        open_sync(open_fake(on_entry=entries.append)) as (portal, (orchestrator, _)),
    ):
        portal.call(orchestrator.submit, FOREVER)
        raise Stop

    assert isinstance([entry for entry in entries if isinstance(entry, ev.Event)][-1], ev.Cancelled)


def test_ctrl_c_cancels_the_call_that_waits() -> None:
    """It goes on as a `KeyboardInterrupt` when the job is dead; other calls are possible then."""
    entries: list[ev.Entry] = []

    def on_entry(entry: ev.Entry) -> None:
        entries.append(entry)
        if isinstance(entry, ev.Running) and not interrupted:
            interrupted.append(entry)
            os.kill(os.getpid(), signal.SIGINT)

    interrupted: list[ev.Entry] = []
    with open_sync(open_fake(on_entry=on_entry)) as (portal, (orchestrator, _)):
        with pytest.raises(KeyboardInterrupt):
            portal.call(orchestrator.submit_and_wait, FOREVER)
        assert any(isinstance(entry, ev.Cancelled) for entry in entries)
        job = portal.call(orchestrator.submit_and_wait, JobSpec(command="true"))
        assert Verdict.PASSED is job.verdict


def test_what_cannot_be_opened_raises_its_error(tmp_path: Path) -> None:
    """And leaves no thread that waits."""
    (tmp_path / "root").touch()
    settings = Settings(workspace=tmp_path, state_root=tmp_path / "root")

    async def with_asyncio() -> None:
        async with aio.open(Orchestrator.open(settings)):
            pass

    with pytest.raises((OSError, UsageError)) as one, open_sync(Orchestrator.open(settings)):
        pass
    with pytest.raises(type(one.value)):
        asyncio.run(with_asyncio())


async def used(entries: list[ev.Entry]) -> None:
    async with aio.open(open_fake(on_entry=entries.append)) as (portal, (orchestrator, _)):
        job = await portal.call(orchestrator.submit, JobSpec(command="echo out"))
        events = [event async for event in portal.each(job.events())]
        assert isinstance(events[-1], ev.ResultCollected)
        assert Verdict.PASSED is (await portal.call(job.wait)).verdict


async def call_cancelled(entries: list[ev.Entry]) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_entry(entry: ev.Entry) -> None:
        entries.append(entry)
        if isinstance(entry, ev.Running):
            loop.call_soon_threadsafe(begun.set)

    async with aio.open(open_fake(on_entry=on_entry)) as (portal, (orchestrator, _)):
        task = asyncio.create_task(portal.call(orchestrator.submit_and_wait, FOREVER))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert any(isinstance(entry, ev.Cancelled) for entry in entries), "before the block ends"
        assert (
            Verdict.PASSED
            is (await portal.call(orchestrator.submit_and_wait, JobSpec(command="true"))).verdict
        )


async def block_cancelled(entries: list[ev.Entry], *, in_body: bool) -> None:
    inside = asyncio.Event()

    async def block() -> None:
        async with aio.open(open_fake(on_entry=entries.append)) as (portal, (orchestrator, _)):
            await portal.call(orchestrator.submit, FOREVER)
            inside.set()
            if in_body:
                await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await inside.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert any(isinstance(entry, ev.Cancelled) for entry in entries)


@pytest.mark.parametrize(
    "program",
    [
        used,
        call_cancelled,
        lambda entries: block_cancelled(entries, in_body=True),
        lambda entries: block_cancelled(entries, in_body=False),
    ],
)
def test_asyncio(program: Callable[[list[ev.Entry]], Any]) -> None:
    """Results and items; a cancellation goes on when its jobs are dead, wherever it comes."""
    asyncio.run(program([]))

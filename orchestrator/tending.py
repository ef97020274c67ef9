"""A state root is tended for as long as a process has something to do in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from orchestrator import reaper
from orchestrator.errors import contained
from orchestrator.intents import IntentSwitch
from orchestrator.job_task import JobTask
from orchestrator.queue import Queue
from orchestrator.recovery import recover
from orchestrator.workbench import Workbench
from states.ending import Intent

# Kept guests end at their deadlines, and what could not be deleted is tried again.
EVERY_SECS = 60.0


@asynccontextmanager
async def tending(
    bench: Workbench,
    queue: Queue,
    tasks: dict[str, JobTask],
    take_up_lost: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Meanwhile, what dead processes left goes on, and instances that nobody needs go.

    `tasks` has the jobs that go on, by id. Those that have not ended with the block go on in
    their guests, and are the next start's. `take_up_lost` goes on with those that this process
    has lost, as its journal could not be written for a while.
    """
    aside = replace(bench, intent=IntentSwitch(bench.intent), keep_secs=None)
    # What cancels the block must not reach its jobs before they are told to leave.
    scope = trio.CancelScope(shield=True)

    async def go_on() -> None:
        await recover(aside, queue, tasks=tasks, wait_for_secrets=True)

    async def reap() -> None:
        await reaper.reap(aside, await reaper.unneeded(aside))

    async def tend() -> None:
        # What is wrong with these is no concern of the block's jobs. Whoever resumes is told.
        faults: list[BaseException] = []
        with scope:
            async with trio.open_nursery() as nursery:
                while True:
                    await contained(faults, take_up_lost)
                    nursery.start_soon(contained, faults, go_on)
                    await contained(faults, reap)
                    await trio.sleep(EVERY_SECS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tend)
        try:
            yield
        finally:
            aside.intent.rise(Intent.DETACH)
            scope.cancel()

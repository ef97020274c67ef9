"""A state root is tended for as long as a process has something to do in it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.errors import collect_errors
from orchestrator.job.context import Workbench
from orchestrator.job.driver import Driver
from orchestrator.job.queue import Queue
from orchestrator.session import reaper
from orchestrator.session.recovery import recover
from states.ending import Intent
from states.errors import PikaciError

# Kept guests end at their deadlines, and what could not be deleted is tried again.
EVERY_SECS = 60.0
_log = logging.getLogger(__name__)


@asynccontextmanager
async def upkeep(bench: Workbench, queue: Queue, driver: Driver) -> AsyncIterator[None]:
    """Meanwhile, what dead processes left goes on, and instances that nobody needs go.

    The driver's tasks have the jobs that go on. Those that have not ended with the block go on in
    their guests, and are the next start's. Jobs that the driver lost, as its journal could not be
    written for a while, go on too. What one of these duties could not do, the driver is told; it
    is done again later.
    """
    aside = replace(bench, intent=IntentSwitch(bench.intent), keep_secs=None)
    # What cancels the block must not reach its jobs before they are told to leave.
    scope = trio.CancelScope(shield=True)

    async def go_on() -> None:
        await recover(
            aside,
            queue,
            tasks=driver.tasks,
            wait_for_secrets=True,
            on_fault=partial(driver.on_fault, "recover"),
        )

    async def reap() -> None:
        doomed = await reaper.unneeded(aside)
        for one in doomed:
            about = {"instance": one.instance, "reason": one.reason}
            _log.info("deletes an instance", extra={"about": about})
        for instance, problem in (await reaper.reap(aside, doomed)).items():
            driver.on_fault("reap", PikaciError(f"{instance} could not be deleted: {problem}"))

    async def tend() -> None:
        # What is wrong with these is no concern of the block's jobs.
        with scope:
            async with trio.open_nursery() as nursery:
                while True:
                    await collect_errors(partial(driver.on_fault, "take_up"), driver.take_up_lost)
                    nursery.start_soon(collect_errors, partial(driver.on_fault, "recover"), go_on)
                    await collect_errors(partial(driver.on_fault, "reap"), reap)
                    await trio.sleep(EVERY_SECS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tend)
        try:
            yield
        finally:
            aside.intent.rise(Intent.DETACH)
            scope.cancel()

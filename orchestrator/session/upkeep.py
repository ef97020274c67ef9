"""Upkeep of a state root, while a process uses it.

Each host is looked after by itself, so that one that does not answer delays nothing elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.errors import collect_errors
from orchestrator.job.context import Context
from orchestrator.job.driver import Driver
from orchestrator.job.queue import Queue
from orchestrator.session import reaper
from orchestrator.session.lingering import take_up_lingering
from orchestrator.session.recovery import recover
from states.ending import Intent
from states.errors import PikaciError

# Each round deletes expired guests, and retries failed deletes. A host whose last round still runs
# is left out of the next.
EVERY_SECS = 60.0
_log = logging.getLogger(__name__)


@asynccontextmanager
async def upkeep(
    context: Context, queue: Queue, driver: Driver, session: str
) -> AsyncIterator[None]:
    """While the block runs, resume jobs of dead processes, and delete instances nobody needs.

    Resumed jobs are in `driver.tasks`. Those that are unfinished at the end of the block continue
    in their guests, for the next start. The driver also takes up jobs that it lost. A duty that
    fails is reported to `driver.on_fault`, and retried.
    """
    aside = replace(context, intent=IntentSwitch(context.intent), keep_secs=None)
    # A cancellation of the block must not reach its jobs before they are told to detach.
    scope = trio.CancelScope(shield=True)

    async def go_on() -> None:
        await recover(
            aside,
            queue,
            tasks=driver.tasks,
            stays=True,
            on_fault=partial(driver.on_fault, "recover"),
        )

    async def reap(host: str) -> None:
        doomed = await reaper.unneeded(aside, partial(driver.on_fault, "reap"), hosts=(host,))
        for one in doomed:
            about = {"instance": one.instance, "reason": one.reason}
            _log.info("deleting an instance", extra={"about": about})
        for instance, problem in (await reaper.reap(aside, doomed)).items():
            driver.on_fault("reap", PikaciError(f"{instance} could not be deleted: {problem}"))

    looked_after: set[str] = set()

    async def look_after(host: str) -> None:
        linger = partial(take_up_lingering, aside, session, driver, host=host)
        await collect_errors(partial(driver.on_fault, "reap"), partial(reap, host))
        await collect_errors(partial(driver.on_fault, "take_up"), linger)
        looked_after.remove(host)

    async def work() -> None:
        # Errors of upkeep must not reach the block.
        with scope:
            async with trio.open_nursery() as nursery:

                async def look_after_hosts() -> None:
                    for host in await trio.to_thread.run_sync(reaper.used_hosts, aside):
                        if host not in looked_after:
                            looked_after.add(host)
                            nursery.start_soon(look_after, host)

                while True:
                    await collect_errors(partial(driver.on_fault, "take_up"), driver.take_up_lost)
                    nursery.start_soon(collect_errors, partial(driver.on_fault, "recover"), go_on)
                    await collect_errors(partial(driver.on_fault, "reap"), look_after_hosts)
                    await trio.sleep(EVERY_SECS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        try:
            yield
        finally:
            aside.intent.rise(Intent.DETACH)
            scope.cancel()

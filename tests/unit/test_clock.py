"""The clock of the tests: what it stands for, and what it jumps over."""

from __future__ import annotations

import time

import anyio.to_thread
import pytest
import trio
from trio.testing import MockClock

from tests.clock import Busy

WORK_SECS = 0.05


async def test_it_jumps_when_all_tasks_wait(autojump_clock: MockClock) -> None:
    """A sleep takes its time by the clock, and none of the machine's."""
    before = trio.current_time()
    await trio.sleep(100_000)

    assert 100_000 == trio.current_time() - before


@pytest.mark.parametrize("module", [trio.to_thread, anyio.to_thread])
async def test_it_stands_while_a_thread_works(module: object, autojump_clock: MockClock) -> None:
    """A deadline does not pass meanwhile; afterwards it jumps again."""
    before = trio.current_time()
    with trio.fail_after(1):
        await module.run_sync(time.sleep, WORK_SECS, abandon_on_cancel=True)  # type: ignore[attr-defined]
    worked = trio.current_time() - before
    await trio.sleep(100)

    assert (0, 100) == (worked, trio.current_time() - before)


async def test_it_stands_while_a_subprocess_runs(autojump_clock: MockClock) -> None:
    """As long as its caller waits for it."""
    with trio.fail_after(1):
        await trio.run_process(["sleep", str(WORK_SECS)])


async def test_a_task_that_waits_for_a_thread_is_not_blocked(busy: Busy) -> None:
    """It has gone on, to where it waits for something else, when all tasks are blocked."""
    begun = trio.Event()
    ended = False

    async def work() -> None:
        nonlocal ended
        begun.set()
        await trio.to_thread.run_sync(time.sleep, WORK_SECS)
        await trio.to_thread.run_sync(time.sleep, WORK_SECS)
        ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await begun.wait()
        await busy.wait_all_tasks_blocked()

        assert ended

"""A full garbage collection blocks the service, so it happens when no job is queued."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from orchestrator import Capacity, JobSpec
from orchestrator.service import garbage
from orchestrator.testing import open_fake
from states import events as ev

SLEEPS = JobSpec(command="sleep 100000", timeout_secs=200_000)


async def test_garbage_is_collected_when_no_job_waits(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    """Or after an hour if never idle; Python's own rule is restored at the end."""
    collected: list[float] = []
    rule = gc.get_threshold()

    async def pass_minutes(minutes: int) -> None:
        await wait_all_tasks_blocked()
        for _ in range(minutes):
            mock_clock.jump(60)
            await wait_all_tasks_blocked()

    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        job = await orchestrator.submit(SLEEPS)
        async for event in job.events():
            if isinstance(event, ev.Running):
                break
        monkeypatch.setattr(gc, "collect", lambda: collected.append(trio.current_time()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(garbage.collect_when_idle, orchestrator)
            await pass_minutes(2)
            assert 1 + 2 == len(collected)  # one at its start
            assert gc.get_threshold()[:2] == rule[:2]
            assert gc.get_threshold()[2] > 1000 * rule[2]

            await orchestrator.submit(SLEEPS)
            while not orchestrator.queue.queued:
                await trio.lowlevel.checkpoint()
            await pass_minutes(59)
            assert 1 + 2 == len(collected)
            await pass_minutes(2)
            assert 1 + 2 + 1 == len(collected)
            nursery.cancel_scope.cancel()
        assert rule == gc.get_threshold()
        assert 0 == gc.get_freeze_count()
        orchestrator.detach()

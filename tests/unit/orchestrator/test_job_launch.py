"""The one call that creates a job's guest and starts it: late, hanging, or broken off half-way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator.attempt.effects import ANSWER_SECS, HURRIED_SECS
from orchestrator.job.steps import MAX_BROKEN_OFF
from states import events as ev
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec
from tests.unit.orchestrator.rig import open_rig, settled, sweep


async def test_a_create_that_was_never_answered_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An instance that appears after its create was given up is deleted all the same."""
    async with open_rig(tmp_path) as rig:
        rig.fake.late("create", secs=730)

        job = await rig.live(JobSpec(command="true", retries=0))

        assert State.FAILED == job.state
        await trio.sleep(100)
        assert settled(rig)


@pytest.mark.parametrize(("now", "waited"), [(False, ANSWER_SECS), (True, HURRIED_SECS)])
async def test_who_wants_no_grace_period_does_not_wait_for_a_create_that_hangs(
    tmp_path: Path, autojump_clock: MockClock, now: bool, waited: float
) -> None:
    """What may still appear is left to the next start."""
    async with open_rig(tmp_path) as rig:
        rig.fake.hang("create")
        task = await rig.submit(JobSpec(command="true"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await trio.sleep(5)
            began = trio.current_time()
            task.cancel("interrupted")
            if now:
                task.cancel("interrupted", now=True)
            while not task.job.ended:
                await trio.sleep(0.1)
            ended = trio.current_time()

        assert Verdict.CANCELLED == task.job.verdict
        assert waited <= ended - began < waited + 1
        await sweep(rig)
        assert settled(rig)


async def test_a_create_that_is_about_to_be_answered_is_awaited_all_the_same(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Or a second Ctrl-C would leave the guest of nearly every job that begins."""
    async with open_rig(tmp_path) as rig:
        rig.fake.late("create", secs=6)
        task = await rig.submit(JobSpec(command="true"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await trio.sleep(5)
            task.cancel("interrupted", now=True)

        assert Verdict.CANCELLED == task.job.verdict
        assert settled(rig)


@pytest.mark.parametrize("carried_out", [False, True])
async def test_a_daemon_that_goes_down_within_a_launch_costs_an_attempt_and_no_retry(
    tmp_path: Path, autojump_clock: MockClock, carried_out: bool
) -> None:
    """The instance has its name, and perhaps not all of its files: it is deleted, never started."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("start", with_error="Daemon is shutting down", carried_out=carried_out)

        job = await rig.live(JobSpec(command="true", retries=0))

        assert (Verdict.PASSED, 2, 0) == (job.verdict, job.attempt, job.retries)
        (again,) = (entry for entry in rig.entries() if isinstance(entry, ev.Restarted))
        assert "a launch of the instance was interrupted" in again.reason
        assert settled(rig)


async def test_a_name_that_is_always_taken_ends_the_job(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A daemon that ends in each of its launches; more retries would not help."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("create", with_error="Instance 'x' already exists", times=100)

        job = await rig.live(JobSpec(command="true", retries=2))

        assert Verdict.INFRASTRUCTURE == job.verdict
        assert job.failure is not None
        assert "already exists" in job.failure.message
        assert MAX_BROKEN_OFF + 1 == job.attempt
        assert settled(rig)

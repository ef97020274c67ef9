"""What happens to a warm guest while Incus plugs in the job's devices, on the fake Incus."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, Verdict
from orchestrator.attempt.attempt import Attempt
from orchestrator.attempt.boot import NotReady
from orchestrator.incus import Completed
from orchestrator.testing import open_fake
from states import events as ev
from tests.unit.orchestrator.warm_guests import ONE, PASSES, entries, is_warm, until, until_idle

NO_DEVICE = "Failed to add device: no"


class Unwinding:
    """Execs that take a while to end when they are cancelled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.begun = False
        self._run = Attempt.run
        self._error = error
        monkeypatch.setattr(Attempt, "run", lambda *args, **named: self._slowly(*args, **named))

    async def _slowly(self, *args: Any, **named: Any) -> Completed | None:
        try:
            return await self._run(*args, **named)
        except BaseException:  # the cancellation, in a group
            self.begun = True
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            if self._error is not None:
                error, self._error = self._error, None
                raise error from None
            raise


async def test_a_guest_whose_exec_fails_as_well_is_replaced(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two errors at once are no reason to give up a job that one of them would not end."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        Unwinding(monkeypatch, NotReady("a mount is missing"))
        fake.fail("query PATCH", with_error=NO_DEVICE)
        job = await orchestrator.submit_and_wait(PASSES)

        assert (Verdict.PASSED, 2, False) == (job.verdict, job.attempt, is_warm(job))
        assert guest.name not in fake.instances()


async def test_a_job_that_is_cancelled_as_its_guest_fails_is_cancelled(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's error comes out beside the cancellation, and does not count."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        unwinding = Unwinding(monkeypatch)
        fake.fail("query PATCH", with_error=NO_DEVICE)
        job = await orchestrator.submit(JobSpec(command="sleep 100"))
        await until(lambda: unwinding.begun)
        await job.cancel()
        ended = await job.wait()

        assert Verdict.CANCELLED is ended.verdict
        assert guest.name not in fake.instances()


@pytest.mark.parametrize("how", ["stopped", "deleted", "exec fails"])
async def test_a_guest_that_dies_while_it_is_plugged_is_replaced(
    autojump_clock: MockClock, how: str
) -> None:
    """Its exec, which waits in it, ends as it may: nothing of the job has run."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        fake.late("query PATCH", secs=2)
        if how == "exec fails":
            fake.fail("exec", with_error="something odd", name=guest.name)
        job = await orchestrator.submit(PASSES)
        await until(lambda: entries(orchestrator, job, ev.LeaseClaimed))
        if how == "stopped":
            fake.stop_guest(guest.name)
        elif how == "deleted":
            fake.delete_guest(guest.name)
        ended = await job.wait()

        assert (Verdict.PASSED, 2, 0) == (ended.verdict, ended.attempt, ended.retries)
        assert not is_warm(ended)
        (restarted,) = entries(orchestrator, ended, ev.Restarted)
        assert "its warm guest could not be used" in restarted.reason
        assert guest.name not in fake.instances()

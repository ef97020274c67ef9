"""A warm guest's exec and the plugging of its devices that fail at once, on the fake Incus."""

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
from tests.unit.orchestrator.warm_guests import ONE, PASSES, is_warm, until, until_idle

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

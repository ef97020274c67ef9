"""Jobs, and what tests of warm guests look for on the fake Incus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from orchestrator import Job, JobSpec, Orchestrator, WarmGuests
from orchestrator.fake_incus import FakeIncus, Instance

ONE = WarmGuests(size=1)
PASSES = JobSpec(command="echo done")
SLEEPS = JobSpec(command="sleep 1000", timeout_secs=5000)


def idle(fake: FakeIncus) -> list[Instance]:
    return [one for one in fake.instances().values() if "user.pikaci.job" not in one.config]


async def until_idle(fake: FakeIncus, *, but: Sequence[Instance] = ()) -> list[Instance]:
    """The warm guests, when there are some apart from these, and they have booted."""
    with trio.fail_after(600):
        while not idle(fake) or any(one in but for one in idle(fake)):
            await trio.sleep(0.1)
        await trio.sleep(5)
    return idle(fake)


async def until(is_there: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not is_there():
            await trio.sleep(0.1)


def entries(orchestrator: Orchestrator, job: Job, kind: type[Any]) -> list[Any]:
    return [one for _, one in orchestrator.journal.entries(job.id) if isinstance(one, kind)]


def is_warm(job: Job) -> bool:
    return job.warm_ms is not None

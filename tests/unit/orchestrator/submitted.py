"""Jobs that tests of the library submit."""

from __future__ import annotations

from orchestrator import (
    JobSpec,
    Orchestrator,
)
from states import events as ev

PASSES = JobSpec(command="echo one; echo two")


SLEEPS = JobSpec(command="sleep 10000", timeout_secs=100_000)


async def started(orchestrator: Orchestrator, job: str) -> None:
    """Return when the job's command runs."""
    async for event in orchestrator.job(job).events():
        if isinstance(event, ev.Running):
            return

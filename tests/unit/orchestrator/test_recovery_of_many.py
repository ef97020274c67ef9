"""Many jobs that dead processes left: what is read and done for them grows with their number only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.capacity import Capacity
from orchestrator.job.queue import Queue
from orchestrator.job.task import STARTED_AT_ONCE, JobTask
from orchestrator.session import recovery
from orchestrator.session.recovery import left, recover
from states import events as ev
from states.ending import Intent
from states.spec import JobSpec
from tests.samples import BEGAN
from tests.unit.orchestrator.rig import Rig, open_rig

SESSIONS, JOBS = 5, 4


async def leave(rig: Rig, *runs: str, jobs: int = JOBS) -> None:
    """Jobs of a dead process, each with an open lease."""
    for run in runs:
        for number in range(1, jobs + 1):
            task = await rig.submit(JobSpec(command="true"), run=run, number=number)
            lease = {"job": task.job.id, "instance": f"pikaci-{task.job.id}", "deadline": BEGAN}
            await rig.journal.append(ev.LeaseOpened(**lease, at=BEGAN, monotonic=1.0))


async def test_a_session_s_rest_is_its_own(tmp_path: Path) -> None:
    """Of all its runs, and of no session whose name begins with the same letters."""
    async with open_rig(tmp_path) as rig:
        await leave(rig, "r", "r-2", "rr", "q", jobs=1)
        found = left(rig.context, "r")

        assert {"r": ["r.1", "r-2.1"]} == found.jobs
        assert ["r.1", "r-2.1"] == [lease.job for lease in found.leases["r"]]
        assert ["r", "rr", "q"] == left(rig.context).sessions


async def test_a_session_does_not_read_the_others_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are read once to find the sessions, and then each session's own."""
    async with open_rig(tmp_path) as rig:
        await leave(rig, *(f"s{number}" for number in range(SESSIONS)))
        rig.context.intent.rise(Intent.DETACH)
        read = {"unfinished": 0, "open_leases": 0}
        for name in read:
            asked = getattr(rig.journal, name)

            def counted(asked: Any = asked, name: str = name, **options: Any) -> Any:
                rows = asked(**options)
                read[name] += len(rows)
                return rows

            monkeypatch.setattr(rig.journal, name, counted)
        monkeypatch.setattr(recovery, "JobTask", NotTaken)
        assert [] == await recover(rig.context, Queue(Capacity(jobs=1)))

    assert {"unfinished": 2 * SESSIONS * JOBS, "open_leases": 2 * SESSIONS * JOBS} == read


class NotTaken(JobTask):
    """A task that leaves its leases as they are; `begun` counts them all, `queued` those that are."""

    begun = queued = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "leases": ()})
        NotTaken.begun += 1

    def enqueue(self) -> None:
        NotTaken.queued += 1


async def test_others_run_while_many_jobs_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, the loop turns after a few of them."""
    jobs = 5 * STARTED_AT_ONCE
    seen: list[tuple[int, int]] = []

    async def look() -> None:
        while True:
            seen.append((NotTaken.begun, NotTaken.queued))
            await trio.lowlevel.checkpoint()

    NotTaken.begun = NotTaken.queued = 0
    async with open_rig(tmp_path) as rig, trio.open_nursery() as nursery:
        await leave(rig, "r", jobs=jobs)
        rig.context.intent.rise(Intent.DETACH)
        monkeypatch.setattr(recovery, "JobTask", NotTaken)
        nursery.start_soon(look)
        assert [] == await recover(rig.context, Queue(Capacity(jobs=1)))
        nursery.cancel_scope.cancel()

    assert (jobs, jobs) == (NotTaken.begun, NotTaken.queued)
    # Tasks run in any order, so there may be two batches between two looks.
    for counts in zip(*seen, strict=True):
        steps = [now - before for before, now in zip((0, *counts), counts, strict=False)]
        assert max(steps) <= 2 * STARTED_AT_ONCE

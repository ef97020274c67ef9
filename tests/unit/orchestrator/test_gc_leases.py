"""A run whose guest nobody needs any more: gc ends its lease first, and a dry run knows that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator.capacity import Capacity
from orchestrator.job.queue import Queue
from orchestrator.journal.stamp import now
from orchestrator.session import locks
from orchestrator.session.gc import Bounds, Freed, collect_garbage
from orchestrator.session.recovery import leases_to_end, recover
from states import events as ev
from states.spec import JobSpec
from tests.unit.orchestrator.gc_ground import Ground
from tests.unit.orchestrator.gc_ground import ground as ground
from tests.unit.orchestrator.rig import Rig, open_rig
from tests.unit.orchestrator.test_gc_command import gc_command

PASSES = JobSpec(command="true")
SECS = 5.0


async def ending(rig: Rig) -> list[str]:
    return [lease.instance for lease in await leases_to_end(rig.context, within_secs=SECS)]


async def planned_and_done(rig: Rig) -> tuple[Freed, Freed]:
    """What a dry run says, and what gc does then, as the command does both."""
    root, journal, all_runs = rig.context.root, rig.journal, Bounds(runs=0)
    planned = collect_garbage(root, journal, all_runs, dry_run=True, ending=await ending(rig))
    with trio.move_on_after(SECS):
        await recover(rig.context, Queue(Capacity(jobs=1)), only=())
    return planned, collect_garbage(root, journal, all_runs, dry_run=False)


async def test_a_run_whose_guest_incus_deletes_goes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its process did not wait for the delete: a dry run says what gc does."""
    async with open_rig(tmp_path, waits_for_delete=False) as rig:
        await rig.live(PASSES)
        leases = [lease.instance for lease in rig.journal.open_leases()]

        assert leases == await ending(rig) != []
        planned, done = await planned_and_done(rig)
        assert planned == done
        assert (1, 1, []) == (done.runs, done.jobs, rig.journal.open_leases())


async def test_a_run_stays_while_its_host_does_not_answer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """In a dry run, too: nobody knows whether the guest is gone."""
    async with open_rig(tmp_path, waits_for_delete=False) as rig:
        await rig.live(PASSES)
        rig.fake.kill_daemon()

        planned, done = await planned_and_done(rig)
        assert planned == done
        assert (0, 1) == (done.runs, len(rig.journal.open_leases()))


async def test_a_host_that_is_not_in_the_settings_keeps_only_its_own_runs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The others are named, and go."""
    async with open_rig(tmp_path, waits_for_delete=False) as rig:
        await rig.live(PASSES)
        far = await rig.live(PASSES, run="q")
        lease = {"job": far.id, "instance": "pikaci-far", **now()}
        await rig.journal.append(
            ev.LeaseOpened(host="nowhere", deadline=datetime.now(UTC), **lease)
        )

        planned, done = await planned_and_done(rig)
        assert planned == done
        assert (1, ["q"]) == (done.runs, list(rig.journal.runs()))


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_kept_guest_keeps_its_run_until_its_time_is_over(
    tmp_path: Path, autojump_clock: MockClock, hours: int
) -> None:
    """Then nobody needs it."""
    async with open_rig(tmp_path, waits_for_delete=False) as rig:
        job = await rig.live(PASSES)
        until = datetime.now(UTC) + timedelta(hours=hours)
        (lease,) = rig.journal.open_leases()
        await rig.journal.append(
            ev.LeaseKept(job=job.id, instance=lease.instance, deadline=until, **now())
        )

        planned, done = await planned_and_done(rig)
        assert planned == done
        assert int(hours < 0) == done.runs


async def test_what_a_live_process_has_is_left_to_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """And the guests of jobs that have not ended."""
    async with open_rig(tmp_path, waits_for_delete=False) as rig:
        await rig.live(PASSES)
        task = await rig.submit(PASSES, run="q")
        lease = {"job": task.job.id, "instance": "pikaci-q", **now()}
        await rig.journal.append(ev.LeaseOpened(deadline=datetime.now(UTC), **lease))

        with locks.hold_run(rig.context.root.locks, "r"):
            assert [] == await ending(rig)
        assert "pikaci-q" not in await ending(rig)


async def test_beside_a_service_the_command_ends_no_lease(ground: Ground) -> None:
    """That does it itself; a dry run says so, too."""
    await ground.run("r")
    lease = {"job": "r.1", "instance": "pikaci-x", **now()}
    await ground.journal.append(ev.LeaseOpened(deadline=datetime.now(UTC), **lease))

    gc = partial(trio.to_thread.run_sync, gc_command, ground.root, "--keep", "0")
    with locks.hold_root(ground.root.path):
        planned, done = await gc("--dry-run"), await gc()

    assert (0, 0) == (planned[0], done[0])
    assert "would delete 0 runs" in planned[1]
    assert "deleted 0 runs" in done[1]

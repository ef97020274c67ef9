"""Which warm guests there are, and when: made for jobs to come, and none that nobody needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator import Capacity, JobSpec, Orchestrator, Request, UsageError, WarmGuests
from orchestrator.job.pool import LOOK_EVERY_SECS, STARTS_SECS
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from states.lifecycle import State
from tests.unit.orchestrator.rig import open_rig
from tests.unit.orchestrator.test_id_map import FEW, add_stranger
from tests.unit.orchestrator.warm_guests import (
    ONE,
    PASSES,
    SLEEPS,
    idle,
    is_warm,
    until,
    until_idle,
)


async def test_jobs_come_first(autojump_clock: MockClock) -> None:
    """A guest has a slot that no job has, and gives it to a job that it does not fit: deleted
    before that one's guest is made."""
    async with open_fake(warm=ONE, capacity=Capacity(jobs=1)) as (orchestrator, fake):
        job = await orchestrator.submit(PASSES)
        await job.wait()
        (guest,) = await until_idle(fake)
        most = 0
        other = await orchestrator.submit(msgspec.structs.replace(SLEEPS, cpus=1))
        with trio.fail_after(60):
            while (found := orchestrator.journal.job(other.id)).instance is None:
                most = max(most, len(fake.instances()))
                await trio.sleep(0.01)
        await trio.sleep(10)

        assert guest.name not in fake.instances()
        assert [found.instance] == [*fake.instances()]
        assert 1 == most
        await other.cancel()


@pytest.mark.parametrize(
    "capacity",
    [
        Capacity(jobs=2),
        Capacity(jobs=9, cpus=5),
        Capacity(jobs=9, memory=9 << 30),
    ],
    ids=["slots", "cpus", "memory"],
)
async def test_guests_have_only_what_jobs_leave(
    autojump_clock: MockClock, capacity: Capacity
) -> None:
    """With a job that runs, one more of its size is all that fits."""
    spec = msgspec.structs.replace(SLEEPS, cpus=2, memory="4GiB")
    async with open_fake(warm=WarmGuests(size=4), capacity=capacity) as (orchestrator, fake):
        for _ in range(4):
            await orchestrator.submit_and_wait(msgspec.structs.replace(spec, command="true"))
        running = await orchestrator.submit(spec)
        await trio.sleep(60)

        assert 1 == len(idle(fake))
        await running.cancel()


async def test_nothing_is_made_while_a_job_is_queued(autojump_clock: MockClock) -> None:
    """What a job waits for is not given to a guest."""
    capacity = Capacity(jobs=9, cpus=4)
    small, big = (msgspec.structs.replace(SLEEPS, cpus=cpus) for cpus in (2, 4))
    async with open_fake(warm=ONE, capacity=capacity) as (orchestrator, fake):
        request = Request(orchestrator.root.path.parent / "workspace", {"small": small, "big": big})
        running, queued = (await orchestrator.submit_run(request)).jobs
        await trio.sleep(ONE.idle_secs / 2)
        assert [] == idle(fake)

        await queued.cancel()
        await until_idle(fake)
        await running.cancel()


@pytest.mark.parametrize("starts", [True, False])
async def test_nothing_is_made_while_a_job_starts(autojump_clock: MockClock, starts: bool) -> None:
    """It would take longer then; but a job that does not start is not waited for."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        if starts:
            fake.late("create", secs=30)
        else:
            fake.hang("create")
        job = await orchestrator.submit(SLEEPS)
        await trio.sleep(29)
        assert [] == idle(fake)
        await trio.sleep(5 if starts else STARTS_SECS)
        assert 1 == len(idle(fake))
        await job.cancel(now=True)


async def test_an_old_guest_leaves(autojump_clock: MockClock) -> None:
    """And none takes its place when no job came lately."""
    async with open_fake(warm=WarmGuests(size=1, idle_secs=100)) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)
        await trio.sleep(100 + 2 * LOOK_EVERY_SECS)

        assert {} == fake.instances()
        assert not is_warm(await orchestrator.submit_and_wait(PASSES))


async def test_a_new_image_replaces_guests(autojump_clock: MockClock) -> None:
    """Before any job asks: a job gets a guest of the image that its alias names."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        old = await until_idle(fake)
        images = fake.store.images("pikaci")
        (before,) = images.values()
        after = msgspec.structs.replace(before, fingerprint="cd" * 32)
        images[after.fingerprint] = after
        before.aliases = []
        (new,) = await until_idle(fake, but=old)
        job = await orchestrator.submit_and_wait(PASSES)

        assert (new.name, after.fingerprint) == (job.instance, new.image)
        assert is_warm(job)


async def test_nothing_is_asked_when_no_job_came_lately(autojump_clock: MockClock) -> None:
    """Not even whether images were replaced: a daemon that is down then is nobody's fault."""
    async with open_fake(warm=WarmGuests(size=1, idle_secs=100)) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await trio.sleep(100 + 2 * LOOK_EVERY_SECS)
        fake.kill_daemon()
        await trio.sleep(10 * LOOK_EVERY_SECS)

        assert 0 == orchestrator.fault_counts["warm"]
        fake.restart_daemon()


async def test_a_guest_that_cannot_be_made_is_tried_later(autojump_clock: MockClock) -> None:
    """The fault is counted, and nothing of the guest is left."""
    async with open_fake(warm=ONE, capacity=Capacity(jobs=1)) as (orchestrator, fake):
        job = await orchestrator.submit(JobSpec(command="sleep 5"))
        await until(lambda: orchestrator.journal.job(job.id).instance)
        fake.fail("create", with_error="Failed creating instance: No space left on device")
        await job.wait()
        await until_idle(fake)

        assert 1 == orchestrator.fault_counts["warm"]
        assert 1 == len(fake.instances())
        assert is_warm(await orchestrator.submit_and_wait(PASSES))


@pytest.mark.parametrize("times", [1, 3])
async def test_a_guest_that_cannot_be_deleted_is_deleted_later(
    autojump_clock: MockClock, times: int
) -> None:
    """By upkeep, when the daemon does it, however often it did not; until then it has a lease."""
    async with open_fake(warm=WarmGuests(size=1, idle_secs=100)) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        fake.fail("delete", with_error="no", times=times, name=guest.name)
        await trio.sleep(110)
        assert [guest.name] == [one.instance for one in orchestrator.journal.open_leases()]
        await trio.sleep((times + 1) * EVERY_SECS)

        assert {} == fake.instances()
        assert [] == orchestrator.journal.open_leases()


async def test_a_guest_whose_ids_another_has_is_not_kept(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It looks for such a guest while it boots, as one that is made for a job does."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    async with (
        open_rig(tmp_path / "root", ids=FEW) as rig,
        Orchestrator.over(
            rig.context, Capacity(jobs=1), warm=ONE, workspace=workspace
        ) as orchestrator,
    ):
        job = await orchestrator.submit(JobSpec(command="sleep 5"))
        await until(lambda: rig.journal.job(job.id).state is State.RUNNING)
        add_stranger(rig.fake, FEW.base, FEW.size)
        await job.wait()
        await until(lambda: orchestrator.fault_counts["warm"])
        await trio.sleep(1)
        assert 0 == orchestrator.statistics().warm
        assert {} == rig.fake.instances()

        del rig.fake.instances("default")["stranger"]
        await until_idle(rig.fake)
        assert is_warm(await orchestrator.submit_and_wait(PASSES))


@pytest.mark.parametrize("wrong", [{"size": 10**30}, {"size": 1, "idle_secs": float("inf")}])
def test_a_pool_without_bounds_is_refused(wrong: dict[str, Any]) -> None:
    """Before a job comes; the message says what is allowed."""
    with pytest.raises(UsageError, match="too many, or for too long") as error:
        WarmGuests(**wrong)

    assert "at most 64 guests, for at most 604800 s" == error.value.resolution


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 1, "idle_secs": 0}])
def test_a_pool_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    """With what to do instead."""
    with pytest.raises(UsageError, match="must be positive"):
        WarmGuests(**wrong)

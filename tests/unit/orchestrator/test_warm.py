"""Warm guests, on the fake Incus: one job each, and none that nobody needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator import (
    Capacity,
    Job,
    JobSpec,
    Orchestrator,
    Request,
    UsageError,
    Verdict,
    WarmGuests,
)
from orchestrator.fake_incus import FakeIncus, Instance
from orchestrator.fake_incus.model import Image
from orchestrator.job.pool import LOOK_EVERY_SECS, STARTS_SECS
from orchestrator.journal import NotTheWriter, open_journal
from orchestrator.journal.stamp import now
from orchestrator.session import reaper
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from states import events as ev
from states.lifecycle import State
from states.spec import InstanceType, Mount
from tests.processes import Process, mortal
from tests.unit.orchestrator.rig import Rig, open_rig, settled, sweep
from tests.unit.orchestrator.test_id_map import FEW, add_stranger

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


async def test_a_job_claims_a_warm_guest(autojump_clock: MockClock) -> None:
    """The first one makes its own; the second says that it did not, and what that saved."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        first = await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        second = await orchestrator.submit_and_wait(PASSES)

        assert (Verdict.PASSED, Verdict.PASSED) == (first.verdict, second.verdict)
        assert (False, True) == (is_warm(first), is_warm(second))
        assert guest.name == second.instance != first.instance
        (claimed,) = entries(orchestrator, second, ev.LeaseClaimed)
        assert (guest.name, 1) == (claimed.instance, claimed.attempt)
        assert not entries(orchestrator, second, ev.LeaseOpened)

    assert {} == fake.instances()


async def test_a_guest_has_one_job(autojump_clock: MockClock) -> None:
    """Whatever the pool holds, each job has a guest of its own, which is deleted after it."""
    async with open_fake(warm=WarmGuests(size=2)) as (orchestrator, fake):
        for _ in range(3):
            await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)
        jobs = [await (await orchestrator.submit(PASSES)).wait() for _ in range(4)]
        again = [await orchestrator.submit(PASSES) for _ in range(4)]
        jobs += [await job.wait() for job in again]

        assert any(map(is_warm, jobs))
        assert len(jobs) == len({job.instance for job in jobs})


async def test_a_claimed_guest_is_like_one_that_was_made_for_the_job(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Its devices, its limits, its tags, its description: but for the name and the id map.

    Its deadline counts from its own boot, as the guest itself counts it.
    """
    spec = JobSpec(
        command="sleep 100", mounts=(Mount(source=str(tmp_path), path="/data"),), timeout_secs=200
    )
    async with open_fake(warm=ONE) as (orchestrator, fake):
        seen, begun = [], None
        for _ in range(2):
            job = await orchestrator.submit(spec)
            await until(lambda job=job: orchestrator.journal.job(job.id).instance)
            found = orchestrator.journal.job(job.id)
            guest = fake.instances()[found.instance]
            tags = {key: guest.config.pop(key) for key in ("user.pikaci.job", "user.pikaci.run")}
            assert (found.id, found.run) == tuple(tags.values())
            assert found.id in guest.description
            assert guest.config["user.pikaci.begun"] == (begun or guest.config["user.pikaci.begun"])
            assert guest.config.pop("user.pikaci.begun") < guest.config.pop("user.pikaci.deadline")
            seen.append((guest.config, guest.devices, guest.image))
            await job.cancel()
            await until_idle(fake)
            (idle,) = fake.instances().values()
            begun = idle.config["user.pikaci.begun"]

        assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "changes",
    [{"memory": "3GiB"}, {"cpus": 1}, {"disk": "7GiB"}, {"processes": 99}, {"run_as_root": True}],
)
async def test_a_job_of_another_kind_makes_its_own(
    autojump_clock: MockClock, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a guest is made with must be equal."""
    other = msgspec.structs.replace(PASSES, **changes)
    if "run_as_root" in changes:
        # Without id maps of their own, root's guest is like any other.
        async with open_fake(warm=ONE) as (orchestrator, fake):
            await orchestrator.submit_and_wait(PASSES)
            await until_idle(fake)
            assert is_warm(await orchestrator.submit_and_wait(other))
        return
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)

        assert not is_warm(await orchestrator.submit_and_wait(other))


async def test_what_belongs_to_the_job_does_not_matter(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A guest fits jobs with another command, other variables, mounts and limits of time."""
    other = JobSpec(
        command="echo other",
        env={"A": "b"},
        timeout_secs=7,
        mounts=(Mount(source=str(tmp_path), path="/data"),),
        artifacts=("*.txt",),
    )
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)
        job = await orchestrator.submit_and_wait(other)

        assert (Verdict.PASSED, True) == (job.verdict, is_warm(job))


async def test_jobs_in_vms_use_none(autojump_clock: MockClock) -> None:
    """Nothing is kept for them."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        vm = Image(
            fingerprint="ab" * 32,
            aliases=["pikaci/vm"],
            type="virtual-machine",
            properties=next(iter(fake.store.images("pikaci").values())).properties,
        )
        fake.store.images("pikaci")[vm.fingerprint] = vm
        spec = JobSpec(
            command="true", image="pikaci/vm", instance_type=InstanceType.VIRTUAL_MACHINE
        )
        job = await orchestrator.submit_and_wait(spec)
        await trio.sleep(2 * LOOK_EVERY_SECS)

        assert Verdict.PASSED is job.verdict
        assert [] == idle(fake)


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


async def test_a_guest_that_cannot_be_plugged_is_replaced(autojump_clock: MockClock) -> None:
    """The job makes its own, and says why; the guest is deleted, and never tried by another."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        fake.fail("query PATCH", with_error="Failed to add device: no")
        job = await orchestrator.submit_and_wait(PASSES)

        assert (Verdict.PASSED, 2, 0) == (job.verdict, job.attempt, job.retries)
        assert not is_warm(job)
        (restarted,) = entries(orchestrator, job, ev.Restarted)
        assert "its warm guest could not be used" in restarted.reason
        assert guest.name not in fake.instances()


@pytest.mark.parametrize("how", ["stopped", "deleted", "without a mount"])
async def test_a_guest_that_died_is_replaced(autojump_clock: MockClock, how: str) -> None:
    """Nobody noticed until the job came."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        (guest,) = await until_idle(fake)
        match how:
            case "stopped":
                fake.stop_guest(guest.name)
            case "deleted":
                fake.delete_guest(guest.name)
            case _:
                fake.never_ready(name=guest.name)
        job = await orchestrator.submit_and_wait(PASSES)

        assert (Verdict.PASSED, 2, 0, False) == (
            job.verdict,
            job.attempt,
            job.retries,
            is_warm(job),
        )
        assert guest.name not in fake.instances()


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


class Mortal(Process):
    """A process with a pool, which has driven a job, and can be killed."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self._context = rig.context
        self._specs, self._asked = trio.open_memory_channel[JobSpec](0)
        self._told, self.jobs = trio.open_memory_channel[str](0)

    async def main(self) -> None:
        root = self._context.root
        workspace = root.path / "workspace"
        workspace.mkdir()
        with open_journal(root.journal) as journal:  # what it did not write dies with it
            context = replace(self._context, journal=journal)
            async with Orchestrator.over(
                context, Capacity(jobs=4), warm=ONE, workspace=workspace
            ) as orchestrator:
                await orchestrator.submit_and_wait(PASSES)
                async for spec in self._asked:
                    await self._told.send((await orchestrator.submit(spec)).id)

    async def submit(self, spec: JobSpec) -> str:
        """Have it submit a job, whose id is returned."""
        await self._specs.send(spec)
        return await self.jobs.receive()

    async def die(self) -> None:
        self.kill()
        await self.ended.wait()


@asynccontextmanager
async def dying(rig: Rig) -> AsyncIterator[tuple[Mortal, Instance]]:
    """A process that has a warm guest, this one."""
    with mortal():
        process = Mortal(rig)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run, process.main)
            (guest,) = await until_idle(rig.fake)
            yield process, guest
            process.kill()


async def test_what_a_dead_process_left_is_deleted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """By the next start; no job gets it: nobody knows what happened to it meanwhile."""
    async with open_rig(tmp_path) as rig, dying(rig) as (process, guest):
        await sweep(rig)
        assert [] == await reaper.unneeded(rig.context)
        assert guest.name in rig.fake.instances()

        await process.die()
        assert [guest.name] == [one.instance for one in await reaper.unneeded(rig.context)]
        await sweep(rig)
        assert settled(rig)


@pytest.mark.parametrize("tagged", [False, True])
async def test_a_claim_that_was_broken_off_is_the_job_s(
    autojump_clock: MockClock, tmp_path: Path, tagged: bool
) -> None:
    """A job whose process died then has another attempt; nobody else takes the guest before."""
    async with open_rig(tmp_path) as rig, dying(rig) as (process, guest):
        if tagged:
            rig.fake.late("query PATCH", secs=1)
        else:
            rig.fake.hang("query PATCH")
        job = await process.submit(PASSES)
        await until(lambda: rig.notes(ev.LeaseClaimed, job))
        await trio.sleep(0.1)
        await process.die()
        await trio.sleep(5)

        assert tagged == ("user.pikaci.job" in guest.config)
        assert guest.name not in [one.instance for one in await reaper.unneeded(rig.context)]
        await sweep(rig)
        ended = rig.journal.job(job)
        assert (Verdict.PASSED, 2) == (ended.verdict, ended.attempt)
        assert settled(rig)


async def test_a_job_in_a_warm_guest_survives_its_process(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Its command goes on in the guest, and the next process collects it."""
    async with open_rig(tmp_path) as rig, dying(rig) as (process, guest):
        job = await process.submit(JobSpec(command="sleep 50; echo end"))
        await until(lambda: rig.journal.job(job).state is State.RUNNING)
        await process.die()
        await sweep(rig)

        ended = rig.journal.job(job)
        assert (Verdict.PASSED, 1, guest.name) == (ended.verdict, ended.attempt, ended.instance)
        assert settled(rig)


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


async def test_a_lease_is_claimed_once(tmp_path: Path) -> None:
    """Of two jobs that want one guest, one cannot have it, whatever their processes believe."""
    async with open_rig(tmp_path) as rig:
        first, second = [await rig.submit(PASSES, number=number) for number in (1, 2)]
        lease: dict[str, Any] = {"instance": "pikaci-w", "deadline": datetime.now(UTC)}
        await rig.journal.append(ev.LeaseOpened(job="", session="s", **lease, **now()))
        (idle_lease,) = rig.journal.open_leases()
        assert ("", "s", 0) == (idle_lease.job, idle_lease.run, idle_lease.attempt)
        await rig.journal.append(ev.LeaseClaimed(job=first.job.id, attempt=1, **lease, **now()))
        with pytest.raises(NotTheWriter):
            await rig.journal.append(
                ev.LeaseClaimed(job=second.job.id, attempt=1, **lease, **now())
            )

        (claimed,) = rig.journal.open_leases()
        assert (first.job.id, "r", 1, True) == (
            claimed.job,
            claimed.run,
            claimed.attempt,
            claimed.made,
        )
        assert not rig.journal.entries("")


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

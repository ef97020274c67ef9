"""Which jobs claim a warm guest, on the fake Incus, and what they have then."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, Verdict, WarmGuests
from orchestrator.fake_incus.model import Image
from orchestrator.job.pool import LOOK_EVERY_SECS
from orchestrator.journal import NotTheWriter
from orchestrator.journal.stamp import now
from orchestrator.testing import open_fake
from states import events as ev
from states.spec import InstanceType, Mount
from tests.unit.orchestrator.rig import open_rig
from tests.unit.orchestrator.warm_guests import (
    ONE,
    PASSES,
    entries,
    idle,
    is_warm,
    until,
    until_idle,
)


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
    "changes", [{"memory": "3GiB"}, {"cpus": 1}, {"disk": "7GiB"}, {"processes": 99}]
)
async def test_a_job_of_another_kind_makes_its_own(
    autojump_clock: MockClock, changes: dict[str, Any]
) -> None:
    """What a guest is made with must be equal."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)
        other = msgspec.structs.replace(PASSES, **changes)

        assert not is_warm(await orchestrator.submit_and_wait(other))


async def test_root_s_guest_is_like_any_other_without_own_ids(autojump_clock: MockClock) -> None:
    """Only its id map would differ, and this host has none to give."""
    async with open_fake(warm=ONE) as (orchestrator, fake):
        await orchestrator.submit_and_wait(PASSES)
        await until_idle(fake)
        other = msgspec.structs.replace(PASSES, run_as_root=True)

        assert is_warm(await orchestrator.submit_and_wait(other))


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

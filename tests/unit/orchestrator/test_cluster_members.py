"""Jobs on a cluster whose members come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.capacity import Capacity
from orchestrator.hosts import Members
from orchestrator.incus import Incus
from orchestrator.job.arrivals import Arrivals
from orchestrator.job.backlog import Backlog
from orchestrator.job.driver import Driver
from orchestrator.job.queue import Queue
from orchestrator.job.reading import Reading
from orchestrator.job.task import MAX_LOSSES
from orchestrator.session.lingering import take_up_lingering
from orchestrator.session.recovery import recover
from states import events as ev
from states.ending import Intent
from states.lifecycle import State
from states.outcome import FailureKind, Verdict
from states.spec import Deadlines, JobSpec
from tests.calls import call
from tests.unit.orchestrator.fake_cluster import OFFLINE_SECS, FakeCluster
from tests.unit.orchestrator.rig import Rig, open_rig

SPEC = JobSpec(command="sleep 300", timeout_secs=900, deadlines=Deadlines(daemon_secs=60))


@asynccontextmanager
async def open_cluster(base: Path, **options: Any) -> AsyncIterator[tuple[Rig, FakeCluster]]:
    """A rig on a cluster of two members; `options` go to `Members`."""
    async with open_rig(base) as rig:
        cluster = FakeCluster(rig.fake, "m1", "m2")
        incus = Incus(base / "conf", spawn=cluster, observe=rig.calls.append)
        here = replace(rig.context.here, incus=incus, members=Members(incus, **options))
        rig.context._at["local"] = here
        yield rig, cluster


def idle(rig: Rig) -> Driver:
    """A driver that drives nothing yet."""
    return Driver(rig.context, Queue(Capacity(jobs=1)), Backlog(9), Arrivals(), Reading())


async def until(rig: Rig, kind: type[ev.Event], number: int = 1) -> None:
    """Return when the job has so many events of this type."""
    while sum(isinstance(entry, kind) for entry in rig.entries()) < number:
        await trio.sleep(0.5)


def lost(rig: Rig) -> list[ev.Lost]:
    return [entry for entry in rig.entries() if isinstance(entry, ev.Lost)]


async def test_a_job_whose_member_dies_is_tried_again_on_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Once; the instance that cannot be deleted stays a lease, and goes when the member is back."""
    async with open_cluster(tmp_path) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.Running)
            died = task.job.member
            await cluster.fall_silent(died)

        job = rig.journal.job("r.1")
        assert (Verdict.PASSED, 2, 1, 0) == (job.verdict, job.attempt, job.losses, job.retries)
        assert {died, job.member} == {"m1", "m2"}
        (event,) = lost(rig)
        assert (died, "running") == (event.member, event.failure.phase)
        assert FailureKind.INFRASTRUCTURE == event.failure.kind
        assert f"the member {died} of the cluster is offline" in event.failure.message
        (lease,) = rig.journal.open_leases()
        assert died == lease.member

        await take_up_lingering(rig.context, "r", idle(rig))
        assert [lease] == rig.journal.open_leases()

        cluster.come_back(died)
        await trio.sleep(10)
        await take_up_lingering(rig.context, "r", idle(rig))
        assert [] == rig.journal.open_leases()
        assert not rig.fake.instances()


async def test_a_member_that_is_back_in_time_loses_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its daemon was down; the guest went on, and the log has no gap."""
    async with open_cluster(tmp_path) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.Running)
            await cluster.fall_silent(task.job.member)
            await trio.sleep(SPEC.deadlines.daemon_secs / 2)
            cluster.come_back(task.job.member)

        job = rig.journal.job("r.1")
        assert (Verdict.PASSED, 1, 0) == (job.verdict, job.attempt, job.losses)
        assert [] == rig.journal.open_leases()


async def test_what_has_not_begun_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A member that dies before it makes the instance: the other one does it at once."""
    async with open_cluster(tmp_path) as (rig, cluster):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.fall_silent, "m1")
            await trio.sleep(1)
            began = trio.current_time()
            job = await rig.live(SPEC)

        assert (Verdict.PASSED, "m2", 2, 0) == (job.verdict, job.member, job.attempt, job.losses)
        assert "artifacts_reset" == lost(rig)[0].failure.phase
        first = next(e for e in rig.entries() if isinstance(e, ev.Lost))
        assert trio.current_time() - began < OFFLINE_SECS + 310
        assert first.member == "m1"


@pytest.mark.parametrize("status", ["Offline", "Evacuated"])
async def test_a_member_that_takes_no_guests_gets_none(
    tmp_path: Path, autojump_clock: MockClock, status: str
) -> None:
    """Nothing is tried there."""
    async with open_cluster(tmp_path) as (rig, cluster):
        cluster.status["m1"] = status
        job = await rig.live(SPEC)

        assert ("m2", 0) == (job.member, job.losses)


async def test_an_evacuated_member_s_job_begins_anew_elsewhere(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its guest was stopped; the daemon is there, and the instance is deleted at once."""
    async with open_cluster(tmp_path) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.Running)
            member, instance = task.job.member, task.job.instance
            cluster.status[member] = "Evacuated"
            await call(rig.context.incus, "stop", "--force", f"local:{instance}", deadline_secs=9)

        job = rig.journal.job("r.1")
        assert (Verdict.PASSED, 1) == (job.verdict, job.losses)
        assert member != job.member
        assert "is evacuated" in lost(rig)[0].failure.message
        assert [] == rig.journal.open_leases()


async def test_a_job_that_brings_its_members_down_does_so_only_so_often(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Then it has failed, by infrastructure."""
    async with open_cluster(tmp_path) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            for number in range(MAX_LOSSES + 1):
                await until(rig, ev.Running, number + 1)
                await cluster.fall_silent(task.job.member)
                while len(lost(rig)) <= number and not task.job.ended:
                    await trio.sleep(1)
                for name in cluster.status:
                    cluster.come_back(name)

        job = rig.journal.job("r.1")
        assert (State.FAILED, MAX_LOSSES) == (job.state, job.losses)
        assert Verdict.INFRASTRUCTURE == job.verdict


async def test_a_cancelled_job_is_confirmed_when_its_member_is_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Until then its command may run: it is not said to be dead."""
    async with open_cluster(tmp_path) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.Running)
            await cluster.fall_silent(task.job.member)
            await trio.sleep(5)
            task.cancel("asked")
        assert State.CANCELLING is rig.journal.job("r.1").state

        driver = idle(rig)
        async with driver.running():
            await take_up_lingering(rig.context, "r", driver)
            assert State.CANCELLING is rig.journal.job("r.1").state
            cluster.come_back(task.job.member)
            await trio.sleep(10)
            await take_up_lingering(rig.context, "r", driver)

        assert Verdict.CANCELLED is rig.journal.job("r.1").verdict
        assert [] == rig.journal.open_leases()
        assert not rig.fake.instances()


async def test_a_job_is_taken_over_with_its_member(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The process that drove it was killed, and then its member died."""
    async with open_cluster(tmp_path) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.Running)
            task.intent.rise(Intent.DETACH)
            nursery.cancel_scope.cancel()
        died = rig.journal.job("r.1").member
        await cluster.fall_silent(died)
        await recover(rig.context, Queue(Capacity(jobs=1)))

        job = rig.journal.job("r.1")
        assert (Verdict.PASSED, 1) == (job.verdict, job.losses)
        assert died != job.member


async def test_who_is_said_to_be_offline_by_itself_says_nothing_of_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The member that we talk to answers, so what the cluster has heard of its members is old."""
    async with open_cluster(tmp_path, same_member=True) as (rig, cluster):
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.Running)
            cluster.status |= {"m1": "Offline", "m2": "Evacuated"}
            await trio.sleep(2 * SPEC.deadlines.daemon_secs)
            cluster.status |= {"m1": "Online", "m2": "Online"}

        job = rig.journal.job("r.1")
        assert (Verdict.PASSED, "m1", 0) == (job.verdict, job.member, job.losses)


async def test_a_change_of_leader_loses_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """For a while the cluster says that all members are offline, also the one that answers."""
    async with open_cluster(tmp_path) as (rig, cluster):
        tasks = [await rig.submit(SPEC, number=number) for number in (1, 2)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tasks[0].run)
            await until(rig, ev.Running)
            cluster.status = dict.fromkeys(cluster.status, "Offline")
            nursery.start_soon(tasks[1].run)
            await trio.sleep(40)
            cluster.status = dict.fromkeys(cluster.status, "Online")

        ended = [rig.journal.job(task.job.id) for task in tasks]
        assert [(Verdict.PASSED, 0)] * 2 == [(job.verdict, job.losses) for job in ended]


async def test_without_a_quorum_a_job_waits_and_says_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """For as long as for a daemon that is down."""
    async with open_cluster(tmp_path) as (rig, cluster):
        await rig.context.here.members.look()  # type: ignore[union-attr]
        task = await rig.submit(SPEC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await until(rig, ev.ArtifactsReset)
            cluster.has_quorum = False
            await trio.sleep(40)
            cluster.has_quorum = True

        job = rig.journal.job("r.1")
        assert (Verdict.PASSED, 0) == (job.verdict, job.losses)


async def test_no_member_at_all_is_said_and_then_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The job waits for one as long as for a daemon."""
    async with open_cluster(tmp_path, target="m1") as (rig, cluster):
        cluster.status["m1"] = "Offline"
        job = await rig.live(SPEC)

        assert State.FAILED is job.state
        assert job.failure is not None
        assert "no member of the cluster takes guests: m1 is offline" in job.failure.message
        assert "waiting for the cluster" in rig.notes(ev.Warned)[0].message
        assert [] == rig.journal.open_leases()


async def test_a_member_runs_no_more_jobs_than_it_has_slots(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The others wait for one."""
    async with open_cluster(tmp_path, slots=1) as (rig, _):
        tasks = [await rig.submit(SPEC, number=number) for number in range(1, 6)]
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task.run)
            for _ in range(2000):
                running = [t.job.member for t in tasks if t.job.state is State.RUNNING]
                assert len(set(running)) == len(running)
                await trio.sleep(1)

        assert {Verdict.PASSED} == {rig.journal.job(task.job.id).verdict for task in tasks}

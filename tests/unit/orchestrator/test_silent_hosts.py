"""Several hosts of which some are down, or go away: jobs and upkeep of the others go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, Orchestrator, Verdict
from orchestrator.capacity import Capacity
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.job.queue import LOOK_AGAIN_SECS
from orchestrator.job.silent_hosts import ASK_SECS, LEFT_OUT_SECS
from orchestrator.session import reaper
from orchestrator.session.upkeep import EVERY_SECS
from states.lifecycle import State
from states.spec import Deadlines
from tests.calls import call
from tests.unit.orchestrator.ground import LONG, Ground, ended
from tests.unit.orchestrator.ground import ground as ground


@pytest.mark.parametrize("silent", [True, False])
async def test_a_host_that_is_down_stops_no_job_of_another(
    ground: Ground, silent: bool, autojump_clock: MockClock
) -> None:
    """Neither at the door, nor in the queue; it gets jobs when it is back."""
    if silent:
        ground.hosts.silent.add("a")
    else:
        ground.hosts["a"].kill_daemon()
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        first = await ended(await ground.submit(orchestrator, {"job": JobSpec(command="true")}))
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(3)})
        await trio.sleep(2)
        ground.hosts.silent.clear()
        if not silent:
            ground.hosts["a"].restart_daemon()
        await trio.sleep(LEFT_OUT_SECS + LOOK_AGAIN_SECS)
        begun = [orchestrator.known(job.id) for job in run.jobs]
        await ended(run)

    assert ("b", Verdict.PASSED) == (first[0].host, first[0].verdict)
    assert {"a", "b"} == {job.host for job in begun if job is not None and not job.hosts}


async def test_hosts_that_are_down_are_waited_for_together(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """A submission takes no longer for two of them than for one."""
    ground.hosts.silent |= {"a", "b"}
    async with ground.open("a", "b", "local") as orchestrator:
        began = trio.current_time()
        run = await ground.submit(orchestrator, {"job": JobSpec(command="true")})
        took = trio.current_time() - began
        (job,) = await ended(run)

    assert ("", Verdict.PASSED) == (job.host, job.verdict)
    assert ASK_SECS <= took < 1.5 * ASK_SECS


async def test_a_host_that_goes_away_while_jobs_are_queued_is_passed_over(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """A job that got its slot there goes back to the line; none has failed."""
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(4)})
        await trio.sleep(10)
        first = orchestrator.known(run.jobs[0].id)
        assert first is not None and "a" == first.host
        ground.hosts.silent.add("a")
        # It cannot be confirmed, but frees the slot.
        with trio.move_on_after(30):
            await orchestrator.cancel([first.id], now=True)
        jobs = [await job.wait() for job in run.jobs[1:]]
        ground.hosts.silent.clear()

    assert ["b"] * 3 == [job.host for job in jobs]
    assert {Verdict.PASSED} == {job.verdict for job in jobs}


@pytest.mark.parametrize("phase", [0, 10, 20])
async def test_without_any_host_a_job_fails_when_its_time_for_that_is_over(
    ground: Ground, phase: float, autojump_clock: MockClock
) -> None:
    """As an infrastructure fault; it would go on if one came back in time.

    Whenever others ask the hosts, and however long ago each was found silent.
    """
    spec = JobSpec(command="true", deadlines=Deadlines(daemon_secs=60))
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        blockers = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(2)})
        await trio.sleep(10)
        run = await ground.submit(orchestrator, {"job": spec})
        ground.hosts.silent |= {"a", "b"}
        with trio.move_on_after(30):
            await orchestrator.cancel([job.id for job in blockers.jobs], now=True)
        await trio.sleep(phase)
        with suppress(DaemonUnreachable):
            async with orchestrator._context.silent.asking("b"):
                await trio.sleep_forever()
        with trio.fail_after(500):
            (job,) = await ended(run)
        ground.hosts.silent.clear()

    assert Verdict.INFRASTRUCTURE is job.verdict
    assert job.failure is not None
    assert "did not answer" in job.failure.message


async def test_a_job_that_was_queued_for_hosts_that_are_all_away_is_left_as_it_is(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """One of them is enough for it to begin."""
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        run = await ground.submit(orchestrator, {f"j{n}": LONG for n in range(3)})
        await trio.sleep(50)
        orchestrator.detach()
    queued = run.jobs[2].id
    for name in ("a", "b"):
        ground.hosts[name].kill_daemon()
    async with ground.open("a", "b") as orchestrator:
        await trio.sleep(1000)
        before = orchestrator.job(queued).job
        orchestrator.detach()
    ground.hosts["b"].restart_daemon()
    async with ground.open("a", "b") as orchestrator:
        after = await orchestrator.job(queued).wait()

    assert (State.SUBMITTED, None) == (before.state, before.verdict)
    assert ("b", Verdict.PASSED) == (after.host, after.verdict)


async def test_what_is_left_on_one_host_is_deleted_while_another_is_away(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """And the rest when that is back."""
    for name in ("a", "b"):
        ground.hosts[name].fail("delete", with_error="no", times=1)
    async with ground.open("a") as orchestrator:
        specs = {name: JobSpec(command="true", host=name) for name in ("a", "b")}
        await ended(await ground.submit(orchestrator, specs))
        await trio.sleep(1)
        left = [lease.host for lease in orchestrator.journal.open_leases()]
        ground.hosts.silent.add("a")
        await trio.sleep(4 * EVERY_SECS)
        later = [lease.host for lease in orchestrator.journal.open_leases()]
        ground.hosts.silent.clear()
        await trio.sleep(4 * EVERY_SECS)
        last = [lease.host for lease in orchestrator.journal.open_leases()]

    assert (["a", "b"], ["a"], []) == (sorted(left), later, last)


async def make_stray(orchestrator: Orchestrator, host: str) -> None:
    """An instance with the state root's owner key that no lease names."""
    incus = orchestrator._context.at(host).incus
    tags = {reaper.OWNER: orchestrator.journal.owner, reaper.RUN: "gone"}
    root = {"root": {"type": "disk", "path": "/", "pool": "pikaci"}}
    document = msgspec.json.encode({"config": tags, "devices": root})
    image = f"{incus.remote}:pikaci/dev"
    await call(incus, "create", image, incus.name("stray"), stdin=document)


async def test_upkeep_of_a_host_does_not_wait_for_another_that_is_silent(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Leases are released and instances reaped in time; questions to the other do not pile up."""
    hosts = ground.hosts
    for name in ("a", "b"):
        hosts[name].fail("delete", with_error="no", times=1)
    async with ground.open("a") as orchestrator:
        specs = {name: JobSpec(command="true", host=name) for name in ("a", "b")}
        await ended(await ground.submit(orchestrator, specs))
        await trio.sleep(1)
        journal = orchestrator.journal
        hosts.silent.add("a")
        await make_stray(orchestrator, "b")
        await trio.sleep(EVERY_SECS + 1)
        left = [lease.host for lease in journal.open_leases()], hosts["b"].instances()
        hanging = set()
        for _ in range(100):
            await trio.sleep(EVERY_SECS / 7)
            hanging.add(hosts.hanging)
        await make_stray(orchestrator, "b")
        await trio.sleep(EVERY_SECS + 1)
        reaped = not hosts["b"].instances()
        hosts.silent.clear()
        await trio.sleep(3 * EVERY_SECS)
        last = journal.open_leases(), hosts["a"].instances()

    assert (["a"], {}) == left
    assert max(hanging) <= 2  # what is looked for, and a sign of life
    assert reaped
    assert ([], {}) == last


async def test_a_host_that_comes_back_is_not_left_until_jobs_elsewhere_have_ended(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """Of jobs that belong together, and of the instances that ended ones left."""
    specs = {
        "long": msgspec.structs.replace(LONG, command="sleep 4000", host="a"),
        "over": JobSpec(command="true", host="b"),
        "there": msgspec.structs.replace(LONG, host="b"),
    }
    ground.hosts["b"].fail("delete", with_error="no", times=1)
    async with ground.open("a") as orchestrator:
        run = await ground.submit(orchestrator, specs)
        await run.jobs[1].wait()
        await trio.sleep(20)
        orchestrator.detach()
    ground.hosts["b"].kill_daemon()
    async with ground.open("a") as orchestrator:
        await trio.sleep(5 * EVERY_SECS)
        ground.hosts["b"].restart_daemon()
        await trio.sleep(3 * EVERY_SECS)
        left = [lease.job for lease in orchestrator.journal.open_leases()]
        driven = [orchestrator.drives(job.id) for job in run.jobs]
        jobs = await ended(orchestrator.run(run.id))

    assert [True, False, True] == driven
    assert {run.jobs[0].id, run.jobs[2].id} == set(left)
    assert {Verdict.PASSED} == {job.verdict for job in jobs}, [job.failure for job in jobs]


async def test_a_host_that_is_in_the_settings_no_more_stops_no_job_of_another(
    ground: Ground, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """It is told, and its job is left alone until the host is back."""
    async with ground.open("a") as orchestrator:
        specs = {name: msgspec.structs.replace(LONG, host=name) for name in ("a", "b")}
        run = await ground.submit(orchestrator, specs)
        await trio.sleep(50)
        orchestrator.detach()
    path = tmp_path / "hosts.toml"
    both = path.read_text()
    path.write_text(both[both.index("[hosts.b]") :])
    async with ground.open("b") as orchestrator:
        other = await orchestrator.job(run.jobs[1].id).wait()
        waiting = orchestrator.journal.job(run.jobs[0].id)
        faults = orchestrator.fault_counts["recover"]
    path.write_text(both)
    async with ground.open("b") as orchestrator:
        first = await orchestrator.job(run.jobs[0].id).wait()

    assert ("b", Verdict.PASSED, None) == (other.host, other.verdict, waiting.verdict)
    assert faults > 0
    assert ("a", Verdict.PASSED) == (first.host, first.verdict)

"""A job with a choice of hosts whose attempt failed on one of them: the next may be on another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, Orchestrator, Verdict
from orchestrator.capacity import Capacity
from orchestrator.fake_incus import run_handful
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.session.upkeep import EVERY_SECS
from states import events as ev
from states.job import Job, fold
from states.lifecycle import State
from states.spec import Deadlines
from tests.unit.orchestrator.fake_hosts import open_fake_hosts
from tests.unit.orchestrator.ground import Ground, ended

SPEC = JobSpec(
    command="sleep 100", retries=1, run_as_root=True, deadlines=Deadlines(daemon_secs=30)
)


async def make(command: GuestCommand) -> GuestOutcome:
    """`make` leaves a tree; other commands are the fake's own."""
    if command.text != "make":
        return await run_handful(command)
    command.write("/artifacts/out/file", b"made")
    return GuestOutcome(exit_code=0)


@pytest.fixture
async def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    async with open_fake_hosts(tmp_path, monkeypatch, "a", "b", guest_script=make) as hosts:
        yield Ground(tmp_path, hosts)


def silence_at(orchestrator: Orchestrator, ground: Ground, kind: type[ev.Entry]) -> None:
    """Have the host `a` fall silent at the first entry of this type."""
    done: list[ev.Entry] = []

    def look(entry: ev.Entry) -> None:
        if isinstance(entry, kind) and not done:
            done.append(entry)
            ground.hosts.silent.add("a")

    orchestrator.journal.observe(look)


def hosts_of(orchestrator: Orchestrator, job: Job) -> list[str]:
    """The hosts of the job's attempts."""
    entries = [entry for _, entry in orchestrator.journal.entries(job.id)]
    return [entry.host for entry in entries if isinstance(entry, ev.ArtifactsReset)]


@pytest.mark.parametrize("kind", [ev.ArtifactsReset, ev.LeaseOpened, ev.DevicesConfigured])
@pytest.mark.parametrize("output", [None, "/artifacts/out"])
async def test_a_host_that_falls_silent_loses_the_attempt_and_not_the_job(
    ground: Ground, autojump_clock: MockClock, kind: type[ev.Entry], output: str | None
) -> None:
    """Its guest's lease stays open until it answers; then the guest is deleted."""
    command = "make" if output else SPEC.command
    spec = msgspec.structs.replace(SPEC, command=command, output=output)
    async with ground.open("a", "b") as orchestrator:
        silence_at(orchestrator, ground, kind)
        (job,) = await ended(await ground.submit(orchestrator, {"job": spec}))
        await trio.sleep(5 * EVERY_SECS)
        left = [lease.host for lease in orchestrator.journal.open_leases()]
        ground.hosts.silent.clear()
        await trio.sleep(3 * EVERY_SECS)
        later = orchestrator.journal.open_leases(), ground.hosts["a"].instances()
        used = hosts_of(orchestrator, job)

    assert (Verdict.PASSED, "b", 2) == (job.verdict, job.host, job.attempt), job.failure
    assert ["a", "b"] == used
    assert ([] if kind is ev.ArtifactsReset else ["a"]) == left
    assert ([], {}) == later


async def test_the_host_that_failed_comes_last(ground: Ground, autojump_clock: MockClock) -> None:
    """But it gets the job again if it alone has a free slot. No more attempts than before."""
    ground.hosts["a"].fail(
        "create", with_error="Error: Instance is busy running a create operation"
    )
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        (first,) = await ended(await ground.submit(orchestrator, {"job": SPEC}))
        ground.hosts["a"].fail("create", with_error="Error: Instance is busy running a create")
        long = JobSpec(command="sleep 5000", timeout_secs=6000, run_as_root=True, host="b")
        await ground.submit(orchestrator, {"long": long})
        await trio.sleep(100)
        (second,) = await ended(await ground.submit(orchestrator, {"job": SPEC}))
        used = [hosts_of(orchestrator, job) for job in (first, second)]

    assert [["a", "b"], ["a", "a"]] == used
    assert [1, 1] == [job.retries for job in (first, second)]


async def test_a_job_without_a_retry_fails_as_ever(
    ground: Ground, autojump_clock: MockClock
) -> None:
    async with ground.open("a", "b") as orchestrator:
        silence_at(orchestrator, ground, ev.DevicesConfigured)
        spec = msgspec.structs.replace(SPEC, retries=0)
        (job,) = await ended(await ground.submit(orchestrator, {"job": spec}))
        ground.hosts.silent.clear()
        used = hosts_of(orchestrator, job)

    assert (Verdict.INFRASTRUCTURE, ["a"]) == (job.verdict, used)


async def test_the_next_process_has_the_choice_too(
    ground: Ground, autojump_clock: MockClock
) -> None:
    """One that ended between two attempts, whose first guest is on the silent host."""
    async with ground.open("a", "b", capacity=Capacity(jobs=1)) as orchestrator:
        silence_at(orchestrator, ground, ev.DevicesConfigured)

        def look(entry: ev.Entry) -> None:
            if isinstance(entry, ev.Retried):
                orchestrator.detach()

        orchestrator.journal.observe(look)
        run = await ground.submit(orchestrator, {"job": SPEC})
        await trio.sleep(1000)
    id = run.jobs[0].id
    async with ground.open("a", "b") as orchestrator:
        life = [one for _, one in orchestrator.journal.entries(id) if isinstance(one, ev.Event)]
        between = fold(life[: 1 + [type(one) for one in life].index(ev.Retried)])
        job = await orchestrator.job(id).wait()
        await trio.sleep(5)
        left = [lease.host for lease in orchestrator.journal.open_leases()]
        ground.hosts.silent.clear()
        await trio.sleep(5 * EVERY_SECS)
        later = orchestrator.journal.open_leases(), ground.hosts["a"].instances()

    assert (State.SUBMITTED, 2, ("b", "a")) == (between.state, between.attempt, between.hosts)
    assert (Verdict.PASSED, "b", 2) == (job.verdict, job.host, job.attempt)
    assert ["a"] == left
    assert ([], {}) == later

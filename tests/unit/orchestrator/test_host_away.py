"""A host that cannot be reached when its jobs are taken up: they stay as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.capacity import Capacity
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import LOCAL, Completed, Host, Incus
from orchestrator.job.arrivals import Arrivals
from orchestrator.job.backlog import Backlog
from orchestrator.job.driver import Driver
from orchestrator.job.queue import Queue
from orchestrator.job.reading import Reading
from orchestrator.session import reaper
from orchestrator.session.away import WAIT_SECS, HostAway, once_a_host
from orchestrator.session.cancel import cancel_jobs
from orchestrator.session.lingering import take_up_lingering
from orchestrator.session.recovery import overdue, recover
from states import events as ev
from states.ending import Intent
from states.lifecycle import State
from states.outcome import Outcome, Verdict
from states.spec import Deadlines, JobSpec
from tests.unit.orchestrator.rig import Rig, open_rig

BUILD = Host(name="build")
REFUSED = "Error: Get https://build:8443: dial tcp 10.0.0.2:8443: connect: connection refused\n"
CHANGED = "Error: tls: failed to verify certificate: x509: certificate is not valid\n"
# Whoever took the job up all the same would give up soon.
SPEC = JobSpec(command="echo one; sleep 100; echo two", deadlines=Deadlines(daemon_secs=5))


class Way:
    """The way to the fake's daemon. `says` is what the command says when it is closed."""

    def __init__(self, fake: FakeIncus) -> None:
        self.says = ""
        self._fake = fake

    async def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        if self.says:
            return Completed(tuple(argv), 1, b"", self.says.encode())
        return await self._fake(argv, **options)


@asynccontextmanager
async def open_far(base: Path) -> AsyncIterator[tuple[Rig, Way]]:
    """A rig whose jobs run on the host `build`."""
    async with open_rig(base, host=BUILD) as rig:
        yield rig, lead(rig, Way(rig.fake))


def lead(rig: Rig, way: Way) -> Way:
    """Have the rig reach its host that way, and the local one as ever."""
    local = rig.context.here
    incus = Incus(rig.context.root.path / "conf", spawn=way).of(BUILD)
    rig.context._at[BUILD.name] = replace(local, incus=incus)
    rig.context._at[LOCAL] = replace(local, host=Host())
    return way


def next_start(rig: Rig, way: Way) -> Rig:
    """The same state root and hosts, for another process."""
    after = Rig(rig.context.root.path, rig.journal, rig.fake, host=BUILD)
    lead(after, way)
    return after


async def die_at(rig: Rig, kind: type[ev.Event]) -> None:
    """Submit a job to the host, and drive it up to an event of this type; then stop short."""
    task = await rig.submit(SPEC, host="build")
    rig.context.intent.rise(Intent.DETACH)
    async with trio.open_nursery() as nursery:

        def look(entry: ev.Entry) -> None:
            if isinstance(entry, kind):
                nursery.cancel_scope.cancel()

        rig.journal.observe(look)
        if kind is not ev.Submitted:
            nursery.start_soon(task.run)


async def take_up(rig: Rig, **options: Any) -> list[BaseException]:
    return await recover(rig.context, Queue(Capacity(jobs=1)), **options)


def idle(rig: Rig) -> Driver:
    """A driver that drives nothing yet."""
    return Driver(rig.context, Queue(Capacity(jobs=1)), Backlog(9), Arrivals(), Reading())


@pytest.mark.parametrize("says", [REFUSED, CHANGED])
@pytest.mark.parametrize(
    "kind", [ev.Submitted, ev.ArtifactsReset, ev.DevicesConfigured, ev.InstanceReady, ev.Running]
)
async def test_a_job_in_any_state_is_left_as_it_is(
    tmp_path: Path, autojump_clock: MockClock, kind: type[ev.Event], says: str
) -> None:
    """However often it is taken up, for however long; then it goes to its own end."""
    async with open_far(tmp_path) as (rig, way):
        await die_at(rig, kind)
        before = rig.entries()
        way.says = says

        for _ in range(3):
            (away,) = await take_up(next_start(rig, way))
            assert isinstance(away, HostAway)
            assert "build" == away.host
            assert "its jobs are left as they are" in away.brief
            assert "`pikaci resume` continues them when the host build answers" in away.resolution
            await trio.sleep(1000)

        assert before == rig.entries()
        way.says = ""
        assert [] == await take_up(next_start(rig, way))
        job = rig.journal.job("r.1")
        log = rig.context.root.attempt_dir("r.1", job.attempt) / "guest.log"
        assert Outcome.PASSED == job.outcome
        assert [b"one", b"two"] == log.read_bytes().splitlines()[1:]
        assert not rig.fake.instances()
        assert [] == rig.journal.open_leases()


async def test_a_connection_that_comes_back_soon_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_far(tmp_path) as (rig, way):
        await die_at(rig, ev.Running)
        way.says = REFUSED

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_up, next_start(rig, way))
            await trio.sleep(WAIT_SECS / 2)
            way.says = ""

        assert Outcome.PASSED == rig.journal.job("r.1").outcome


async def test_the_instance_of_a_job_that_ended_is_left_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nothing is written down for it, however often it is looked at."""
    async with open_far(tmp_path) as (rig, way):
        task = await rig.submit(SPEC, host="build")
        rig.fake.fail("delete", with_error="not today")
        await task.run()
        before = rig.entries()
        way.says = REFUSED

        (away,) = await take_up(next_start(rig, way))
        await take_up_lingering(rig.context, "r", idle(rig))

        assert isinstance(away, HostAway)
        assert before == rig.entries()
        way.says = ""
        await take_up_lingering(rig.context, "r", idle(rig))
        assert [] == rig.journal.open_leases()
        assert not rig.fake.instances()


async def test_jobs_elsewhere_go_on_but_not_those_that_need_its_jobs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With one slot: a job that is left holds none."""
    async with open_far(tmp_path) as (rig, way):
        await rig.submit(SPEC, host="build")
        await rig.submit(SPEC, number=2)
        await rig.submit(SPEC, number=3, needs={"job": "r.1"})
        way.says = REFUSED

        (away,) = await take_up(next_start(rig, way))

        assert isinstance(away, HostAway)
        jobs = [rig.journal.job(f"r.{number}") for number in (1, 2, 3)]
        assert [None, Verdict.PASSED, None] == [job.verdict for job in jobs]
        assert [State.SUBMITTED, State.SUBMITTED] == [jobs[0].state, jobs[2].state]


async def test_a_cancellation_is_recorded_and_completed_later(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever asked for it is told at once that the host is away."""
    async with open_far(tmp_path) as (rig, way):
        await die_at(rig, ev.Running)
        way.says = REFUSED

        with pytest.raises(HostAway, match="connection refused"):
            await cancel_jobs(
                next_start(rig, way).context, {"r.1": "r"}, tasks=None, reason="x", hurry=False
            )

        assert State.CANCELLING is rig.journal.job("r.1").state
        assert rig.fake.instances()
        way.says = ""
        assert [] == await take_up(next_start(rig, way))
        assert Verdict.CANCELLED is rig.journal.job("r.1").verdict
        assert not rig.fake.instances()


async def test_a_host_that_the_settings_have_no_more_is_away_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Whoever resumes or cancels is told at once which host to add again."""
    async with open_far(tmp_path) as (rig, _):
        await die_at(rig, ev.Running)
        after = Rig(tmp_path, rig.journal, rig.fake)
        before = rig.entries()

        (away,) = await take_up(after)
        with pytest.raises(HostAway, match="knows no host 'build'"):
            await cancel_jobs(after.context, {"r.1": "r"}, tasks=None, reason="x", hurry=False)

        assert isinstance(away, HostAway)
        assert "knows no host 'build'" in away.brief
        assert before == rig.entries()


async def test_the_reaper_ends_no_job_there_past_its_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It tells of each host once, whoever found that it is away."""
    async with open_far(tmp_path) as (rig, way):
        await die_at(rig, ev.Running)
        way.says = REFUSED
        after = next_start(rig, way)
        faults: list[BaseException] = []
        before = rig.entries()

        assert [] == await reaper.unneeded(after.context, faults.append)
        faults += await take_up(after, only=overdue(after.context) or ["r.1"])

        assert ["build", "build"] == [fault.host for fault in faults if isinstance(fault, HostAway)]
        assert 1 == len(once_a_host(faults))
        assert before == rig.entries()

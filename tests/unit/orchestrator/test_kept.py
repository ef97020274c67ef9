"""`keep = "failure"` in a spec: whose guests are kept, how many, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from orchestrator.attempt.plan import lease_secs
from orchestrator.cli.run_by_service import notes_of_keeping
from orchestrator.journal import KeptFull, open_journal, writer
from orchestrator.journal.stamp import now
from orchestrator.journal.writer import MAX_KEPT
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from states import events as ev
from states.outcome import Verdict
from states.spec import KEEP_SECS, JobSpec, Keep
from tests.unit.orchestrator.rig import Rig, open_rig

FAILS = JobSpec(command="exit 1", keep=Keep.FAILURE)


def kept_secs(rig: Rig) -> list[int]:
    """For how long each kept guest is there, counted from when that was noted."""
    return [
        round((note.deadline - note.at).total_seconds())
        for note in rig.notes(ev.LeaseKept)
        if isinstance(note, ev.LeaseKept)
    ]


async def test_the_guest_of_a_job_that_fails_is_kept_for_an_hour(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """In a process that keeps no guests by itself, as a service."""
    async with open_rig(tmp_path) as rig:
        await rig.live(FAILS)

        assert [KEEP_SECS] == kept_secs(rig)
        assert [True] == [lease.kept for lease in rig.journal.open_leases()]
        assert 1 == len(rig.fake.instances())


async def test_the_time_of_the_spec_wins(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Over that of the process; a job that does not say has that of the process."""
    async with open_rig(tmp_path, keep_secs=100.0) as rig:
        await rig.live(JobSpec(command="exit 1", keep=Keep.FAILURE, keep_secs=7200))
        assert [7200] == kept_secs(rig)
    async with open_rig(tmp_path / "other", keep_secs=100.0) as rig:
        await rig.live(JobSpec(command="exit 1"))
        assert [100] == kept_secs(rig)


async def test_the_guest_is_told_how_long_it_may_live(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As two times of one clock, because the guest's may be another: with the time it is kept."""
    spec = JobSpec(command="exit 1", keep=Keep.FAILURE, keep_secs=86_400)
    async with open_rig(tmp_path) as rig:
        await rig.live(spec)

        (instance,) = rig.fake.instances().values()
        begun, ends = (
            datetime.fromisoformat(instance.config[f"user.pikaci.{tag}"])
            for tag in ("begun", "deadline")
        )
        assert timedelta(seconds=lease_secs(spec) + 86_400) == ends - begun


async def test_the_instance_outlives_the_time_that_it_is_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its own deadline, which others reap it by, is not before the end of that time."""
    async with open_rig(tmp_path) as rig:
        await rig.live(JobSpec(command="exit 1", keep=Keep.FAILURE, keep_secs=86_400))

        (instance,) = rig.fake.instances().values()
        (lease,) = rig.journal.open_leases()
        assert lease.deadline < datetime.fromisoformat(instance.config["user.pikaci.deadline"])


@pytest.mark.parametrize(("command", "kept"), [("true", 0), ("sleep 100", 1)])
async def test_a_job_that_passed_leaves_no_guest_and_one_that_timed_out_does(
    tmp_path: Path, autojump_clock: MockClock, command: str, kept: int
) -> None:
    async with open_rig(tmp_path) as rig:
        await rig.live(JobSpec(command=command, keep=Keep.FAILURE, timeout_secs=5))

        assert kept == len(rig.fake.instances())


async def test_a_job_that_was_cancelled_leaves_no_guest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="sleep 100", keep=Keep.FAILURE))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await trio.sleep(5)
            task.cancel("asked for")

        assert Verdict.CANCELLED == task.job.verdict
        assert {} == rig.fake.instances()
        assert [] == rig.journal.open_leases()


async def test_there_is_a_most_of_kept_guests(autojump_clock: MockClock) -> None:
    """The job that comes after has its guest deleted, and says so. Jobs end together here."""
    async with open_fake() as (orchestrator, fake):
        jobs = [await orchestrator.submit(FAILS) for _ in range(MAX_KEPT + 1)]
        for job in jobs:
            await job.wait()
        await trio.sleep(EVERY_SECS)  # what is not kept is deleted
        warnings = [
            entry.message
            for job in jobs
            for _, entry in orchestrator.journal.entries(job.id)
            if isinstance(entry, ev.Warned)
        ]

        assert MAX_KEPT == len(orchestrator.journal.kept_leases())
        assert MAX_KEPT == len(fake.instances())
        assert 1 == len(warnings)
        assert "its guest is not kept" in warnings[0]


async def test_processes_that_share_a_state_root_share_its_most(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither needs to know of the other; and who keeps a guest may keep it for longer."""
    monkeypatch.setattr(writer, "MAX_KEPT", 1)
    async with open_rig(tmp_path) as rig:
        await rig.live(FAILS)
        (kept,) = rig.journal.kept_leases()
        later = datetime.now(UTC) + timedelta(hours=5)
        with open_journal(tmp_path / "journal.sqlite3") as other:
            opened = ev.LeaseOpened(job="r.1", instance="other", deadline=later, **now())
            await other.append(opened)
            with pytest.raises(KeptFull, match="1 guests are kept"):
                await other.append(
                    ev.LeaseKept(job="r.1", instance="other", deadline=later, **now())
                )
            await other.append(
                ev.LeaseKept(job="r.1", instance=kept.instance, deadline=later, **now())
            )

        assert [kept.instance] == [lease.instance for lease in rig.journal.kept_leases()]
        assert later == rig.journal.kept_leases()[0].deadline


async def test_who_follows_a_job_of_a_service_learns_that_its_guest_is_not_kept(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream ends with the job, before that is said."""
    monkeypatch.setattr(writer, "MAX_KEPT", 0)
    async with open_rig(tmp_path) as rig:
        job = await rig.live(FAILS)
        entries = rig.entries()
        ended = next(
            number
            for number, entry in enumerate(entries, start=1)
            if isinstance(entry, ev.ResultCollected)
        )
        (note,) = await notes_of_keeping(rig.context.root, job.id, ended)
        none = await notes_of_keeping(rig.context.root, job.id, len(entries))

    assert isinstance(note, ev.Warned)
    assert "its guest is not kept: 0 guests are kept already, which is the limit" in note.message
    assert [] == none


@pytest.mark.parametrize("command", ["exit 1", "sleep 100"])
async def test_a_job_can_say_that_its_guest_is_never_kept(
    tmp_path: Path, autojump_clock: MockClock, command: str
) -> None:
    """It may fail or be cancelled, in a process that keeps the guests of all others."""
    async with open_rig(tmp_path, keep_secs=100.0) as rig:
        task = await rig.submit(JobSpec(command=command, keep=Keep.NEVER, keep_secs=7200))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await trio.sleep(20)
            task.cancel("asked for")

        assert task.job.verdict in (Verdict.FAILED, Verdict.CANCELLED)
        assert [] == kept_secs(rig)
        assert {} == rig.fake.instances()


async def test_a_process_that_lives_on_deletes_its_guest_at_the_end_of_its_time(
    autojump_clock: MockClock,
) -> None:
    """A service does not have to be restarted for that."""
    async with open_fake() as (orchestrator, fake):
        job = await orchestrator.submit(FAILS)
        await job.wait()
        await trio.sleep(2 * EVERY_SECS)
        (lease,) = orchestrator.journal.kept_leases()
        before = len(fake.instances())

        past = datetime.now(UTC) - timedelta(seconds=1)
        await orchestrator.journal.append(
            ev.LeaseKept(job=job.id, instance=lease.instance, deadline=past, **now())
        )
        await trio.sleep(2 * EVERY_SECS)

        assert 1 == before
        assert {} == fake.instances()
        assert [] == orchestrator.journal.open_leases()


@pytest.mark.parametrize("half", ["create", "start"])
async def test_a_guest_that_never_started_is_not_kept(
    tmp_path: Path, autojump_clock: MockClock, half: str
) -> None:
    """There is nothing to enter, and it would take one of the places."""
    async with open_rig(tmp_path, keep_secs=100.0) as rig:
        rig.fake.fail(half, with_error="Missing source path /x for disk y", times=9)

        job = await rig.live(msgspec.structs.replace(FAILS, retries=0))

        assert Verdict.INFRASTRUCTURE == job.verdict
        assert {} == rig.fake.instances()
        assert [] == rig.journal.open_leases()

"""What a dead process left, on the fake Incus: jobs go on, and what nobody holds goes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.attempt.command import Watcher
from orchestrator.capacity import Capacity
from orchestrator.image import trial
from orchestrator.job import steps
from orchestrator.job.queue import Queue
from orchestrator.journal.stamp import now
from orchestrator.report import run_report
from orchestrator.session import locks, reaper
from orchestrator.session.recovery import overdue, recover
from orchestrator.session.resumable import not_resumable
from states import events as ev
from states.ending import Intent
from states.job import Job
from states.lifecycle import State
from states.outcome import FailureKind, Outcome, Verdict
from states.spec import JobSpec, SecretSource
from tests.quick import run_quickly
from tests.samples import sample_event
from tests.unit.orchestrator.rig import Rig, open_rig

TALKS = "echo one; sleep 100; echo two"


async def die_when(rig: Rig, spec: JobSpec, dead: Callable[[Job], bool], run: str = "r") -> None:
    """Submit a job and drive it until `dead`; then stop short, as kill -9 does."""
    task = await rig.submit(spec, run=run)
    rig.context.intent.rise(Intent.DETACH)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task.run)
        while not dead(task.job):
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


def next_start(rig: Rig) -> Rig:
    """The same state root and daemon, for another process."""
    return Rig(rig.context.root.path, rig.journal, rig.fake)


async def go_on(rig: Rig, **options: bool) -> None:
    await recover(next_start(rig).context, Queue(Capacity(jobs=4)), **options)


def log_of(rig: Rig, job: str = "r.1", attempt: int = 1) -> bytes:
    return (rig.context.root.attempt_dir(job, attempt) / "guest.log").read_bytes()


def nothing_left(rig: Rig) -> bool:
    return not rig.fake.instances() and not rig.journal.open_leases()


async def test_a_running_job_is_followed_to_its_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its log has no gap and no line twice, and its verdict is its own."""
    async with open_rig(tmp_path) as rig:
        await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert [b"one", b"two"] == log_of(rig).splitlines()[1:]
        assert nothing_left(rig)


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_guest_that_is_not_ready_yet_is_used(
    tmp_path: Path, autojump_clock: MockClock, stopped: bool
) -> None:
    """Also when it has stopped since, as after a reboot: no command has run in it."""
    async with open_rig(tmp_path) as rig:
        rig.fake.hang("pikaci-ready")
        await die_when(
            rig, JobSpec(command=TALKS), lambda job: job.state is State.DEVICES_CONFIGURED
        )
        if stopped:
            rig.fake.stop_guest(*rig.fake.instances())
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert nothing_left(rig)


async def test_a_result_that_is_there_is_collected(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The job ended while nobody looked; it is neither run again nor lost."""
    async with open_rig(tmp_path) as rig:
        spec = JobSpec(command=TALKS.replace("echo two", "echo two; exit 3"))
        await die_when(rig, spec, lambda job: job.state is State.RUNNING)
        await trio.sleep(1000)
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert (Outcome.FAILED, 3, 1) == (job.outcome, job.exit_code, job.attempt)
        assert [b"one", b"two"] == log_of(rig).splitlines()[1:]
        assert nothing_left(rig)


@pytest.mark.parametrize("carried_out", [False, True])
# The second takes longer than an unanswered create is waited for.
@pytest.mark.parametrize("command", ["true", "sleep 100"])
async def test_an_instance_half_made_is_released_and_the_job_tried_again(
    tmp_path: Path, autojump_clock: MockClock, carried_out: bool, command: str
) -> None:
    """The new attempt has an instance of its own; no retry is used up."""
    async with open_rig(tmp_path) as rig:
        rig.fake.late("create", secs=20 if carried_out else 1e9)

        def asked(job: Job) -> bool:
            return job.state is State.ARTIFACTS_RESET and bool(rig.journal.open_leases())

        await die_when(rig, JobSpec(command=command), asked)
        await go_on(rig)

        job = rig.journal.job("r.1")
        leases = rig.notes(ev.LeaseOpened)
        assert (Outcome.PASSED, 2, 0) == (job.outcome, job.attempt, job.retries)
        assert 2 == len({lease.instance for lease in leases})
        assert nothing_left(rig)


async def test_an_instance_that_a_dead_resume_released_is_not_asked_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its name is used up: the job is tried again in an instance of another name, and not lost."""
    async with open_rig(tmp_path) as rig:
        rig.fake.late("create", secs=1e9)

        def asked(job: Job) -> bool:
            return job.state is State.ARTIFACTS_RESET and bool(rig.journal.open_leases())

        await die_when(rig, JobSpec(command="true"), asked)
        (lease,) = rig.journal.open_leases()
        # A resume deleted it, and died before it began another attempt.
        await rig.journal.append(ev.LeaseEnded(job="r.1", instance=lease.instance, **now()))
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert (Outcome.PASSED, 2, 0) == (job.outcome, job.attempt, job.retries)
        assert nothing_left(rig)


async def test_an_earlier_attempt_s_lease_ends_after_the_job(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its instance could not be deleted then, and is absent now."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("start", with_error="websocket: close 1006")
        rig.fake.fail("delete", with_error="it is stuck")
        await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        rig.fake.delete_guest(rig.journal.open_leases()[0].instance)
        await go_on(rig)

        assert (Outcome.PASSED, 2) == (
            rig.journal.job("r.1").outcome,
            rig.journal.job("r.1").attempt,
        )
        assert nothing_left(rig)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_dead_process_s_delete_may_still_go_on(
    tmp_path: Path, autojump_clock: MockClock, ended: bool
) -> None:
    """Incus then says that such an operation has just succeeded: the instance is gone."""
    async with open_rig(tmp_path) as rig:
        if ended:
            rig.fake.fail("delete", with_error="it is stuck")
            await rig.live(JobSpec(command="true"))
        else:
            await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        rig.fake.fail(
            "delete",
            with_error="Failed deleting instance: Failed to create instance delete operation:"
            " A matching non-reusable operation has now succeeded",
            carried_out=True,
        )
        await go_on(rig)

        assert Outcome.PASSED == rig.journal.job("r.1").outcome
        assert nothing_left(rig)


def test_an_instance_that_may_still_appear_is_waited_for_however_old_its_lease_is() -> None:
    """The create of an ended job was cut off a moment ago, long after the intent."""

    async def main(base: Path) -> None:
        async with open_rig(base) as rig:

            def lose(entry: ev.Entry) -> None:
                if isinstance(entry, ev.LeaseOpened):
                    rig.fake.kill_daemon()

            rig.journal.observe(lose)
            rig.fake.late("create", secs=20)
            rig.context.intent.rise(Intent.DETACH)
            async with trio.open_nursery() as nursery:
                nursery.start_soon((await rig.submit(JobSpec(command="true"))).run)
                await trio.sleep(60)
                rig.fake.restart_daemon()
                await trio.sleep(3)
                nursery.cancel_scope.cancel()
            await rig.journal.append(sample_event(ev.Failed, 3))
            await go_on(rig)
            await trio.sleep(100)

            assert nothing_left(rig)

    run_quickly(main)


@pytest.mark.parametrize(
    "state", [State.SUBMITTED, State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED]
)
async def test_a_job_that_had_not_begun_to_run_does(
    tmp_path: Path, autojump_clock: MockClock, state: State
) -> None:
    """From whatever state it was left in."""
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="true"))
        while task.job.state is not state:
            await task._steps.next()
        await go_on(rig)

        assert (Outcome.PASSED, 1) == (
            rig.journal.job("r.1").outcome,
            rig.journal.job("r.1").attempt,
        )
        assert nothing_left(rig)


async def test_a_guest_that_would_end_itself_too_early_is_not_started(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process died long ago: the job begins anew, with a lease that is long enough."""
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="true"))
        with monkeypatch.context() as patch:
            patch.setattr(steps, "lease_secs", lambda spec: spec.timeout_secs)
            while task.job.state is not State.DEVICES_CONFIGURED:
                await task._steps.next()
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert (Outcome.PASSED, 2, 0) == (job.outcome, job.attempt, job.retries)
        assert nothing_left(rig)


async def test_a_job_that_today_s_rules_refuse_ends_as_a_rejected_one_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It was accepted by another version: nothing of it is started, and its author is to change it."""
    async with open_rig(tmp_path) as rig:
        await rig.submit(JobSpec(command=" "))
        await go_on(rig)
        job = rig.journal.job("r.1")
        row = rig.journal.find("r.1")

    assert (State.FAILED, Verdict.REJECTED) == (job.state, job.verdict)
    assert row is not None
    assert Verdict.REJECTED is row.verdict
    assert job.failure is not None
    assert (FailureKind.CONFIG, State.SUBMITTED) == (job.failure.kind, job.failure.phase)
    assert "another version of pikaci accepted the job, this one refuses it: command" in (
        job.failure.message
    )
    assert job.failure.resolution
    assert 2 == run_report("r", [job]).exit_code
    assert [] == [call.effect for call in rig.calls]


async def test_a_job_that_was_asked_to_cancel_is_finished_off(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It does not run on, and it is not asked for anew."""
    async with open_rig(tmp_path) as rig:
        await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        job = rig.journal.job("r.1")
        await rig.journal.append(
            ev.CancelRequested(job="r.1", seq=job.seq + 1, reason="a whim", **now())
        )
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert State.CANCELLED == job.state
        assert b"one" in log_of(rig)
        assert nothing_left(rig)


async def test_a_dead_run_can_be_cancelled(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its guest dies, its log is kept."""
    async with open_rig(tmp_path) as rig:
        await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        await go_on(rig, cancel=True)

        assert State.CANCELLED == rig.journal.job("r.1").state
        assert b"one" in log_of(rig)
        assert nothing_left(rig)


async def test_a_guest_that_vanished_meanwhile_is_infrastructure(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """No test failed: the message says that the guest is gone."""
    async with open_rig(tmp_path) as rig:
        await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        (instance,) = rig.fake.instances()
        rig.fake.delete_guest(instance)
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert State.FAILED == job.state
        assert job.failure is not None
        assert "the instance is gone" in job.failure.message
        assert nothing_left(rig)


async def test_a_living_process_s_run_is_left_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The lock tells whose it is: neither its jobs nor its instances are touched."""
    async with open_rig(tmp_path) as rig:
        await die_when(rig, JobSpec(command=TALKS), lambda job: job.state is State.RUNNING)
        before = rig.journal.job("r.1")
        with locks.hold_run(rig.context.root.locks, "r"):
            await go_on(rig)
            doomed = await reaper.unneeded(rig.context)

        assert before == rig.journal.job("r.1")
        assert 1 == len(rig.fake.instances())
        assert [] == doomed


async def test_the_reaper_takes_what_no_job_of_ours_holds_and_nothing_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """By the owner key, not by the name: another owner's instance is never touched."""
    async with open_rig(tmp_path / "a") as rig, open_rig(tmp_path / "b") as other:
        theirs = Rig(tmp_path / "b", other.journal, rig.fake)
        for one, run in ((rig, "known"), (rig, "forgotten"), (theirs, "theirs")):
            await die_when(
                next_start(one), JobSpec(command=TALKS), lambda job: job.state is State.RUNNING, run
            )
        stray = rig.journal.job("forgotten.1").instance
        rig.journal.forget(["forgotten.1"])
        doomed = await reaper.unneeded(rig.context)
        await reaper.reap(rig.context, doomed)

        assert [stray] == [one.instance for one in doomed]
        assert {
            rig.journal.job("known.1").instance,
            theirs.journal.job("theirs.1").instance,
        } == set(rig.fake.instances())


@pytest.mark.parametrize("cancel", [True, False])
async def test_a_guest_in_which_an_image_was_tried_goes_at_the_next_start(
    tmp_path: Path, autojump_clock: MockClock, cancel: bool
) -> None:
    """Whether its job is resumed or cancelled, and without gc; nobody takes it while it is used."""

    async def killed(*_: Any) -> None:
        """Nothing is deleted by a process that is gone."""

    spec = JobSpec(command="true", output="image", sources=())
    async with open_rig(tmp_path) as rig:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trial, "delete_trial", killed)
            await die_when(rig, spec, lambda job: len(rig.fake.instances()) == 2)
        with locks.hold_run(rig.context.root.locks, "r"):
            used = await reaper.unneeded(rig.context)
        await go_on(rig, cancel=cancel)
        await reaper.reap(rig.context, await reaper.unneeded(rig.context))

        assert [] == used
        assert nothing_left(rig)
        assert rig.journal.job("r.1").ended


async def test_a_job_past_its_deadline_is_known(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its lease says until when it may live, whatever became of its process."""
    async with open_rig(tmp_path) as rig:
        moment = datetime.now(UTC)
        for number, secs in enumerate((-1, 60), start=1):
            task = await rig.submit(JobSpec(command="true"), number=number)
            deadline = moment + timedelta(seconds=secs)
            await rig.journal.append(
                ev.LeaseOpened(job=task.job.id, instance=f"x{number}", deadline=deadline, **now())
            )

        assert ["r.1"] == overdue(rig.context)


async def test_a_result_counts_though_nobody_saw_the_command_start(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The guest ended with its job, before anyone could look again."""
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="echo one; exit 3"))
        while task.job.state is not State.DEVICES_CONFIGURED:
            await task._steps.next()
        attempt = task._attempts.current()

        async def ready() -> None:
            await task._record.emit(ev.InstanceReady(**task._record.next()))

        async def unseen() -> None:
            pass

        watcher = Watcher(ready, unseen, lambda chunk: None)
        await attempt.run(watcher, is_ready=False, running=False, secs=60)
        rig.fake.stop_guest(attempt.plan.instance)
        await go_on(rig)

        job = rig.journal.job("r.1")
        assert (Outcome.FAILED, 3) == (job.outcome, job.exit_code)
        assert b"one" in log_of(rig)
        assert nothing_left(rig)


async def test_what_needs_a_job_without_its_secret_is_left_too(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly or not: nothing waits for ever, and a process that has the secret does all."""
    monkeypatch.delenv("PIKACI_TEST_TOKEN", raising=False)
    secret = JobSpec(command="true", secrets={"TOKEN": SecretSource(env="PIKACI_TEST_TOKEN")})
    plain = JobSpec(command="true")
    needs = [{}, {"one": "r.1"}, {"two": "r.2"}, {}]
    async with open_rig(tmp_path) as rig:
        for number, needed in enumerate(needs, start=1):
            await rig.submit(secret if number == 1 else plain, number=number, needs=needed)

        with trio.fail_after(3600):
            await go_on(rig)
        first = [row.state for row in rig.journal.jobs()]
        told = not_resumable([rig.journal.job(f"r.{number}") for number in (3, 2, 1)])
        monkeypatch.setenv("PIKACI_TEST_TOKEN", "x")
        await go_on(rig)

        assert [State.SUBMITTED] * 3 + [State.RESULT_COLLECTED] == first
        assert {"r.1", "r.2", "r.3"} == told.keys()
        assert "it needs the job two, which is not resumed" == str(told["r.3"])
        assert {Outcome.PASSED} == {rig.journal.job(f"r.{n}").outcome for n in range(1, 5)}

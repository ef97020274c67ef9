"""The life of a job on the fake Incus: every fault has one end, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.capacity import Capacity
from orchestrator.cli.summary import summary
from orchestrator.fake_incus import FakeIncus, GuestCommand, GuestOutcome
from orchestrator.incus import Completed, Stdin
from orchestrator.job.queue import Queue
from orchestrator.job.task import MAX_RETRY_DELAY_SECS
from orchestrator.report import job_document, run_report
from states import events as ev
from states.lifecycle import State
from states.outcome import FailureKind, Outcome
from states.spec import JobSpec
from tests.unit.orchestrator.rig import Rig, open_rig, settled, sweep

PASSES = JobSpec(command="true")


@pytest.mark.parametrize(
    ("command", "outcome", "code", "message"),
    [
        ("true", Outcome.PASSED, 0, "test passed"),
        ("exit 7", Outcome.FAILED, 7, "test command exited with 7"),
        ("sleep 100", Outcome.TIMED_OUT, 124, "test command timed out after 5s"),
    ],
)
async def test_the_three_outcomes(
    tmp_path: Path,
    autojump_clock: MockClock,
    command: str,
    outcome: Outcome,
    code: int,
    message: str,
) -> None:
    """A job whose result was collected has the command's outcome; its guest is gone."""
    async with open_rig(tmp_path) as rig:
        job = await rig.live(JobSpec(command=command, timeout_secs=5))

        assert State.RESULT_COLLECTED == job.state
        assert (outcome, code, message) == (job.outcome, job.exit_code, job.message)
        assert settled(rig)


async def test_the_effects_come_in_their_order(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One linear sequence, each call after the event before it; four calls and the look-up."""
    async with open_rig(tmp_path) as rig:
        await rig.live(JobSpec(command="true"))

        calls = [entry.argv for entry in rig.notes(ev.Called)]
        # On a slow machine it has waited for this or that.
        aside = (ev.Called, ev.Waited)
        story = [ev.tag(type(entry)) for entry in rig.entries() if not isinstance(entry, aside)]

    assert ["launch", "exec", "exec", "delete"] == [argv[1] for argv in calls if argv[1] != "query"]
    assert [
        "submitted",
        "artifacts_reset",
        "lease_opened",
        "devices_configured",
        "instance_ready",
        "running",
        "result_collected",
        "lease_ended",
    ] == story


async def test_a_file_left_by_an_earlier_attempt_is_gone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The artifact directory is reset before the instance is created, always."""
    async with open_rig(tmp_path) as rig:
        stale = rig.context.root.attempt_dir("r.1", 1) / "artifacts" / "stale"
        stale.parent.mkdir(parents=True)
        stale.touch()
        seen: list[bool] = []
        rig.journal.observe(
            lambda entry: (
                seen.append(stale.exists()) if isinstance(entry, ev.DevicesConfigured) else None
            )
        )

        await rig.live(JobSpec(command="true"))

    assert [False] == seen


@pytest.mark.parametrize(("times", "outcome"), [(3, Outcome.PASSED), (9, None)])
async def test_a_result_whose_exec_was_not_heard_is_asked_for_again(
    tmp_path: Path, autojump_clock: MockClock, times: int, outcome: Outcome | None
) -> None:
    """A busy Incus loses what a short exec prints; a guest that never says anything has an end."""
    async with open_rig(tmp_path) as rig:
        rig.fake.mute("pikaci-collect", times=times)

        job = await rig.live(JobSpec(command="true", retries=0))

        assert outcome is job.outcome
        assert settled(rig)


async def test_a_start_whose_stdin_was_cut_short_is_made_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner started nothing, so the same attempt goes on, with the job's own variables."""
    ran: list[GuestCommand] = []
    starts = 0

    async def script(command: GuestCommand) -> GuestOutcome:
        ran.append(command)
        return GuestOutcome()

    async with open_rig(tmp_path, guest_script=script) as rig:
        spawn = rig.fake.__call__

        async def cut_once(
            argv: Sequence[str], *, stdin: bytes | Stdin, **options: Any
        ) -> Completed:
            async def cut() -> bytes:
                nonlocal starts
                data = stdin if isinstance(stdin, bytes) else await stdin()
                starts += b"PIKACI_INCUS_NONCE=" in data
                return data[: len(data) // 2] if starts == 1 else data

            return await spawn(argv, stdin=cut if argv[1] == "exec" else stdin, **options)

        monkeypatch.setattr(FakeIncus, "__call__", staticmethod(cut_once))
        job = await rig.live(JobSpec(command="true", env={"TOKENISH": "v4lue"}, retries=0))

        assert (Outcome.PASSED, 1, 2) == (job.outcome, job.attempt, starts)
        assert ["v4lue"] == [command.environment["TOKENISH"] for command in ran]
        assert settled(rig)


async def test_a_broken_connection_is_retried_with_an_instance_of_its_own(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """An infrastructure fault before the command costs an attempt, and loses no evidence."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("start", with_error="websocket: close 1006", times=1)

        job = await rig.live(JobSpec(command="true", retries=1))

        retried = [entry for entry in rig.entries() if isinstance(entry, ev.Retried)]
        leases = rig.notes(ev.LeaseOpened)
        assert (Outcome.PASSED, 2) == (job.outcome, job.attempt)
        assert ["artifacts_reset"] == [entry.failure.phase for entry in retried]
        assert 2 == len({lease.instance for lease in leases})
        assert rig.context.root.attempt_dir("r.1", 1).is_dir()
        assert settled(rig)


async def test_retries_are_bounded_and_their_delays_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """When the retries are used up the job has failed, with what was seen last."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("create", with_error="websocket: close 1006", times=9)

        job = await rig.live(JobSpec(command="true", retries=2))

        delays = [entry.delay_secs for entry in rig.entries() if isinstance(entry, ev.Retried)]
        assert (State.FAILED, 3) == (job.state, job.attempt)
        assert job.failure is not None
        assert FailureKind.INFRASTRUCTURE == job.failure.kind
        assert "close 1006" in job.failure.message
        assert 2 == len(delays)
        assert all(0 < delay <= 1.5 * MAX_RETRY_DELAY_SECS for delay in delays)
        assert settled(rig)


async def test_a_daemon_that_is_away_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """From the first call on, and no retry is used up: it was never asked for anything."""
    async with open_rig(tmp_path) as rig:
        rig.fake.kill_daemon()
        async with trio.open_nursery() as nursery:
            task = await rig.submit(JobSpec(command="true", retries=0))
            nursery.start_soon(task.run)
            await trio.sleep(3)
            rig.fake.restart_daemon()

        assert (Outcome.PASSED, 1) == (task.job.outcome, task.job.attempt)


async def test_what_a_retry_cannot_cure_is_not_retried(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A refusal by Incus ends the job at once, with Incus's words and the phase."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("create", with_error="Missing source path /x for disk y", times=9)

        job = await rig.live(JobSpec(command="true", retries=5))

        assert (State.FAILED, 1) == (job.state, job.attempt)
        assert job.failure is not None
        assert "artifacts_reset" == job.failure.phase
        assert "Missing source path /x" in job.failure.message
        assert settled(rig)


async def test_a_guest_that_is_never_ready_names_what_is_missing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The failure has the deadline, the phase and the mount, and the guest is gone."""
    async with open_rig(tmp_path) as rig:
        rig.fake.never_ready(missing="/workspace/snapshot")

        job = await rig.live(JobSpec(command="true"))

        assert State.FAILED == job.state
        assert job.failure is not None
        assert "devices_configured" == job.failure.phase
        assert "/workspace/snapshot" in job.failure.message
        assert "60 s" in job.failure.message
        assert settled(rig)


@pytest.mark.parametrize("how", ["missing", "empty", "torn", "foreign"])
async def test_a_result_that_cannot_be_believed_is_infrastructure(
    tmp_path: Path, autojump_clock: MockClock, how: str
) -> None:
    """Neither a pass nor a failed test comes of a result file that is not this attempt's."""
    async with open_rig(tmp_path) as rig:
        rig.fake.spoil_result(how)  # type: ignore[arg-type]

        job = await rig.live(JobSpec(command="true"))

        assert (State.FAILED, None) == (job.state, job.outcome)
        assert job.failure is not None
        assert FailureKind.INFRASTRUCTURE == job.failure.kind
        assert settled(rig)


@pytest.mark.parametrize("end", ["stop", "delete"])
async def test_a_guest_that_is_lost_under_the_job_is_infrastructure(
    tmp_path: Path, autojump_clock: MockClock, end: str
) -> None:
    """Somebody else ends the guest: the message says what was seen, and no test failed."""
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="sleep 5000", timeout_secs=9000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            while task.job.state is not State.RUNNING:
                await trio.sleep(1)
            (name,) = rig.fake.instances()
            rig.fake.stop_guest(name) if end == "stop" else rig.fake.delete_guest(name)

        failure = task.job.failure
        assert State.FAILED == task.job.state
        assert failure is not None
        assert ("stopped" if end == "stop" else "gone") in failure.message
        assert settled(rig)


async def test_a_delete_that_fails_leaves_the_verdict_and_the_lease(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The job passed; a warning says what is left, and the next sweep takes it."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("delete", with_error="Failed deleting instance: it is stuck", times=1)

        job = await rig.live(JobSpec(command="true"))

        assert Outcome.PASSED == job.outcome
        assert 1 == len(rig.journal.open_leases())
        assert any("stuck" in note.message for note in rig.notes(ev.Warned))
        told = rig.journal.job(job.id)
        report = run_report(job.run, [told])
        (warning,) = report.jobs[0].warnings
        assert "is left to `pikaci reap`" in warning
        assert f"warning: {job.name}: {warning}\n" in summary([told], colours=False)
        assert warning in job_document(told).warnings
        await sweep(rig)
        assert settled(rig)


async def test_a_kept_guest_is_spared_until_its_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """With keep_secs the guest of a failed job stays, and a sweep passes it by."""
    async with open_rig(tmp_path, keep_secs=3600.0) as rig:
        await rig.live(JobSpec(command="exit 1"))
        await sweep(rig)

        assert 1 == len(rig.fake.instances())
        assert [True] == [lease.kept for lease in rig.journal.open_leases()]


async def test_a_kept_guest_goes_with_the_first_sweep_after_its_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A lease that was kept ends; nobody has to think of it."""
    async with open_rig(tmp_path, keep_secs=-1.0) as rig:
        await rig.live(JobSpec(command="exit 1"))
        kept = len(rig.fake.instances())
        await sweep(rig)

        assert 1 == kept
        assert settled(rig)


async def test_the_guest_of_a_job_that_passed_is_never_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """keep_secs is for what did not pass."""
    async with open_rig(tmp_path, keep_secs=3600.0) as rig:
        await rig.live(JobSpec(command="true"))

        assert settled(rig)


@pytest.mark.parametrize("call", range(6))
async def test_cancelled_at_any_call_the_job_is_dead_and_says_so(
    tmp_path: Path, autojump_clock: MockClock, call: int
) -> None:
    """Cancelled when its n-th call begins: the job ends once, and no instance is left."""
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="sleep 1"))
        begun = 0
        with trio.CancelScope() as scope:
            spawn = rig.context.incus._spawn

            async def counting(argv, **kwargs):  # type: ignore[no-untyped-def]
                nonlocal begun
                begun += 1
                if begun == call + 1:
                    scope.cancel()
                return await spawn(argv, **kwargs)

            for incus in (task._steps._there.incus, task._steps._there.images.incus):
                incus._spawn = counting  # type: ignore[assignment]
            await task.run()

        job = rig.journal.job("r.1")
        expected = {State.CANCELLED} if call < 4 else {State.RESULT_COLLECTED}
        assert job.state in expected
        await trio.sleep(100)
        await sweep(rig)
        assert not rig.fake.instances()


async def test_a_cancelled_job_s_log_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What the job had printed when it was cancelled lies on the host."""

    async with open_rig(tmp_path) as rig:
        task = await rig.submit(JobSpec(command="echo begun; sleep 500"))
        with trio.CancelScope() as scope:
            rig.journal.observe(
                lambda entry: scope.cancel() if isinstance(entry, ev.Running) else None
            )
            await task.run()

        log = rig.context.root.attempt_dir("r.1", 1) / "guest.log"
        assert State.CANCELLED == task.job.state
        assert b"begun" in log.read_bytes(), "what came after the cancellation too"
        assert settled(rig)


async def test_a_host_that_cannot_store_the_log_says_so(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The host's full disk is a fault of the infrastructure, told in its own words."""

    def refuse(job: str, chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with open_rig(tmp_path, on_log=refuse) as rig:
        job = await rig.live(JobSpec(command="true"))

        assert State.FAILED == job.state
        assert job.failure is not None
        assert "No space left on device" in job.failure.message
        assert "state root" in job.failure.resolution
        assert settled(rig)


def deletes(rig: Rig, job: str) -> list[str]:
    """The effects of the job after its result."""
    effects = [entry.effect for entry in rig.notes(ev.Called, job)]
    return effects[effects.index("collect") + 1 :]


async def test_the_delete_of_the_last_guest_is_left_to_incus(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """If nobody waits for it. Its lease is open until a sweep sees that the guest is gone."""
    async with open_rig(tmp_path, waits_for_delete=False) as rig:
        queue = Queue(Capacity(jobs=1))
        tasks = [await rig.submit(PASSES, number=number, queue=queue) for number in (1, 2)]
        for task in tasks:
            task.enqueue()
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task.run)

        assert ["delete"] == deletes(rig, "r.1")
        assert ["make ephemeral", "stop ephemeral"] == deletes(rig, "r.2")
        assert {} == rig.fake.instances()
        assert ["r.2"] == [lease.job for lease in rig.journal.open_leases()]
        assert () == rig.journal.job("r.2").warnings
        await sweep(rig)
        assert settled(rig)


async def test_what_incus_does_not_take_is_deleted_here(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A refused stop is no more than a wait for the delete."""
    rigs: list[Rig] = []

    async def script(command: GuestCommand) -> GuestOutcome:
        rigs[0].fake.fail("query", with_error="Instance is busy running a backup operation")
        return GuestOutcome()

    async with open_rig(tmp_path, waits_for_delete=False, guest_script=script) as rig:
        rigs.append(rig)
        job = await rig.live(PASSES)

        assert ["make ephemeral", "delete"] == deletes(rig, job.id)
        assert settled(rig)
        assert () == rig.journal.job(job.id).warnings


@pytest.mark.parametrize("command", ["exit 1", "sleep 100"])
async def test_a_kept_guest_is_not_left_to_incus(
    tmp_path: Path, autojump_clock: MockClock, command: str
) -> None:
    """Whoever asks to keep a guest has it."""
    async with open_rig(tmp_path, waits_for_delete=False, keep_secs=3600.0) as rig:
        await rig.live(JobSpec(command=command, timeout_secs=5))

        assert 1 == len(rig.fake.instances())
        assert [True] == [lease.kept for lease in rig.journal.open_leases()]

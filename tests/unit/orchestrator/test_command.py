"""A job's command: from the wait in its guest, through the line that it is ready, to the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import make_plan
from orchestrator.fake_incus import FakeIncus, GuestCommand, GuestOutcome
from orchestrator.incus import Completed, Sink, stdin_of
from states import events as ev
from states.lifecycle import State
from states.outcome import FailureKind, Outcome
from states.spec import Deadlines, JobSpec
from tests.samples import sample_remote_context, sample_shell_job
from tests.unit.orchestrator.rig import Rig, open_rig, settled


def log_of(rig: Rig) -> bytes:
    return (rig.context.root.attempt_dir("r.1", 1) / "guest.log").read_bytes()


def test_the_wait_becomes_what_starts_the_runner() -> None:
    """The exec ends with the runner and its variables, as without the wait."""
    plan = make_plan(sample_shell_job(command="a 'b'\n -- c"), sample_remote_context())
    alone = commands.run(plan, stdin=stdin_of(bytes)).args
    after_wait = commands.run(plan, stdin=stdin_of(bytes), wait=True).args
    runner = alone[alone.index("--") :]

    assert runner == after_wait[-len(runner) :]
    assert (
        commands.ready(plan).args[-len(plan.mounts) :]
        == (after_wait[-len(runner) - len(plan.mounts) : -len(runner)])
    )


async def test_nothing_of_a_job_runs_before_the_journal_has_a_ready_guest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """So a process that takes over a job knows what may have begun."""
    seen: list[State] = []

    async def script(command: GuestCommand) -> GuestOutcome:
        seen.append(rig.journal.job("r.1").state)
        return GuestOutcome()

    async with open_rig(tmp_path, guest_script=script) as rig:
        await rig.live(JobSpec(command="true"))

        assert [State.INSTANCE_READY] == seen
        assert settled(rig)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
async def test_the_line_that_a_guest_is_ready_is_not_in_the_log(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """However the output is cut into pieces; a line of the job that looks like it stays."""
    async with open_rig(tmp_path) as rig:
        spawn = rig.fake.__call__

        async def in_pieces(argv: Sequence[str], *, sink: Sink | None, **options: Any) -> Completed:
            async def pieces(chunk: bytes) -> None:
                assert sink is not None
                for at in range(0, len(chunk), size):
                    await sink(chunk[at : at + size])

            return await spawn(argv, sink=sink and pieces, **options)

        monkeypatch.setattr(FakeIncus, "__call__", staticmethod(in_pieces))
        job = await rig.live(JobSpec(command="echo ready; echo two"))

        assert Outcome.PASSED is job.outcome
        header, *lines = log_of(rig).splitlines()
        assert header.startswith(b"[pikaci] incus guest booted at ")
        assert [b"ready", b"two"] == lines


async def test_a_wait_that_never_ends_is_cut(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Long before the command's own limit, and the setting is named."""
    async with open_rig(tmp_path) as rig:
        rig.fake.hang("pikaci-ready")
        deadlines = Deadlines(ready_secs=7)
        job = await rig.live(
            JobSpec(command="true", timeout_secs=9999, retries=0, deadlines=deadlines)
        )

        assert job.failure is not None
        assert (FailureKind.INFRASTRUCTURE, State.DEVICES_CONFIGURED) == (
            job.failure.kind,
            job.failure.phase,
        )
        assert "the wait for a ready guest did not end within 37 s" == job.failure.message
        assert "deadlines.ready_secs sets the limit" == job.failure.resolution
        assert settled(rig)


async def test_a_connection_that_breaks_before_the_guest_is_ready(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The same attempt waits again; whatever the exit code, it is not the command's."""
    async with open_rig(tmp_path) as rig:
        rig.fake.break_off("pikaci-ready", secs=1, exit_code=0, with_error="", times=1)
        rig.fake.break_off("pikaci-ready", secs=1, times=2)
        job = await rig.live(JobSpec(command="echo one", retries=0))

        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert [b"one"] == log_of(rig).splitlines()[1:]
        assert 1 == len(rig.notes(ev.InstanceReady))


async def test_a_guest_that_stops_before_it_is_ready(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The call is a fault, in the job's trace too."""
    async with open_rig(tmp_path) as rig:
        rig.fake.fail("pikaci-ready", with_error="Instance is not running")
        job = await rig.live(JobSpec(command="true", retries=0))
        (call,) = (note for note in rig.notes(ev.Called) if note.effect == "run")

        assert job.failure is not None
        said = "incus exec failed: Instance is not running"
        assert call.error.startswith(said) and job.failure.message.startswith(said)


async def test_a_connection_that_breaks_when_the_guest_is_ready(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The runner is started without another wait: what it runs might prevent one."""
    async with open_rig(tmp_path) as rig:
        rig.fake.break_off("pikaci-incus-run", secs=0)
        job = await rig.live(JobSpec(command="echo one", retries=0))
        execs = [note.argv for note in rig.notes(ev.Called) if note.effect in ("run", "follow")]

        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert ["pikaci-ready" in argv for argv in execs] == [True, False]


async def test_a_guest_that_talks_without_end_before_it_is_ready(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It is cut off: a limit of its own, far below that of a log."""
    async with open_rig(tmp_path) as rig:
        rig.fake.flood("pikaci-ready")
        job = await rig.live(JobSpec(command="true", retries=0))

        assert job.failure is not None
        assert FailureKind.INFRASTRUCTURE is job.failure.kind
        assert "the wait for a ready guest printed over 1048576 bytes" == job.failure.message
        assert settled(rig)


async def test_a_guest_that_only_talks_is_given_up(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints is no sign of life before it is ready: retries end as for a silent one."""
    async with open_rig(tmp_path) as rig:
        spawn = rig.fake.__call__

        async def talking(argv: Sequence[str], *, sink: Sink | None, **options: Any) -> Completed:
            if "pikaci-ready" not in argv:
                return await spawn(argv, sink=sink, **options)
            assert sink is not None
            await trio.sleep(1)
            await sink(b"welcome\n")
            return Completed(tuple(argv), 0, b"", b"")

        monkeypatch.setattr(FakeIncus, "__call__", staticmethod(talking))
        with trio.fail_after(1000):
            job = await rig.live(JobSpec(command="true", retries=0))

        assert job.failure is not None
        assert "the exec ended while it waited for a ready guest" == job.failure.message
        assert settled(rig)


async def test_the_way_to_a_host_takes_nothing_of_the_wait(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link's wait has its own bound, and is no part of any call's deadline."""

    class Slow:
        async def up(self) -> None:
            await trio.sleep(45)

        def environment(self) -> dict[str, str]:
            return {}

    async with open_rig(tmp_path) as rig:
        monkeypatch.setattr(rig.context.incus, "_link", Slow())
        deadlines = Deadlines(ready_secs=7, image_secs=100)
        job = await rig.live(JobSpec(command="true", retries=0, deadlines=deadlines))

        assert Outcome.PASSED is job.outcome

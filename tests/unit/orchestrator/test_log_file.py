"""The host's copy of a log, within its bound whatever a guest sends."""

from __future__ import annotations

import json
import os
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.attempt import log_file
from orchestrator.attempt.log_file import HEADROOM_BYTES, LogFile, limit_line
from orchestrator.attempt.time_file import TimeFile
from orchestrator.fake_incus import FakeIncus, runner
from orchestrator.fake_incus.guest import Guest, GuestCommand, GuestOutcome
from orchestrator.incus import Completed, Incus
from states.lifecycle import State
from states.outcome import Outcome
from states.spec import JobSpec, size_in_bytes
from tests.unit.orchestrator.rig import open_rig

LIMIT = 1000
MOST = LIMIT + HEADROOM_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guest.log"


async def test_what_is_within_the_limit_is_kept_byte_for_byte(path: Path) -> None:
    """Also just as much as there is room for."""
    async with LogFile(path, max_bytes=LIMIT, resume=False) as log:
        assert b"one" == await log.write(b"one")
        assert b"x" * (MOST - 3) == await log.write(b"x" * (MOST - 3))
        assert (MOST, False) == (log.offset, log.full)

    assert b"one" + b"x" * (MOST - 3) == path.read_bytes()


async def test_past_the_limit_one_line_says_so(path: Path, autojump_clock: MockClock) -> None:
    """Once, and nothing more is kept; a piece that reaches over the limit is cut."""
    async with LogFile(path, max_bytes=LIMIT, resume=False) as log:
        assert MOST == len(await log.write(b"x" * (2 * MOST)))
        for _ in range(2):
            assert b"" == await log.write(b"more")
        assert (MOST, True) == (log.offset, log.full)

    assert b"x" * MOST + limit_line(LIMIT) == path.read_bytes()


async def test_dropping_is_slow(path: Path, autojump_clock: MockClock) -> None:
    """A guest that sends for ever is kept waiting: it costs the host little."""
    async with LogFile(path, max_bytes=LIMIT, resume=False) as log:
        await log.write(b"x" * (2 * MOST))
        began = trio.current_time()
        for _ in range(3):
            await log.write(b"x" * 65536)
        assert trio.current_time() - began >= 3 * log_file.DROP_SECS


async def test_a_copy_goes_on_where_it_was_left(path: Path, autojump_clock: MockClock) -> None:
    """With the bytes that are there; one that was full stays so."""
    path.write_bytes(b"one")
    async with LogFile(path, max_bytes=LIMIT, resume=True) as log:
        assert 3 == log.offset
        await log.write(b"two")
        assert 6 == log.offset
    assert b"onetwo" == path.read_bytes()
    async with LogFile(path, max_bytes=LIMIT, resume=True) as log:
        await log.write(b"x" * (2 * MOST))
    whole = path.read_bytes()
    async with LogFile(path, max_bytes=LIMIT, resume=True) as log:
        assert (MOST, True) == (log.offset, log.full)
        await log.write(b"more")
    assert whole == path.read_bytes()


async def test_a_copy_begins_anew(path: Path) -> None:
    """When it is opened so, and when it is told to."""
    path.write_bytes(b"old")
    async with LogFile(path, max_bytes=LIMIT, resume=False) as log:
        await log.write(b"one")
        await log.restart()
        await log.write(b"two")

    assert b"two" == path.read_bytes()


async def test_a_link_in_its_place_is_not_written_through(path: Path, tmp_path: Path) -> None:
    """Its directory is ours, and still."""
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    path.symlink_to(other)

    with pytest.raises(OSError, match="guest.log"):
        async with LogFile(path, max_bytes=LIMIT, resume=False):
            pass
    assert b"theirs" == other.read_bytes()


async def test_no_write_is_done_in_the_loop_s_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes its time stops no other job."""
    threads = set()
    for name in ("open", "write", "close", "ftruncate"):
        real = getattr(os, name)

        def seen(*words: object, real=real) -> object:  # type: ignore[no-untyped-def]
            threads.add(threading.get_ident())
            return real(*words)

        monkeypatch.setattr(log_file.os, name, seen)
    times = TimeFile(path.with_name("times"))
    async with LogFile(path, max_bytes=LIMIT, resume=False, times=times) as log:
        await log.write(b"one")
        await log.pause()
        await log.restart()

    assert threads
    assert threading.get_ident() not in threads


@given(pieces=st.lists(st.binary(max_size=60), max_size=20), limit=st.integers(1, 100))
def test_whatever_comes_the_bound_holds(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], limit: int
) -> None:
    """What is kept is the start of what came, and what was told of as kept."""
    path = tmp_path_factory.mktemp("log") / "guest.log"
    sent = b"".join(pieces)
    most = limit + HEADROOM_BYTES

    async def main() -> bytes:
        async with LogFile(path, max_bytes=limit, resume=False) as log:
            await log.write(b"x" * HEADROOM_BYTES)
            return b"".join([await log.write(piece) for piece in pieces])

    kept = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert kept == sent[:limit]
    end = limit_line(limit) if len(sent) > limit else b""
    assert b"x" * HEADROOM_BYTES + kept + end == path.read_bytes()
    assert path.stat().st_size <= most + len(limit_line(limit))


# In a job.


async def flood(command: GuestCommand) -> GuestOutcome:
    """A guest whose runner keeps to no limit."""
    command.print(b"x" * 65536)
    command.print(b"x" * 400_000)
    return GuestOutcome(exit_code=0)


async def test_a_guest_that_keeps_to_no_limit_fills_no_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its verdict is as true as before, and a warning says what is missing."""
    async with open_rig(tmp_path, guest_script=flood) as rig:
        job = await rig.live(JobSpec(command="x", log_bytes="100kB"))

    assert Outcome.PASSED == job.outcome
    assert job.artifacts is not None
    log = (Path(job.artifacts) / "guest.log").read_bytes()
    assert log.endswith(limit_line(100_000))
    assert len(log) == 100_000 + HEADROOM_BYTES + len(limit_line(100_000))
    assert ["the log was cut off at log_bytes = 100000"] == list(job.warnings)
    assert not list(Path(job.artifacts).glob("*.new"))


async def test_a_log_that_did_not_arrive_whole_says_so(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result says how long the log is; the verdict is as true as before."""
    publish = runner._publish

    def longer(guest: Guest, log: bytes, result: bytes) -> None:
        changed = json.loads(result)
        publish(guest, log, json.dumps({**changed, "log_bytes": len(log) + 100}).encode())

    async def pass_it(command: GuestCommand) -> GuestOutcome:
        command.print(b"fine\n")
        return GuestOutcome(exit_code=0)

    monkeypatch.setattr(runner, "_publish", longer)
    async with open_rig(tmp_path, guest_script=pass_it) as rig:
        job = await rig.live(JobSpec(command="x"))

    assert Outcome.PASSED == job.outcome
    assert job.artifacts is not None
    size = (Path(job.artifacts) / "guest.log").stat().st_size
    assert [f"the log is incomplete: {size} of its {size + 100} bytes arrived"] == list(
        job.warnings
    )


async def test_a_log_whose_execs_are_not_heard_is_pulled_as_a_file(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A busy Incus loses what short execs print: here all that has the log."""
    async with open_rig(tmp_path) as rig:
        rig.fake.mute("pikaci-incus-run", times=9)

        async def spawn(argv: Sequence[str], **options: Any) -> Completed:
            if "./guest.log" in argv:
                rig.fake.mute("pikaci-collect")
            return await rig.fake(argv, **options)

        incus = Incus(tmp_path / "conf", spawn=spawn)
        rig.context._at["local"] = replace(rig.context.here, incus=incus)

        job = await rig.live(JobSpec(command="echo one; echo two"))

        assert (Outcome.PASSED, ()) == (job.outcome, job.warnings)
        assert job.artifacts is not None
        log = (Path(job.artifacts) / "guest.log").read_bytes()
        assert [b"one", b"two"] == log.splitlines()[1:]


async def test_an_archive_that_does_not_end_costs_no_verdict(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result came first; what came of the artifacts is there, and the rest is said."""
    real = FakeIncus.__call__

    async def stuck(self, argv, *, env, stdin, sink):  # type: ignore[no-untyped-def]
        if "pikaci-collect" not in argv:
            return await real(self, argv, env=env, stdin=stdin, sink=sink)
        sent = bytearray()

        async def keep(chunk: bytes) -> None:
            sent.extend(chunk)

        await real(self, argv, env=env, stdin=stdin, sink=keep)
        assert tarfile.RECORDSIZE == len(sent)
        await sink(bytes(sent[:1200]))
        return await trio.sleep_forever()

    monkeypatch.setattr(FakeIncus, "__call__", stuck)
    command = "echo one > /artifacts/one; exit 3"
    async with open_rig(tmp_path) as rig:
        job = await rig.live(JobSpec(command=command, artifacts=("one",)))

    assert (Outcome.FAILED, 3) == (job.outcome, job.exit_code)
    assert any("did not end within 300 s" in warning for warning in job.warnings), job.warnings


async def test_a_cancelled_job_is_not_kept_waiting_by_what_its_guest_sends(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive without an end is cut off within the time that a cancellation has."""
    real = FakeIncus.__call__

    async def endless(self, argv, *, env, stdin, sink):  # type: ignore[no-untyped-def]
        if "pikaci-collect" not in argv:
            return await real(self, argv, env=env, stdin=stdin, sink=sink)
        member = tarfile.TarInfo("one")
        member.size = 1 << 29
        await sink(member.tobuf(tarfile.GNU_FORMAT))
        while True:
            await sink(b"x" * 1000)
            await trio.sleep(0.5)

    monkeypatch.setattr(FakeIncus, "__call__", endless)
    async with open_rig(tmp_path) as rig, trio.open_nursery() as nursery:
        task = await rig.submit(JobSpec(command="sleep 1000", artifacts=("one",)))
        nursery.start_soon(task.run)
        while task.job.state is not State.RUNNING:
            await trio.sleep(0.1)
        task.cancel("asked")
        began = trio.current_time()
        await task.settled.wait()

        assert trio.current_time() - began <= 10
    assert State.CANCELLED == task.job.state
    directory = rig.context.root.attempt_dir(task.job.id, 1)
    assert [] == [path.name for path in directory.rglob("one")]


def test_sizes_are_as_everywhere() -> None:
    """The default too."""
    assert 2 << 30 == size_in_bytes(JobSpec(command="x").log_bytes)

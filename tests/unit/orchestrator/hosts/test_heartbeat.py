"""A host that takes connections and does not answer: no call waits for it for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator.fake_incus import FakeIncus
from orchestrator.hosts.heartbeat import ANSWER_SECS, ASK_EVERY_SECS, MISSES, Heartbeat
from orchestrator.incus import Completed, Host, Incus
from states import events as ev
from states.lifecycle import State
from states.outcome import FailureKind, Outcome
from states.spec import Deadlines, JobSpec
from tests.unit.orchestrator.rig import Rig, open_rig

BUILD = Host(name="build")
DAEMON_SECS = 120
SPEC = JobSpec(
    command="echo one; sleep 1000; echo two",
    timeout_secs=9000,
    deadlines=Deadlines(daemon_secs=DAEMON_SECS),
)
FOUND_OUT_SECS = MISSES * (ASK_EVERY_SECS + ANSWER_SECS)


class Port:
    """A port in front of the fake. Connections that met a stall are never answered any more."""

    def __init__(self, fake: FakeIncus) -> None:
        self._fake = fake
        self._stalls = 0
        self._is_stalled = False
        self._broken = trio.Event()
        self.queries = 0
        self.stall_at = ""  # the program of an exec
        self.stalled = trio.Event()

    def stall(self) -> None:
        self._is_stalled = True
        self._stalls += 1
        self.stalled.set()

    def recover(self) -> None:
        self._is_stalled = False

    def break_connections(self) -> None:
        """Close the connections that there are, as a daemon that is killed does."""
        self._broken.set()
        self._broken = trio.Event()

    async def __call__(self, argv: Sequence[str], *, sink: Any, **options: Any) -> Completed:
        before = self._stalls
        self.queries += argv[1] == "query"
        if self.stall_at and self.stall_at in argv:
            self.stall_at = ""
            self.stall()
        if self._is_stalled:
            await trio.sleep_forever()

        async def pass_on(chunk: bytes) -> None:
            if self._stalls == before:
                await sink(chunk)

        broken = self._broken
        done: list[Completed] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                done.append(await self._fake(argv, sink=pass_on, **options))
                nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            await broken.wait()
            nursery.cancel_scope.cancel()
        if not done:
            return Completed(tuple(argv), 1, b"", b"Error: websocket: close 1006\n")
        if self._stalls != before:
            await trio.sleep_forever()
        return done[0]


@asynccontextmanager
async def open_far(base: Path) -> AsyncIterator[tuple[Rig, Port]]:
    """A rig whose host is behind a port."""
    async with open_rig(base, host=BUILD) as rig:
        port = Port(rig.fake)
        incus = Incus(base / "conf", spawn=port).of(BUILD)
        incus = incus.while_alive(Heartbeat(incus).present)
        rig.context._at["build"] = replace(rig.context.here, incus=incus)
        yield rig, port


async def running(rig: Rig, nursery: trio.Nursery) -> None:
    """Return when a job runs there."""
    task = await rig.submit(SPEC, host="build")
    nursery.start_soon(task.run)
    while rig.journal.job("r.1").state is not State.RUNNING:
        await trio.sleep(1)


def log_of(rig: Rig) -> list[bytes]:
    log = rig.context.root.attempt_dir("r.1", 1) / "guest.log"
    return log.read_bytes().splitlines()[1:]


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("secs", [ANSWER_SECS, 60, DAEMON_SECS - 30])
async def test_a_job_outlasts_a_stall(
    tmp_path: Path, autojump_clock: MockClock, secs: float, breaks: bool
) -> None:
    """Its exec's connection is dead from then on; or broke, and the next one meets the stall."""
    async with open_far(tmp_path) as (rig, port):
        async with trio.open_nursery() as nursery:
            await running(rig, nursery)
            port.stall()
            if breaks:
                port.break_connections()
            await trio.sleep(secs)
            port.recover()

        job = rig.journal.job("r.1")
        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert [b"one", b"two"] == log_of(rig)
        assert not rig.fake.instances()


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_stall_without_an_end_is_a_fault_after_the_limit(
    tmp_path: Path, autojump_clock: MockClock, breaks: bool
) -> None:
    """Not at the end of the job's own time, which may be days away."""
    async with open_far(tmp_path) as (rig, port):
        async with trio.open_nursery() as nursery:
            await running(rig, nursery)
            began = trio.current_time()
            port.stall()
            if breaks:
                port.break_connections()
            while not rig.journal.job("r.1").ended:
                await trio.sleep(1)
            took = trio.current_time() - began

        failed = next(entry for entry in rig.entries() if isinstance(entry, ev.Failed))
        assert FailureKind.INFRASTRUCTURE is failed.failure.kind
        assert "the host build does not answer" in failed.failure.message
        assert DAEMON_SECS <= took <= DAEMON_SECS + 2 * FOUND_OUT_SECS


@pytest.mark.parametrize("program", ["pikaci-ready", "pikaci-collect"])
async def test_a_stall_in_a_call_that_may_be_made_again_costs_no_attempt(
    tmp_path: Path, autojump_clock: MockClock, program: str
) -> None:
    async with open_far(tmp_path) as (rig, port):
        port.stall_at = program
        async with trio.open_nursery() as nursery:
            nursery.start_soon((await rig.submit(SPEC, host=BUILD.name)).run)
            await port.stalled.wait()
            await trio.sleep(60)
            port.recover()

        job = rig.journal.job("r.1")
        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert [b"one", b"two"] == log_of(rig)


async def test_a_call_that_prints_is_not_cut(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A transfer may use up the way for itself, so that no question gets through."""
    async with open_rig(tmp_path, host=BUILD) as rig:
        port = Port(rig.fake)
        heartbeat = Heartbeat(Incus(tmp_path / "conf", spawn=port).of(BUILD))
        port.stall()
        printed = 0

        async with heartbeat.present(lambda: printed):
            for _ in range(100):
                await trio.sleep(ASK_EVERY_SECS)
                printed += 1


async def test_an_answer_that_is_an_error_is_a_sign_of_life(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What the daemon complains about is no reason to cut a log that is followed."""

    async def complain(argv: Sequence[str], **options: Any) -> Completed:
        return Completed(tuple(argv), 1, b"", b"Error: Too many open files\n")

    heartbeat = Heartbeat(Incus(tmp_path / "conf", spawn=complain).of(BUILD))
    async with heartbeat.present(int):
        await trio.sleep(10 * ASK_EVERY_SECS)


async def test_it_is_one_question_for_all_calls(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_rig(tmp_path, host=BUILD) as rig:
        port = Port(rig.fake)
        heartbeat = Heartbeat(Incus(tmp_path / "conf", spawn=port).of(BUILD))

        async def wait() -> None:
            async with heartbeat.present(int):
                await trio.sleep(100 * ASK_EVERY_SECS)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(wait)

        assert 90 <= port.queries <= 100

"""The output of a run's jobs is what their commands printed, attempt after attempt."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from orchestrator.cli.follow import MAX_RUNNERS_LINE, CommandOutput, follow
from orchestrator.cli.lines_watch import LinesWatch
from orchestrator.job.handle import JobHandle, LogPiece
from orchestrator.testing import open_fake
from states import events as ev
from states.spec import JobSpec
from tests.samples import sample_life

HEAD = b"[pikaci] incus guest booted at 2026-01-01T00:00:00Z\n"


def printed(*pieces: tuple[int, bytes]) -> bytes:
    """What a person reads of these pieces, each of an attempt's log."""
    output = CommandOutput()
    fed = [output.feed(LogPiece(attempt, 0, data)) for attempt, data in pieces]
    return b"".join([*fed, output.end()])


def test_the_runners_line_is_left_out_however_it_is_split() -> None:
    """Of the first attempt, and of each that follows."""
    log = HEAD + b"one\ntwo"
    for at in range(len(log)):
        again = [(2, log[:at]), (2, log[at:])]

        assert b"one\ntwo" == printed((1, log[:at]), (1, log[at:]))
        assert b"one\ntwo\none\ntwo" == printed((1, log), *again)


@pytest.mark.parametrize("log", [b"[pikaci] other\n", HEAD[:-1] + b"x" * MAX_RUNNERS_LINE, b""])
def test_what_is_no_line_of_the_runner_is_printed(log: bytes) -> None:
    """Whatever it begins with."""
    assert log == printed((1, log))


@pytest.mark.parametrize("cut", range(len(HEAD)))
def test_an_attempt_that_ended_in_the_runners_line_leaves_nothing(cut: int) -> None:
    """Its guest was gone before the command started."""
    assert b"two\n" == printed((1, HEAD[:cut]), (2, HEAD + b"two\n"))


async def test_a_line_that_an_attempt_did_not_finish_is_a_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the next attempt prints does not continue it."""

    async def log(job: str) -> AsyncGenerator[LogPiece, None]:
        for attempt, data in ((1, HEAD + b"first\nno line feed"), (2, HEAD + b"second\n")):
            yield LogPiece(attempt, len(data), data)

    async def until_ended(job: str, known: trio.Event) -> bool:
        return False

    watch = LinesWatch(log="stdout", verbose=False)
    for event in sample_life():
        watch.entry(event)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        await follow(["r.1"], watch, log=log, until_ended=until_ended)
        nursery.cancel_scope.cancel()

    lines = [line.partition("| ") for line in capfd.readouterr().out.splitlines()]
    assert ["first", "no line feed", "second"] == [text for _, bar, text in lines if bar]


async def test_pieces_of_a_log_tell_the_attempts_apart(autojump_clock: MockClock) -> None:
    """The log of a job that is retried, while it is followed."""
    async with open_fake() as (orchestrator, fake):
        fake.break_off("pikaci-ready", secs=9, with_error="Instance is not running")
        job: JobHandle = await orchestrator.submit(JobSpec(command="echo one", retries=1))

        def leave_half_a_line(entry: ev.Entry) -> None:
            # Nobody is told of it before the next attempt begins.
            if isinstance(entry, ev.Retried):
                (job.directory.with_name("attempt-1") / "guest.log").write_bytes(HEAD[:20])

        orchestrator.journal.observe(leave_half_a_line)
        pieces = [piece async for piece in job.log_pieces()]
        log = (job.directory / "guest.log").read_bytes()

    assert {1: HEAD[:20], 2: log} == {
        attempt: b"".join(piece.data for piece in pieces if piece.attempt == attempt)
        for attempt in (1, 2)
    }
    assert len(log) == pieces[-1].end
    assert b"one" == b"".join(log.splitlines()[1:])

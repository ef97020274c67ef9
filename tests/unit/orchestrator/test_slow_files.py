"""Files that are slow, or never answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec, UsageError
from orchestrator.job import submission
from orchestrator.job.reading import Reading
from orchestrator.journal import JournalError
from orchestrator.slow_files import _THREADS, LOOK_UP_SECS, in_thread, look_up
from orchestrator.testing import open_fake


async def test_a_look_up_that_gets_no_answer_is_given_up(mock_clock: MockClock) -> None:
    """In words, also when as many are given up as may have threads, and more."""
    away, told = threading.Event(), []

    async def look() -> None:
        try:
            await look_up("the workspace /net/tree", away.wait)
        except UsageError as error:
            told.append(error.brief)

    try:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(2 * _THREADS):
                    nursery.start_soon(look)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(LOOK_UP_SECS + 1)
        # The threads that others need are free.
        assert 3 == await trio.to_thread.run_sync(lambda: 3)
    finally:
        away.set()

    words = "the workspace /net/tree: its file system did not answer within 10 s"
    assert [words] * (4 * _THREADS) == told


async def test_a_workspace_that_is_away_keeps_nobody_from_submitting(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it was submitted, and the next submission is as ever."""
    away, real = threading.Event(), submission.real_path

    def real_path(workspace: Path) -> Path:
        if workspace.name == "away":
            away.wait()
        return real(workspace)

    monkeypatch.setattr("orchestrator.job.publisher.real_path", real_path)
    try:
        async with open_fake() as (orchestrator, _):
            async with trio.open_nursery() as nursery:

                async def submit() -> None:
                    with pytest.raises(UsageError, match="did not answer within 10 s"):
                        await orchestrator.submit(JobSpec(command="true"), workspace=Path("/away"))

                nursery.start_soon(submit)
                await trio.testing.wait_all_tasks_blocked()
                job = await orchestrator.submit(JobSpec(command="true"))
                assert (await job.wait()).ended
                mock_clock.jump(LOOK_UP_SECS + 1)
            assert [job.id] == [row.id for row in orchestrator.journal.jobs()]
    finally:
        away.set()


@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
async def test_a_context_manager_in_a_thread_is_left_as_ever(
    error: type[BaseException] | None,
) -> None:
    """In a thread too, with the error as it was raised; also when it is cancelled meanwhile."""
    threads: list[str] = []
    seen: list[BaseException | None] = []

    @contextmanager
    def manager() -> Iterator[int]:
        threads.append(threading.current_thread().name)
        try:
            yield 7
            seen.append(None)
        except BaseException as raised:
            seen.append(raised)
            raise
        finally:
            threads.append(threading.current_thread().name)

    raised = error() if error is not None else None
    caught: BaseException | None = None
    try:
        async with in_thread(manager()) as value:
            assert 7 == value
            if raised is not None:
                raise raised
    except (ZeroDivisionError, KeyboardInterrupt) as out:
        caught = out
    with trio.CancelScope() as scope:
        async with in_thread(manager()):
            scope.cancel()
            await trio.sleep_forever()

    assert raised is caught
    assert raised is seen[0]
    assert isinstance(seen[1], trio.Cancelled)
    assert 4 == len(threads)
    assert threading.current_thread().name not in threads


async def test_a_context_manager_is_left_where_there_is_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lock is not kept because the machine has no threads left."""
    left = []

    @contextmanager
    def manager() -> Iterator[None]:
        yield
        left.append(True)

    async def none_left(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError, match="can't start new thread"):
        async with in_thread(manager()):
            monkeypatch.setattr(trio.to_thread, "run_sync", none_left)

    assert [True] == left


async def test_a_journal_that_is_closed_waits_for_who_reads_it() -> None:
    """And whoever comes later is told."""
    reading = Reading()
    go_on, results = threading.Event(), []

    async def read() -> None:
        results.append(await reading.journal(lambda: go_on.wait() and "read"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(reading.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == results
        go_on.set()

    assert ["read"] == results
    with pytest.raises(JournalError, match="the journal is not open"):
        await reading.journal(lambda: None)

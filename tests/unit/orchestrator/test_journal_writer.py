"""A write that is cut short, at every point: nobody is told that what is not there is durable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

from orchestrator.journal import Journal, JournalError, open_journal
from orchestrator.journal import file as journal_file
from orchestrator.journal import writer as journal_writer
from states import events as ev
from tests.samples import sample_event, sample_note

FILES = (journal_writer.__file__, journal_file.__file__)


class Interrupt:
    """Raises in the `number`-th line of the writing that is run, and in no other."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.left = number
        self.error = error
        self.fault = issubclass(error, Exception)

    def __call__(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        # An error where an observer is called is the observer's.
        spared = {"append", "note", "__post_init__"} | ({"_tell"} if self.fault else set())
        if frame.f_code.co_filename not in FILES or frame.f_code.co_name in spared:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self

    @property
    def struck(self) -> bool:
        return self.left <= 0


async def share_a_commit(journal: Journal, interrupt: Interrupt) -> dict[str, BaseException | None]:
    """Three appends, two of which share a commit, one interrupt; what became of each."""
    told: dict[str, BaseException | None] = {}

    async def append(job: str) -> None:
        try:
            await journal.append(sample_event(ev.Submitted, 1, job=job))
        except BaseException as error:
            told[job] = error
            if isinstance(error, trio.Cancelled):
                raise
        else:
            told[job] = None

    commit = journal._commit

    def traced(parts: Any) -> None:
        sys.settrace(interrupt)  # of the worker thread
        try:
            commit(parts)
        finally:
            sys.settrace(None)

    journal._commit = traced  # type: ignore[method-assign]
    journal.note(sample_note())
    async with trio.open_nursery() as nursery:
        sys.settrace(interrupt)
        try:
            nursery.start_soon(append, "r.1")
            nursery.start_soon(append, "r.2")
            nursery.start_soon(append, "r.3")
            while len(told) < 3:
                await trio.sleep(0.001)
        finally:
            sys.settrace(None)
    journal._commit = commit  # type: ignore[method-assign]
    return told


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
async def test_an_interrupted_write_tells_nobody_that_it_was_done(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """At every line: who is told of success finds its entry, nothing is told twice, all go on."""
    number, struck = 0, True
    while struck:
        number += 1
        interrupt = Interrupt(number, error)
        heard: list[ev.Entry] = []
        with open_journal(tmp_path / f"{number}.sqlite3") as journal:
            journal.observe(heard.append)
            told = await share_a_commit(journal, interrupt)
            struck = interrupt.struck
            await journal.append(sample_event(ev.Submitted, 1, job="r.4"))
            stored = {row.id for row in journal.jobs()}

        durable = {job for job, fault in told.items() if fault is None}
        assert durable | {"r.4"} <= stored
        assert len(told) - len(durable) <= (3 if struck else 0)
        events = [entry.job for entry in heard if isinstance(entry, ev.Event)]
        assert len(set(events)) == len(events)
        assert set(events) <= stored
        assert len(durable - set(events)) <= 1  # the one that was being told of
        for fault in told.values():
            assert fault is None or isinstance(fault, error | JournalError)

    assert number > 40  # the lines of a commit


async def test_who_shares_an_interrupted_commit_writes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt is its own who was cut short; the others' entries become durable."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        commit, cut = journal._commit, [KeyboardInterrupt()]

        def interrupted(parts: Any) -> None:
            if cut:
                raise cut.pop()
            commit(parts)

        monkeypatch.setattr(journal, "_commit", interrupted)

        interrupts = []

        async def append(job: str) -> None:
            try:
                await journal.append(sample_event(ev.Submitted, 1, job=job))
            except KeyboardInterrupt as error:
                interrupts.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(append, f"r.{number}")

        assert 1 == len(interrupts)
        assert {"r.0", "r.1", "r.2"} == {row.id for row in journal.jobs()}


def test_reads_are_made_in_any_thread(tmp_path: Path) -> None:
    """Many at once, while something is written; each sees whole appends."""

    async def main() -> None:
        with open_journal(tmp_path / "journal.sqlite3") as journal:
            await journal.append(sample_event(ev.Submitted, 1))
            seen: set[int] = set()

            def read() -> None:
                for _ in range(30):
                    jobs = journal.jobs()
                    seen.add(len(jobs) % 2)
                    assert jobs[0].id == journal.job("r.1").id
                    assert journal.position() >= len(jobs)

            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(trio.to_thread.run_sync, read)
                for number in range(2, 40, 2):
                    await journal.append(
                        sample_event(ev.Submitted, 1, job=f"r.{number}"),
                        sample_event(ev.Submitted, 1, job=f"r.{number + 1}"),
                    )

            assert {1} == seen

    trio.run(main)


async def test_a_closed_journal_is_said_to_be_closed(tmp_path: Path) -> None:
    """To who reads and to who writes, also when a read is going on then."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(sample_event(ev.Submitted, 1))

    with pytest.raises(JournalError, match="not open"):
        journal.jobs()
    with pytest.raises(JournalError, match="not open"):
        await journal.append(sample_event(ev.Submitted, 1, job="r.2"))

"""The journal: durable, shared, and never overwritten by what does not know it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import trio
from hypothesis import given

from orchestrator.journal import (
    Journal,
    JournalError,
    JournalUnwritable,
    NotTheWriter,
    open_journal,
    read_journal,
    writer,
)
from states import events as ev
from states.lifecycle import TERMINAL, State
from states.outcome import Failure, FailureKind, Verdict
from tests.samples import lives, sample_life, sample_shell_job

WHEN = {"at": datetime(2026, 1, 2, tzinfo=UTC), "monotonic": 1.0}


def submitted(job: str = "r.1", run: str = "r", name: str = "lint") -> ev.Submitted:
    return ev.Submitted(
        job=job,
        seq=1,
        run=run,
        name=name,
        spec=sample_shell_job(),
        workspace="/src",
        snapshot=ev.SnapshotRef(hash="abc"),
        contract=1,
        **WHEN,
    )


def failed(job: str = "r.1", seq: int = 2) -> ev.Failed:
    failure = Failure(kind=FailureKind.INFRASTRUCTURE, phase="submitted", message="no daemon")
    return ev.Failed(job=job, seq=seq, failure=failure, **WHEN)


def note(job: str = "r.1") -> ev.Called:
    return ev.Called(v=2, job=job, argv=("incus",), duration_ms=1.0, exit_code=0, **WHEN)


async def test_what_was_appended_is_there_for_another_process(tmp_path: Path) -> None:
    """When append returns, a second connection reads the entries, and folds the job."""
    path = tmp_path / "journal.sqlite3"
    with open_journal(path) as journal:
        await journal.append(submitted(), failed())

        with open_journal(path) as other:
            job = other.job("r.1")
            rows = other.jobs()

    assert (State.FAILED, "lint") == (job.state, job.name)
    assert [("r.1", True)] == [(row.id, row.ended) for row in rows]


async def test_observers_hear_of_entries_in_the_order_of_the_journal(tmp_path: Path) -> None:
    """Tasks that append at once share commits, and nothing is lost, doubled or reordered."""
    heard: list[ev.Entry] = []
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        journal.observe(heard.append)

        async def one(number: int) -> None:
            await journal.append(submitted(f"r.{number}"))
            await journal.append(failed(f"r.{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        stored = {
            number: [entry for _, entry in journal.entries(f"r.{number}")] for number in range(20)
        }

    assert 40 == len(heard)
    for number, entries in stored.items():
        assert [submitted(f"r.{number}"), failed(f"r.{number}")] == entries
        assert entries == [entry for entry in heard if entry.job == f"r.{number}"]


async def test_a_note_becomes_durable_with_the_next_append(tmp_path: Path) -> None:
    """Notes cost no commit of their own, and stand before the entry that came after them."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted())
        journal.note(note())

        before = [entry for _, entry in journal.entries("r.1")]
        await journal.append(failed())
        after = [entry for _, entry in journal.entries("r.1")]

    assert [submitted()] == before
    assert [submitted(), note(), failed()] == after


async def test_who_comes_second_fails_alone(tmp_path: Path) -> None:
    """Of appends that share a commit, only the one whose numbers are taken is refused, whole."""
    refused: list[str] = []
    heard: list[ev.Entry] = []
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted("r.1"), submitted("r.2"))
        journal.observe(heard.append)

        async def append(*entries: ev.Entry) -> None:
            try:
                await journal.append(*entries)
            except NotTheWriter as error:
                refused.append(error.brief)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append, failed("r.1"))
            nursery.start_soon(append, note("r.2"), submitted("r.2"))  # its number 1 is taken
            nursery.start_soon(append, submitted("r.3"), failed("r.3"))
        stored = {job: [e for _, e in journal.entries(job)] for job in ("r.1", "r.2", "r.3")}

    assert ["another process has moved the job r.2"] == [brief.split(": ")[1] for brief in refused]
    assert [submitted("r.1"), failed("r.1")] == stored["r.1"]
    assert [submitted("r.2")] == stored["r.2"]
    assert [submitted("r.3"), failed("r.3")] == stored["r.3"]
    assert 3 == len(heard)


async def test_who_brings_what_cannot_be_encoded_fails_alone(tmp_path: Path) -> None:
    """It is refused before it is with the others' entries."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.append, submitted("r.1"))
            with pytest.raises(UnicodeEncodeError):
                await journal.append(submitted("r.2", name="\udcff"))
        jobs = [row.id for row in journal.jobs()]

    assert ["r.1"] == jobs


@contextmanager
def full_disk(journal: Journal) -> Iterator[None]:
    """SQLite finds no room for another page."""
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    (most,) = journal._connection.execute("PRAGMA max_page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    journal._connection.execute(f"PRAGMA max_page_count = {most}")


@contextmanager
def failing_disk(journal: Journal) -> Iterator[None]:
    """No file of this process can grow; Python ignores the signal, and writes fail."""
    with no_longer_than(journal._path.stat().st_size):
        yield


@contextmanager
def no_longer_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("bad", [full_disk, failing_disk])
async def test_a_full_disk_is_told_to_all_and_survived(tmp_path: Path, bad: Any) -> None:
    """Everyone in the batch hears what happened and what to do; with space again, it goes on."""
    path = tmp_path / "journal.sqlite3"
    big = submitted("r.3", name="x" * 100_000)
    errors: list[JournalError] = []
    heard: list[ev.Entry] = []
    with open_journal(path) as journal:
        await journal.append(submitted("r.1"))
        journal.observe(heard.append)

        async def append(*entries: ev.Entry) -> None:
            with pytest.raises(JournalError) as caught:
                await journal.append(*entries)
            errors.append(caught.value)

        with bad(journal):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(append, submitted("r.2"))
                nursery.start_soon(append, big)
        alone = [row.id for row in journal.jobs()]
        silent = list(heard)
        await journal.append(submitted("r.2"), big)
        both = [row.id for row in journal.jobs()]

    assert 2 == len(errors)
    assert all(str(path) in error.brief and "cannot be used: d" in error.brief for error in errors)
    assert all("pikaci gc" in error.resolution for error in errors)
    assert (["r.1"], []) == (alone, silent)
    assert ["r.1", "r.2", "r.3"] == both


async def test_a_journal_on_a_full_disk_can_be_read(tmp_path: Path) -> None:
    """There is no room for the files that SQLite wants beside it; who must write is told so."""
    path = tmp_path / "journal.sqlite3"
    with open_journal(path) as journal:
        await journal.append(submitted())

    with no_longer_than(0):
        with read_journal(path) as journal:
            names = [row.name for row in journal.jobs()]
        with pytest.raises(JournalUnwritable, match=str(path)), open_journal(path):
            pass

    assert ["lint"] == names


async def test_a_job_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """An entry that does not decode, a gap, or no events: the job and doctor are named."""
    problems = []
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted("r.1"), submitted("r.2"), failed("r.2"), submitted("r.3"))
        change = journal._connection.execute
        change("UPDATE entries SET body = X'7B00' WHERE job = 'r.1'")
        change("DELETE FROM entries WHERE job = 'r.2' AND seq = 1")
        change("DELETE FROM entries WHERE job = 'r.3'")
        for job in ("r.1", "r.2", "r.3"):
            with pytest.raises(JournalError) as caught:
                journal.job(job)
            problems.append(caught.value)

    assert ["r.2", "r.3"] == [job for job in ("r.2", "r.3") if job in str(problems)]
    assert all("pikaci doctor" in error.resolution for error in problems)


@pytest.mark.parametrize("name", ["owner", "key"])
def test_a_lost_name_is_a_clear_error(tmp_path: Path, name: str) -> None:
    """A journal without its owner or key is damaged, and is given no new one."""
    path = tmp_path / "journal.sqlite3"
    with open_journal(path) as journal:
        journal._connection.execute("DELETE FROM meta WHERE key = ?", (name,))

    with open_journal(path) as journal, pytest.raises(JournalError, match=f"lost its {name}"):
        getattr(journal, name)


async def test_owner_and_key_are_read_when_the_journal_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs need them in the thread of the loop, where nothing may wait for a disk."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        reads: list[str] = []
        monkeypatch.setattr(journal, "_select", lambda statement, *_: reads.append(statement))

        assert (16, 64) == (len(journal.owner), len(journal.key))
        assert [] == reads


async def test_runs_that_began_at_once_are_told_apart(tmp_path: Path) -> None:
    """Their jobs stand mixed in the journal; each run is there once, and whole."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        for run, job in (("r", "r.1"), ("q", "q.1"), ("r", "r.2"), ("q", "q.2")):
            await journal.append(submitted(job, run))
        runs = {run: [row.id for row in rows] for run, rows in journal.runs().items()}

    assert [("r", ["r.1", "r.2"]), ("q", ["q.1", "q.2"])] == list(runs.items())


async def test_leases_follow_their_notes(tmp_path: Path) -> None:
    """A lease is open from its intent until Incus said that there is no such instance."""
    lease = {"job": "r.1", "instance": "pikaci-x", **WHEN}
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted(), ev.LeaseOpened(deadline=WHEN["at"], **lease))
        opened = journal.open_leases()
        await journal.append(ev.LeaseKept(deadline=datetime(2027, 1, 1, tzinfo=UTC), **lease))
        kept = journal.open_leases()
        await journal.append(ev.LeaseEnded(**lease))
        ended = journal.open_leases()

    assert [("pikaci-x", False)] == [(row.instance, row.kept) for row in opened]
    assert [(True, 2027)] == [(row.kept, row.deadline.year) for row in kept]
    assert [] == ended


@pytest.mark.parametrize("state", sorted(frozenset(State) - TERMINAL))
async def test_jobs_in_an_unfinished_state_are_found_among_the_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """By their own index: nearly all jobs of a large journal have ended."""
    asked: list[tuple[str, Any]] = []
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        monkeypatch.setattr(journal, "_select", lambda *query: asked.append(query) or [])
        journal.newest(limit=10, state=state, before=7)
        ((statement, values),) = asked
        execute = journal._connection.execute
        plan = str(execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall())

    assert "USING INDEX jobs_unfinished" in plan and "TEMP B-TREE" not in plan


def test_the_owner_of_a_root_stays_and_differs_from_another_s(tmp_path: Path) -> None:
    """The owner key is made once a journal."""
    owners = []
    for name in ("a", "a", "b"):
        with open_journal(tmp_path / name) as journal:
            owners.append(journal.owner)

    assert owners[0] == owners[1] != owners[2]


async def test_forgetting_a_job_takes_only_that_job(tmp_path: Path) -> None:
    """What gc deletes is gone from every table; its neighbour is whole."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted("r.1"), failed("r.1"), submitted("r.2"), failed("r.2"))
        journal.forget(["r.1"])

        rows, gone, kept = journal.jobs(), journal.entries("r.1"), journal.entries("r.2")

    assert ["r.2"] == [row.id for row in rows]
    assert [] == gone
    assert 2 == len(kept)


async def test_many_jobs_are_forgotten_while_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some at a time: the others' commits get their turn in between, and none waits for all."""
    path = tmp_path / "journal.sqlite3"
    monkeypatch.setattr(writer, "FORGOTTEN_AT_ONCE", 2)
    statements: list[str] = []
    with open_journal(path) as journal, open_journal(path) as other:
        ids = [f"r.{number}" for number in range(5)]
        await journal.append(*(entry for id in ids for entry in (submitted(id), failed(id))))

        def write(secs: float) -> None:
            assert secs > 0.1
            other._connection.execute("PRAGMA busy_timeout = 0")
            other._connection.execute("UPDATE jobs SET name = name || '+'")

        monkeypatch.setattr("orchestrator.journal.writer.time.sleep", write)
        journal._connection.set_trace_callback(statements.append)
        journal.forget(ids[:4])
        journal._connection.set_trace_callback(None)

        assert [("r.4", "lint+")] == [(row.id, row.name) for row in journal.jobs()]
    # However many jobs: one look at all leases for each batch, as no index leads to a job's.
    assert 2 == sum("DELETE FROM leases" in statement for statement in statements)


async def test_a_listener_that_fails_is_no_fault_of_the_entry(tmp_path: Path) -> None:
    """What was appended is durable, others hear of it; the error comes when the journal closes."""
    heard: list[ev.Entry] = []

    def broken(entry: ev.Entry) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError), open_journal(tmp_path / "journal.sqlite3") as journal:
        journal.observe(broken)
        journal.observe(heard.append)
        for event in sample_life()[:2]:
            await journal.append(event)
        assert sample_life()[:2] == heard == [entry for _, entry in journal.entries("r.1")]


@given(life=lives())
def test_a_job_is_found_by_its_state_and_its_verdict(tmp_path: Path, life: list[Any]) -> None:
    """At every step, as its events make it; and by no other."""
    path = tmp_path / f"{uuid4().hex}.sqlite3"

    async def live() -> None:
        with open_journal(path) as journal:
            for event in life:
                await journal.append(event)
                job = journal.job("r.1")
                for state in State:
                    found = [row.id for _, row in journal.newest(limit=1, state=state)]
                    assert (["r.1"] if state is job.state else []) == found
                for verdict in Verdict:
                    found = [row.id for _, row in journal.newest(limit=1, verdict=verdict)]
                    assert (["r.1"] if verdict is job.verdict else []) == found
                assert job.ended == journal.ended("r.1")

    trio.run(live)


async def test_runs_are_listed_from_the_one_that_began_last(tmp_path: Path) -> None:
    """However their jobs' entries are mixed."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        for run, job in (("a", "a.1"), ("b", "b.1"), ("a", "a.2"), ("c", "c.1")):
            (event,) = sample_life(ev.Submitted)
            await journal.append(msgspec.structs.replace(event, run=run, job=job))

        assert ["c", "a", "b"] == [run for _, run in journal.newest_runs(limit=9)]
        assert ["c"] == [run for _, run in journal.newest_runs(limit=1)]

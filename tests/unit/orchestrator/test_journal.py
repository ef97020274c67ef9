"""The journal: durable, shared, and never overwritten by what does not know it."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from orchestrator.journal import SCHEMA_VERSION, JournalError, open_journal
from states import events as ev
from states.lifecycle import State
from states.outcome import Failure, FailureKind
from tests.samples import sample_shell_job

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
    note = ev.Called(job="r.1", argv=("incus",), duration_ms=1.0, exit_code=0, **WHEN)
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted())
        journal.note(note)

        before = [entry for _, entry in journal.entries("r.1")]
        await journal.append(failed())
        after = [entry for _, entry in journal.entries("r.1")]

    assert [submitted()] == before
    assert [submitted(), note, failed()] == after


async def test_an_append_that_fails_says_so_to_everyone_in_its_batch(tmp_path: Path) -> None:
    """Nobody is told that an entry is durable when its batch was not written."""
    errors: list[str] = []
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted())

        async def again() -> None:
            try:
                await journal.append(submitted())  # the id is taken: the commit fails
            except JournalError as error:
                errors.append(error.brief)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
            nursery.start_soon(again)
        await journal.append(failed())
        entries = [entry for _, entry in journal.entries("r.1")]

    assert 2 == len(errors)
    assert [submitted(), failed()] == entries


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


def test_the_owner_of_a_root_stays_and_differs_from_another_s(tmp_path: Path) -> None:
    """The owner key is made once a journal."""
    owners = []
    for name in ("a", "a", "b"):
        with open_journal(tmp_path / name) as journal:
            owners.append(journal.owner)

    assert owners[0] == owners[1] != owners[2]


def test_a_journal_of_a_newer_pikaci_is_left_alone(tmp_path: Path) -> None:
    """A newer version is refused with both versions named, and nothing is written."""
    path = tmp_path / "journal.sqlite3"
    with open_journal(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    versions = f"version 99.*version {SCHEMA_VERSION}"
    with pytest.raises(JournalError, match=versions), open_journal(path):
        pass

    assert before == path.read_bytes()


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    """Damage is one clear error that names the file; the bytes stay for who can save them."""
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(JournalError, match=str(path)), open_journal(path):
        pass

    assert path.read_bytes() == b"not a database" * 100


async def test_forgetting_a_job_takes_only_that_job(tmp_path: Path) -> None:
    """What gc deletes is gone from every table; its neighbour is whole."""
    with open_journal(tmp_path / "journal.sqlite3") as journal:
        await journal.append(submitted("r.1"), failed("r.1"), submitted("r.2"), failed("r.2"))
        journal.forget(["r.1"])

        rows, gone, kept = journal.jobs(), journal.entries("r.1"), journal.entries("r.2")

    assert ["r.2"] == [row.id for row in rows]
    assert [] == gone
    assert 2 == len(kept)

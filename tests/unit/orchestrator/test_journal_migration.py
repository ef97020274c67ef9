"""Journals of older versions are read, and brought to ours."""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Union

import msgspec
import pytest
import trio

from orchestrator.host.doctor import _journal
from orchestrator.journal import Journal, JournalError, open_journal
from orchestrator.journal.file import connect_to_read
from orchestrator.journal.migrations import SCHEMA_VERSION
from orchestrator.journal.reader import JournalReader
from orchestrator.session.gc import Bounds, collect_garbage
from orchestrator.state_root import StateRoot
from states import events as ev
from states import recorded, rules, trace
from states.errors import SpecError
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec
from tests.samples import sample_event
from tests.unit.orchestrator.journal_files import close_to_writers, contents

DATA = Path(__file__).parent / "data"
OLDER = range(1, SCHEMA_VERSION)


@pytest.mark.parametrize("version", OLDER)
def test_a_journal_of_an_older_version_is_brought_to_ours(tmp_path: Path, version: int) -> None:
    """Jobs, leases and owner are what the pikaci of that version said that they are."""
    path = tmp_path / "journal.sqlite3"
    expected = golden(path, version)

    with open_journal(path) as journal:
        folds = {row.id: journal.job(row.id) for row in journal.jobs()}
        jobs = json.loads(msgspec.json.encode(folds))
        found = {
            "owner": journal.owner,
            "unfinished": [row.id for row in journal.unfinished()],
            "leases": [[row.instance, row.job, row.kept] for row in journal.open_leases()],
            "jobs": {id: known(jobs[id], expected["jobs"].get(id, {})) for id in jobs},
        }
        key = journal.key
        places = {row.id: found_at(journal, row.id) for row in journal.jobs()}
    with open_journal(path) as journal:
        again = journal.key

    assert expected == found
    assert {id: (job.state, job.verdict) for id, job in folds.items()} == places
    assert key == again


class Tightened(JobSpec, frozen=True, forbid_unknown_fields=True):
    """A spec of other rules: what yesterday's jobs have is not allowed any more."""

    command: Annotated[str, msgspec.Meta(max_length=1)]
    cpus: Annotated[int, msgspec.Meta(ge=1000)] = 1000


@pytest.mark.parametrize("version", OLDER)
def test_a_rule_that_was_tightened_leaves_yesterday_s_journal_whole(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that refuse every spec, by type and by check: all is read, listed and cleaned up."""

    def refuse(spec: object) -> None:
        raise SpecError("command", "is not allowed any more")

    class Submitted(ev.Submitted, frozen=True, tag="submitted"):
        spec: Tightened

    monkeypatch.setattr(rules, "_judged", refuse)
    monkeypatch.setattr(rules, "check_form", refuse)
    others = [kind for kind in ev.WRITTEN_TYPES if kind is not ev.Submitted]
    decoder = msgspec.json.Decoder(Union[Submitted, *others])
    monkeypatch.setattr(recorded, "_decoder", lambda: decoder)
    root = StateRoot(tmp_path)
    expected = golden(root.journal, version)

    with pytest.raises(SpecError):
        rules.check(JobSpec(command="true"))
    with open_journal(root.journal) as journal:
        found = json.loads(
            msgspec.json.encode({row.id: journal.job(row.id) for row in journal.jobs()})
        )
        assert {id: known(found[id], job) for id, job in expected["jobs"].items()} == expected[
            "jobs"
        ]
        assert set() == journal.unreadable(found)
        for id in found:
            trace.decode(trace.join(id, [body for _, body in journal.bodies(id)]))
        unfinished = {row.run for row in journal.unfinished()} | {
            lease.run for lease in journal.open_leases()
        }
        collect_garbage(root, journal, Bounds(runs=0), dry_run=False)
        assert unfinished == {row.run for row in journal.jobs()}
    assert "ok" == _journal(root).state


@pytest.mark.parametrize("version", OLDER)
def test_an_older_journal_that_cannot_be_written_is_read_whole(
    unwritable: Path, version: int
) -> None:
    """It stays of its version, and is read as ours."""
    path = StateRoot(unwritable).journal
    expected = golden(path, version)
    close_to_writers(unwritable)
    before = contents(path)
    with closing(JournalReader(partial(connect_to_read, path), path)) as journal:
        states = {row.id: (row.state, journal.job(row.id).state) for row in journal.jobs()}

    assert {id: 2 * (job["state"],) for id, job in expected["jobs"].items()} == states
    assert before == contents(path)


@pytest.mark.parametrize("version", OLDER)
def test_an_old_journal_says_which_leases_were_answered(tmp_path: Path, version: int) -> None:
    """As its events do: an instance whose create was answered need not be waited for."""
    path = tmp_path / "journal.sqlite3"
    golden(path, version)

    with open_journal(path) as journal:
        for lease in journal.open_leases():
            entries = [entry for _, entry in journal.entries(lease.job)]
            made = {e.instance for e in entries if isinstance(e, ev.DevicesConfigured)}
            assert lease.made == (lease.instance in made)


def golden(path: Path, version: int) -> dict[str, Any]:
    """A journal that the pikaci of the version wrote, at the path; and what it made of it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / f"journal-{version:04}.sql").read_text())
    found: dict[str, Any] = json.loads((DATA / f"journal-{version:04}.json").read_text())
    return found


@pytest.mark.parametrize("version", OLDER)
def test_columns_that_came_later_are_those_that_would_have_been_written(
    tmp_path: Path, version: int
) -> None:
    """What a migration makes of old entries is what today's pikaci writes with them."""
    golden(tmp_path / "old", version)

    async def copy() -> None:
        with open_journal(tmp_path / "old") as old, open_journal(tmp_path / "new") as new:
            for row in old.jobs():
                await new.append(*(entry for _, entry in old.entries(row.id)))
            for before, after in zip(old.jobs(), new.jobs(), strict=True):
                # A moment may be written in more than one way.
                names = {*before.__struct_fields__, "submitted", "begun", "moved"}
                for name in names - {"submitted_at", "begun_at", "moved_at"}:
                    assert getattr(before, name) == getattr(after, name), name

    trio.run(copy)


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize(
    "body", [b"\x00", b"{", b"{}", b"[]", b"\xff\xfe", b'{"seq":"x","type":1}', b'{"seq":{}}']
)
def test_a_damaged_row_of_an_older_journal_costs_one_job(
    tmp_path: Path, version: int, body: bytes
) -> None:
    """Wherever it lies: the journal is brought to our version, and all other jobs are read."""
    path = tmp_path / "journal.sqlite3"
    expected = golden(path, version)
    with closing(sqlite3.connect(path)) as connection:
        events = connection.execute("SELECT id, job FROM entries").fetchall()
    for number, job in events[:: len(events) // 6]:
        for file in tmp_path.iterdir():
            file.unlink()
        golden(path, version)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE entries SET body = ? WHERE id = ?", (body, number))
        with open_journal(path) as journal:
            seen = {row.id: journal.look(row) for row in journal.jobs()}

        assert set(expected["jobs"]) == set(seen)
        for id, found in seen.items():
            assert id == job or not found.damage
            assert id == job or expected["jobs"][id]["state"] == found.state


def found_at(journal: Journal, id: str) -> tuple[State, Verdict | None]:
    """The state and the verdict by which the job is found, of all that there are."""

    def finds(**wanted: str) -> bool:
        return id in [row.id for _, row in journal.newest(limit=100, **wanted)]

    (state,) = (state for state in State if finds(state=state))
    verdicts = [verdict for verdict in Verdict if finds(verdict=verdict)]
    return state, verdicts[0] if verdicts else None


def known(now: Any, then: Any) -> Any:
    """A document with the fields that the older version knew, on every level."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {name: known(value, then[name]) for name, value in now.items() if name in then}
    return now


def test_every_older_version_has_a_journal_to_migrate() -> None:
    """Who adds a migration adds a journal that the version before has written."""
    assert [f"journal-{version:04}.sql" for version in OLDER] == sorted(
        path.name for path in DATA.glob("*.sql")
    )


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """All steps are one transaction: the journal of the older pikaci is still one."""
    path = tmp_path / "journal.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / "journal-0001.sql").read_text())
        connection.execute("CREATE TABLE entries_in_turn (x)")  # the name of the new index
        before = list(connection.iterdump())

    with pytest.raises(JournalError, match=str(path)), open_journal(path):
        pass

    with closing(sqlite3.connect(path)) as connection:
        assert before == list(connection.iterdump())
        assert (1,) == connection.execute("PRAGMA user_version").fetchone()


def test_runs_are_numbered_in_their_order_and_no_number_comes_twice(tmp_path: Path) -> None:
    """Those of an older journal too; a number that `pikaci gc` has freed is not used again."""
    path = tmp_path / "journal.sqlite3"
    golden(path, 9)

    async def use() -> None:
        with open_journal(path) as journal:
            old = {row.run: row.number for row in journal.jobs()}
            assert list(range(1, len(old) + 1)) == list(old.values())
            rejected = sample_event(ev.Rejected, 1, job="new.1")
            for run in ("new", "newer"):
                again = msgspec.structs.replace(rejected, job=f"{run}.1", run=run)
                other = msgspec.structs.replace(rejected, job=f"{run}.2", run=run)
                await journal.append(again, other)
            new = {row.id: row.number for row in journal.jobs() if row.run.startswith("new")}
            first = len(old) + 1
            assert {"new.1": first, "new.2": first, "newer.1": first + 1} == {
                id: new[id] for id in ("new.1", "new.2", "newer.1")
            }
            journal.forget(["new.1", "new.2", "newer.1", "newer.2"])
            await journal.append(msgspec.structs.replace(rejected, job="next.1", run="next"))
            assert first + 2 == next(row for row in journal.jobs(run="next")).number
            assert "next" == journal.run_of_number(f"#{first + 2}")
            assert "next" == journal.run_of_number(str(first + 2))
            for word in (str(first), "#", "#0", "", "1.1", "-1", "9" * 30, "\u0661"):
                assert journal.run_of_number(word) is None

    trio.run(use)


def test_an_older_journal_says_which_job_another_was_stopped_for(tmp_path: Path) -> None:
    """If it was skipped, or cancelled while it waited or ran."""
    path = tmp_path / "journal.sqlite3"
    golden(path, 9)

    with open_journal(path) as journal:
        because = {row.id: row.because for row in journal.jobs() if row.because}
        folded = {row.id: journal.job(row.id).because for row in journal.jobs()}

    assert {"r12.2": "r12.1", "r12.3": "r12.1"}.items() <= because.items()
    assert because == {id: job for id, job in folded.items() if job}
